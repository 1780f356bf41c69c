// SPDX-License-Identifier: Apache-2.0
// The tokenizer and the chat template of a model file, in memory that a ledger counts.
#pragma once

#include <zse/memory/arena.hpp>
#include <zse/tokenizer/from_gguf.hpp>
#include <zse/tokenizer/tokenizer.hpp>

#include <memory>
#include <memory_resource>
#include <string>

namespace zse::inline v1 {
namespace engine {

/// What turns text into a model's tokens and back. Shared by engines of the same file, which draw from the same
/// ledger; immutable.
class Vocabulary {
    // The tokenizer's tables lie in the arena: these come first.
    std::shared_ptr<memory::Ledger> ledger_;
    memory::Arena arena_;
    std::pmr::monotonic_buffer_resource resource_;

public:
    tokenizer::Tokenizer tokenizer;
    std::string chat_template;  ///< Jinja source, empty where the file has none
    std::string bos_text;       ///< as templates name them; empty where the file has none
    std::string eos_text;

    /// Reserves what the tables need and fills them. Throws out_of_memory, and what the Tokenizer throws.
    Vocabulary(const tokenizer::VocabularyData& data, std::string_view chat,
               std::shared_ptr<memory::Ledger> ledger, const memory::Mapping& mapping = {})
        : ledger_(std::move(ledger)),
          arena_(ledger_
                     ->reserve(memory::Tier::host, memory::Kind::tokenizer,
                               tokenizer::Tokenizer::footprint(data))
                     .value(),
                 mapping),
          resource_(arena_.data(), arena_.size(), std::pmr::null_memory_resource()),
          tokenizer(data, &resource_),
          chat_template(chat),
          bos_text(spelled(data, data.bos)),
          eos_text(spelled(data, data.eos)) {
        arena_.uses(arena_.size());
    }

    [[nodiscard]] const std::shared_ptr<memory::Ledger>& ledger() const noexcept { return ledger_; }
    /// What the tables hold, as ModelSpec::tokenizer_bytes says it before.
    [[nodiscard]] Bytes bytes() const noexcept { return arena_.size(); }

private:
    static std::string spelled(const tokenizer::VocabularyData& data, std::optional<std::uint64_t> token) {
        return token && *token < data.tokens.size() ? std::string(data.tokens[*token]) : std::string();
    }
};

/// Reads and checks a file's vocabulary. `expected` is the number of rows of the embedding; 0 checks nothing. Without
/// a ledger it has one of its own, without caps; engines draw from the ledger of their vocabulary.
inline std::shared_ptr<const Vocabulary> vocabulary_from_gguf(
    const io::Gguf& file, std::uint32_t expected = 0, std::shared_ptr<memory::Ledger> ledger = nullptr,
    const memory::Mapping& mapping = {}) {
    const tokenizer::VocabularyData data = tokenizer::data_from_gguf(file);
    if (expected != 0 && data.tokens.size() != expected) {
        throw Error(ErrorCode::corrupt,
                    text("the vocabulary has ", data.tokens.size(), " tokens, but the embedding has ",
                         expected, " rows; the file does not fit itself"));
    }
    if (ledger == nullptr) ledger = std::make_shared<memory::Ledger>();
    return std::make_shared<const Vocabulary>(data, file.find_string("tokenizer.chat_template").value_or(""),
                                              std::move(ledger), mapping);
}

}  // namespace engine
}  // namespace zse::inline v1
