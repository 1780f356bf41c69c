// SPDX-License-Identifier: Apache-2.0
// What a GGUF file says about its tokenizer.
#pragma once

#include <zse/io/gguf.hpp>
#include <zse/tokenizer/vocabulary_data.hpp>

#include <optional>

namespace zse::inline v1 {
namespace tokenizer {

/// Reads the keys tokenizer.ggml.*; views point into the file. Errors: corrupt where a key that every tokenizer needs
/// is missing, or an id is none.
inline VocabularyData data_from_gguf(const io::Gguf& file) {
    VocabularyData data;
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
    return data;
}

}  // namespace tokenizer
}  // namespace zse::inline v1
