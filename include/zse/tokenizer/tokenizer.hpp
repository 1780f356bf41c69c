// SPDX-License-Identifier: Apache-2.0
// Text to token ids and back, for byte-level BPE vocabularies ("gpt2" in GGUF); chat templates live beside
// it.
#pragma once

#include <zse/core/error.hpp>
#include <zse/tokenizer/bpe.hpp>
#include <zse/tokenizer/pre_tokenizer.hpp>
#include <zse/tokenizer/special_tokens.hpp>
#include <zse/tokenizer/stream_decoder.hpp>
#include <zse/tokenizer/utf8.hpp>
#include <zse/tokenizer/vocabulary.hpp>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace zse::inline v1 {
namespace tokenizer {

struct EncodeOptions {
    bool add_special = true;    ///< BOS and EOS where the file asks for them
    bool parse_special = true;  ///< control tokens spelled in the text become their ids; false for text of
                                ///< strangers, which then cannot forge a turn
};

/// Immutable after construction; every const function may be called from several threads at once.
class Tokenizer {
public:
    /// Copies what it needs out of `data`. Throws Error(unsupported) for a model other than "gpt2" or an
    /// unknown pre-tokenizer, Error(corrupt) for a vocabulary that contradicts itself.
    /// All tables lie in `memory`, which has to have footprint(data) bytes and to outlive the tokenizer.
    explicit Tokenizer(const VocabularyData& data,
                       std::pmr::memory_resource* memory = std::pmr::get_default_resource())
        : pre_(checked_pre(data)),
          vocabulary_(data, memory),
          merges_(vocabulary_, data.merges, memory),
          special_(vocabulary_, memory),
          add_bos_(data.add_bos.value_or(pre_.family().add_bos && data.bos.has_value())),
          add_eos_(data.add_eos.value_or(false)) {
        refuse_missing(add_bos_, vocabulary_.special().bos, "bos");
        refuse_missing(add_eos_, vocabulary_.special().eos, "eos");
    }

    /// The ids of `text`, the same that llama.cpp gives. Bytes for which the vocabulary has no token are
    /// left out, as there. Throws Error(invalid_input) for text that is not UTF-8, naming the byte, and
    /// for texts over 1 GiB. Time grows as n log n, whatever the text.
    [[nodiscard]] std::vector<std::int32_t> encode(std::string_view text, EncodeOptions options = {}) const {
        if (text.size() > PreTokenizer::longest_text) {
            throw Error(ErrorCode::invalid_input,
                        zse::text("expected a text of at most ", PreTokenizer::longest_text, " bytes, found ",
                                  text.size(), "; send it in parts"));
        }
        if (const std::size_t bad = find_invalid_utf8(text); bad != std::string_view::npos) {
            throw Error(ErrorCode::invalid_input,
                        zse::text("expected UTF-8, found an ill-formed sequence at byte ", bad,
                                  "; convert the text first"));
        }
        std::vector<std::int32_t> ids;
        if (options.add_special && add_bos_) ids.push_back(vocabulary_.special().bos);

        std::vector<SpecialMatch> matches;
        special_.find(text, options.parse_special, matches);
        Workspace workspace(merges_);
        std::size_t begin = 0;
        for (const SpecialMatch& match : matches) {
            encode_words(text.substr(begin, match.begin - begin), ids, workspace);
            ids.push_back(match.id);
            begin = match.end;
        }
        encode_words(text.substr(begin), ids, workspace);

        if (options.add_special && add_eos_) ids.push_back(vocabulary_.special().eos);
        return ids;
    }

    /// The text of `ids`; bytes that form no UTF-8 become U+FFFD. Control and unknown tokens are left out
    /// unless `show_special`. Throws Error(invalid_input) for an id out of range.
    [[nodiscard]] std::string decode(std::span<const std::int32_t> ids, bool show_special = false) const {
        StreamDecoder decoder(vocabulary_, show_special);
        std::string text;
        for (const std::int32_t id : ids) text += decoder.push(id);
        return text += decoder.flush();
    }

    /// A decoder for one stream of tokens; this tokenizer must outlive it.
    [[nodiscard]] StreamDecoder stream_decoder(bool show_special = false) const {
        return StreamDecoder(vocabulary_, show_special);
    }

    [[nodiscard]] const Vocabulary& vocabulary() const noexcept { return vocabulary_; }
    [[nodiscard]] std::size_t vocabulary_size() const noexcept { return vocabulary_.size(); }
    /// The bytes of one token, which need not be valid UTF-8 alone.
    [[nodiscard]] std::string_view token_bytes(std::int32_t id) const { return vocabulary_.bytes(id); }
    /// The token as the file spells it.
    [[nodiscard]] std::string token_text(std::int32_t id) const { return vocabulary_.text(id); }
    [[nodiscard]] TokenType token_type(std::int32_t id) const { return vocabulary_.type(id); }
    /// The id of a token by its spelling in the file.
    [[nodiscard]] std::optional<std::int32_t> find(std::string_view token_text) const {
        return vocabulary_.find(token_text);
    }
    [[nodiscard]] bool is_end_of_generation(std::int32_t id) const {
        return vocabulary_.is_end_of_generation(id);
    }
    /// bos, eos, eot, eom, unknown and padding; -1 where the file names none.
    [[nodiscard]] const SpecialIds& special() const noexcept { return vocabulary_.special(); }
    [[nodiscard]] bool adds_bos() const noexcept { return add_bos_; }
    [[nodiscard]] bool adds_eos() const noexcept { return add_eos_; }

    /// Memory that the tables of such a tokenizer take, in bytes, at most.
    static std::size_t footprint(const VocabularyData& data) noexcept {
        return Vocabulary::footprint(data) + Merges::footprint(data.merges.size()) +
               SpecialTokens::footprint(data);
    }

    /// Memory held for vocabulary and merges, in bytes.
    [[nodiscard]] std::size_t bytes_held() const noexcept {
        return vocabulary_.bytes_held() + merges_.bytes_held();
    }

private:
    struct Workspace {
        explicit Workspace(const Merges& merges) : merger(merges) {}
        WordMerger merger;
        SplitWorkspace split;
        std::vector<std::uint32_t> ends;
        std::vector<std::int32_t> symbols;
    };

    static std::string_view checked_pre(const VocabularyData& data) {
        if (data.model != "gpt2") {
            std::string shown;
            for (const char c : std::string_view(data.model).substr(0, 40)) {
                shown += c >= ' ' && c <= '~' ? c : '?';
            }
            throw Error(ErrorCode::unsupported, text("expected a byte-level BPE tokenizer ('gpt2'), found '",
                                                     shown, data.model == "llama" ? "' (SentencePiece)" : "'",
                                                     "; take a model with the former"));
        }
        return data.pre;
    }

    static void refuse_missing(bool wanted, std::int32_t id, std::string_view name) {
        if (wanted && id < 0) {
            throw Error(ErrorCode::corrupt,
                        text("expected a ", name, " token id, since add_", name,
                             "_token is set, found none; the file's metadata is damaged"));
        }
    }

    void encode_words(std::string_view text, std::vector<std::int32_t>& ids, Workspace& workspace) const {
        if (text.empty()) return;
        pre_.split(text, workspace.ends, workspace.split);
        std::size_t begin = 0;
        for (const std::uint32_t end : workspace.ends) {
            const std::string_view word = text.substr(begin, end - begin);
            begin = end;
            if (pre_.family().whole_words) {
                if (const std::int32_t id = vocabulary_.find_bytes(word); id >= 0) {
                    ids.push_back(id);
                    continue;
                }
            }
            workspace.symbols.clear();
            for (const char byte : word) {
                workspace.symbols.push_back(vocabulary_.byte_id(static_cast<std::uint8_t>(byte)));
            }
            workspace.merger.merge(workspace.symbols, ids);
        }
    }

    PreTokenizer pre_;
    Vocabulary vocabulary_;
    Merges merges_;
    SpecialTokens special_;
    bool add_bos_;
    bool add_eos_;
};

}  // namespace tokenizer
}  // namespace zse::inline v1
