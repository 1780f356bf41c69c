// SPDX-License-Identifier: Apache-2.0
// What a file says about its tokenizer, and the names by which it says that a turn ends.
#pragma once

#include <zse/core/version.hpp>

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace zse::inline v1 {
namespace tokenizer {

/// Token types as GGUF numbers them (`tokenizer.ggml.token_type`).
enum class TokenType : std::uint8_t {
    undefined = 0,
    normal = 1,
    unknown = 2,
    control = 3,       ///< found in text only where special tokens are parsed; hidden by decoding
    user_defined = 4,  ///< found in text always, before anything else is split
    unused = 5,
    byte = 6,  ///< spelled <0xHH>
};

/// What a file says about its tokenizer, still unchecked. The views need to live only until the
/// constructor that takes the data has returned.
struct VocabularyData {
    std::string model = "gpt2";             ///< tokenizer.ggml.model
    std::string pre;                        ///< tokenizer.ggml.pre; empty: "default"
    std::vector<std::string_view> tokens;   ///< tokenizer.ggml.tokens
    std::vector<std::string_view> merges;   ///< tokenizer.ggml.merges: "left right", most frequent first
    std::vector<std::int64_t> token_types;  ///< tokenizer.ggml.token_type; empty: all normal
    std::optional<std::uint64_t> bos;       ///< tokenizer.ggml.bos_token_id
    std::optional<std::uint64_t> eos;       ///< tokenizer.ggml.eos_token_id
    std::optional<std::uint64_t> eot;       ///< tokenizer.ggml.eot_token_id
    std::optional<std::uint64_t> eom;       ///< tokenizer.ggml.eom_token_id
    std::optional<std::uint64_t> unknown;   ///< tokenizer.ggml.unknown_token_id
    std::optional<std::uint64_t> padding;   ///< tokenizer.ggml.padding_token_id
    std::optional<bool> add_bos;            ///< tokenizer.ggml.add_bos_token; unset: as the family does
    std::optional<bool> add_eos;            ///< tokenizer.ggml.add_eos_token; unset: no
};

/// The ids a file names, checked; -1 is "none".
struct SpecialIds {
    std::int32_t bos = -1;
    std::int32_t eos = -1;
    std::int32_t eot = -1;
    std::int32_t eom = -1;
    std::int32_t unknown = -1;
    std::int32_t padding = -1;
};

namespace detail {

/// How the text of a token in the file relates to the bytes that it stands for.
enum class Spelling : std::uint8_t {
    byte_level,  ///< in the 256-character alphabet
    verbatim,    ///< text and bytes are the same (added tokens, and what leaves the alphabet)
    hex,         ///< <0xHH>
};

/// Names that end a generation where they are added tokens. A file names one or two such ids; models
/// emit any of these (tool calls, fill-in-the-middle separators), and llama.cpp stops at them too.
inline constexpr std::array<std::string_view, 32> ending_names{
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|calls|>",
    "<|flush|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "<|fim_pad|>",
    "<fim-pad>",
    "<fim_pad>",
    "<PAD>",
    "[PAD]",
    "<|fim_repo|>",
    "<|repo_name|>",
    "<fim-repo>",
    "<REPO>",
    "<reponame>",
    "<|file_sep|>",
    "[e~[",
    "<turn|>",
    "<\xEF\xBD\x9C"
    "end\xE2\x96\x81of\xE2\x96\x81sentence\xEF\xBD\x9C>"};

/// Fill-in-the-middle markers, control tokens that some files declare user-defined.
inline constexpr std::array<std::string_view, 17> middle_names{"<|fim_prefix|>",
                                                               "<|fim_suffix|>",
                                                               "<|fim_middle|>",
                                                               "<fim-prefix>",
                                                               "<fim-suffix>",
                                                               "<fim-middle>",
                                                               "<fim_prefix>",
                                                               "<fim_suffix>",
                                                               "<fim_middle>",
                                                               "<|code_prefix|>",
                                                               "<|code_suffix|>",
                                                               "<|code_middle|>",
                                                               "<PRE>",
                                                               "<SUF>",
                                                               "<\xEF\xBD\x9C"
                                                               "fim\xE2\x96\x81"
                                                               "begin\xEF\xBD\x9C>",
                                                               "<\xEF\xBD\x9C"
                                                               "fim\xE2\x96\x81hole\xEF\xBD\x9C>",
                                                               "<\xEF\xBD\x9C"
                                                               "fim\xE2\x96\x81"
                                                               "end\xEF\xBD\x9C>"};

/// Whether `text` is <0xHH> with upper-case digits; then its value.
constexpr std::optional<std::uint8_t> hex_byte(std::string_view text) noexcept {
    if (text.size() != 6 || !text.starts_with("<0x") || text.back() != '>') return std::nullopt;
    unsigned value = 0;
    for (const char digit : text.substr(3, 2)) {
        if (digit >= '0' && digit <= '9') {
            value = value * 16 + static_cast<unsigned>(digit - '0');
        } else if (digit >= 'A' && digit <= 'F') {
            value = value * 16 + static_cast<unsigned>(digit - 'A') + 10;
        } else {
            return std::nullopt;
        }
    }
    return static_cast<std::uint8_t>(value);
}

}  // namespace detail

}  // namespace tokenizer
}  // namespace zse::inline v1
