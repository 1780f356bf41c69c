// SPDX-License-Identifier: Apache-2.0
// The tokenizer and the chat template of a model file.
#pragma once

#include <zse/io/gguf.hpp>
#include <zse/tokenizer/tokenizer.hpp>

#include <memory>
#include <string>

namespace zse::inline v1 {
namespace engine {

/// What turns text into a model's tokens and back. Shared by engines of the same file; immutable.
struct Vocabulary {
    tokenizer::Tokenizer tokenizer;
    std::string chat_template;  ///< Jinja source, empty where the file has none
    std::string bos_text;       ///< as templates name them; empty where the file has none
    std::string eos_text;
};

/// Reads and checks a file's vocabulary. `expected` is the number of rows of the embedding; 0 checks nothing.
inline std::shared_ptr<const Vocabulary> vocabulary_from_gguf(const io::Gguf& file,
                                                              std::uint32_t expected = 0) {
    tokenizer::VocabularyData data;
    const auto id = [&](const char* key) -> std::optional<std::uint32_t> {
        const auto found = file.find_unsigned(key);
        if (!found) return std::nullopt;
        if (*found > 0x7fffffffu)
            throw Error(ErrorCode::corrupt, text("key ", key, " is ", *found, ", which is no token"));
        return static_cast<std::uint32_t>(*found);
    };
    data.model = file.require_string("tokenizer.ggml.model");
    if (const auto pre = file.find_string("tokenizer.ggml.pre")) data.pre = *pre;
    data.tokens = file.require_strings("tokenizer.ggml.tokens");
    if (auto merges = file.find_strings("tokenizer.ggml.merges")) data.merges = std::move(*merges);
    if (const auto types = file.find_ints("tokenizer.ggml.token_type")) {
        data.token_types.assign(types->begin(), types->end());
    }
    data.bos = id("tokenizer.ggml.bos_token_id");
    data.eos = id("tokenizer.ggml.eos_token_id");
    data.eot = id("tokenizer.ggml.eot_token_id");
    data.eom = id("tokenizer.ggml.eom_token_id");
    data.unknown = id("tokenizer.ggml.unknown_token_id");
    data.padding = id("tokenizer.ggml.padding_token_id");
    data.add_bos = file.find_bool("tokenizer.ggml.add_bos_token");
    data.add_eos = file.find_bool("tokenizer.ggml.add_eos_token");
    if (expected != 0 && data.tokens.size() != expected) {
        throw Error(ErrorCode::corrupt,
                    text("the vocabulary has ", data.tokens.size(), " tokens, but the embedding has ",
                         expected, " rows; the file does not fit itself"));
    }
    const auto spelled = [&](std::optional<std::uint32_t> token) {
        return token && *token < data.tokens.size() ? std::string(data.tokens[*token]) : std::string();
    };
    std::string bos = spelled(data.bos);
    std::string eos = spelled(data.eos);
    std::string chat(file.find_string("tokenizer.chat_template").value_or(""));
    return std::make_shared<const Vocabulary>(
        Vocabulary{tokenizer::Tokenizer(data), std::move(chat), std::move(bos), std::move(eos)});
}

}  // namespace engine
}  // namespace zse::inline v1
