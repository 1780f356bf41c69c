// SPDX-License-Identifier: Apache-2.0
// Writes whole Llama models of a few KB as GGUF: weights by a formula, a byte-level vocabulary, a chat
// template.
#pragma once

#include <support/gguf_blocks.hpp>
#include <support/gguf_writer.hpp>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace support {

/// The shape and the storage of a tiny model. The defaults are a valid small one.
struct TinySpec {
    std::uint32_t layers = 2;
    std::uint32_t hidden = 64;
    std::uint32_t heads = 4;
    std::uint32_t kv_heads = 2;
    std::uint32_t head_dim = 16;
    std::uint32_t ffn = 128;
    std::uint32_t vocab = 288;    ///< at least TinyTokens::least
    std::uint32_t context = 256;  ///< the trained length that the file states
    bool tied = false;            ///< no output.weight: token_embd is the output matrix too
    float rope_theta = 10000.0f;
    float norm_epsilon = 1e-5f;
    zse::io::GgmlType type =
        zse::io::GgmlType::f32;  ///< of a layer's matrices: f32, f16, bf16, q8_0, q4_0, q4_1
    zse::io::GgmlType embedding = zse::io::GgmlType::f32;
    zse::io::GgmlType output = zse::io::GgmlType::f32;
    std::uint64_t seed = 1;
    std::vector<float> rope_freqs{};  ///< head_dim / 2 divisors of the frequencies; empty: no such tensor
    bool add_bos = true;
    std::string pre = "gpt-2";           ///< name of the pre-tokenizer
    std::vector<std::string> without{};  ///< names of tensors and keys to leave out
};

/// Ids of the tiny vocabulary: bytes 0-255 (id = byte), the merges' results, specials, then fillers
/// "tok<id>".
struct TinyTokens {
    static constexpr std::uint32_t first_merge = 256;
    static constexpr std::uint32_t bos = 272;       ///< <|startoftext|>
    static constexpr std::uint32_t eos = 273;       ///< <|endoftext|>
    static constexpr std::uint32_t im_start = 274;  ///< <|im_start|>
    static constexpr std::uint32_t im_end = 275;    ///< <|im_end|>
    static constexpr std::uint32_t least = 276;
};

inline constexpr const char* tiny_chat_template =
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + "
    "'<|im_end|>' + "
    "'\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

namespace detail {

/// The output function of splitmix64.
constexpr std::uint64_t tiny_mix(std::uint64_t x) noexcept {
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
}

constexpr std::uint64_t tiny_golden = 0x9E3779B97F4A7C15u;

/// A byte as the GPT-2 vocabulary spells it: itself where printable, else the next unused character from
/// U+0100.
inline std::string tiny_spelling(unsigned byte) {
    const auto printable = [](unsigned b) { return (b >= 33 && b <= 126) || (b >= 161 && b != 173); };
    unsigned character = byte;
    if (!printable(byte)) {
        character = 256;
        for (unsigned b = 0; b < byte; ++b) character += printable(b) ? 0 : 1;
    }
    if (character < 128) return {static_cast<char>(character)};
    return {static_cast<char>(0xc0 | (character >> 6)), static_cast<char>(0x80 | (character & 0x3f))};
}

inline void set_tiny_tokenizer(GgufWriter& file, const TinySpec& spec, const auto& wanted) {
    using Pair = std::pair<const char*, const char*>;
    static constexpr Pair merges[] = {{"t", "h"},  {"th", "e"}, {" ", "the"}, {"i", "n"},
                                      {"in", "g"}, {"a", "n"},  {"an", "d"},  {" ", "and"},
                                      {"e", "r"},  {"r", "e"},  {"o", "u"},   {"o", "n"},
                                      {"l", "l"},  {" ", "a"},  {" ", "s"},   {"\n", "\n"}};
    static_assert(TinyTokens::first_merge + std::size(merges) == TinyTokens::bos);
    const auto spelled = [](std::string_view bytes) {
        std::string out;
        for (const char byte : bytes) out += tiny_spelling(static_cast<unsigned char>(byte));
        return out;
    };
    std::vector<std::string> tokens;
    std::vector<std::string> pairs;
    for (unsigned byte = 0; byte < 256; ++byte) tokens.push_back(tiny_spelling(byte));
    for (const auto& [left, right] : merges) {
        tokens.push_back(spelled(left) + spelled(right));
        pairs.push_back(spelled(left) + " " + spelled(right));
    }
    std::vector<std::int32_t> types(tokens.size(), 1);  // normal
    for (const char* const name : {"<|startoftext|>", "<|endoftext|>", "<|im_start|>", "<|im_end|>"}) {
        tokens.emplace_back(name);
        types.push_back(3);  // control
    }
    while (tokens.size() < spec.vocab) tokens.push_back("tok" + std::to_string(tokens.size()));
    types.resize(tokens.size(), 1);

    const auto set = [&](const std::string& key, const auto& value) {
        if (wanted("tokenizer." + key)) file.set("tokenizer." + key, value);
    };
    set("ggml.model", "gpt2");
    set("ggml.pre", spec.pre.c_str());
    set("ggml.tokens", tokens);
    set("ggml.token_type", types);
    set("ggml.merges", pairs);
    set("ggml.bos_token_id", TinyTokens::bos);
    set("ggml.eos_token_id", TinyTokens::eos);
    set("ggml.add_bos_token", spec.add_bos);
    set("chat_template", tiny_chat_template);
}

}  // namespace detail

/// A matrix of a tiny model, row by row: uniform in [-a, a) with a = 2^(1-e), 4^e the least power >= columns;
/// a = 1 for tensor 0. Formula and tensor numbers: tests/references/README.md.
inline std::vector<float> tiny_matrix(std::uint64_t seed, std::uint64_t tensor, std::size_t rows,
                                      std::size_t columns) {
    float grid = 0x1p-22f;  // 2a / 2^24
    if (tensor != 0) {
        for (std::size_t power = 1; power < columns; power *= 4) grid /= 2;
    } else {
        grid = 0x1p-23f;
    }
    const std::uint64_t key = detail::tiny_mix(seed + detail::tiny_golden * (tensor + 1));
    std::vector<float> values(rows * columns);
    for (std::size_t i = 0; i < values.size(); ++i) {
        const std::uint64_t word = detail::tiny_mix(key + detail::tiny_golden * (i + 1));
        values[i] = static_cast<float>(static_cast<std::int32_t>(word >> 40) - (1 << 23)) * grid;
    }
    return values;
}

/// A norm of a tiny model: uniform in [7/8, 9/8).
inline std::vector<float> tiny_norm(std::uint64_t seed, std::uint64_t tensor, std::size_t size) {
    const std::uint64_t key = detail::tiny_mix(seed + detail::tiny_golden * (tensor + 1));
    std::vector<float> values(size);
    for (std::size_t i = 0; i < size; ++i) {
        const std::uint64_t word = detail::tiny_mix(key + detail::tiny_golden * (i + 1));
        values[i] = 1.0f + static_cast<float>(static_cast<std::int32_t>(word >> 48) - (1 << 15)) * 0x1p-18f;
    }
    return values;
}

/// `count` byte tokens that depend on the seed: the prompt of the references.
inline std::vector<std::int32_t> tiny_prompt(std::uint64_t seed, std::size_t count) {
    std::vector<std::int32_t> ids(count);
    for (std::size_t i = 0; i < count; ++i) {
        ids[i] = static_cast<std::int32_t>(detail::tiny_mix(1000 * seed + i) % 256);
    }
    return ids;
}

/// The writer of the whole file, to which a test can add keys and tensors before it takes `bytes()`.
inline GgufWriter tiny_writer(const TinySpec& spec) {
    if (spec.vocab < TinyTokens::least)
        throw std::invalid_argument("a tiny vocabulary has at least 276 tokens");
    const auto wanted = [&spec](const std::string& name) {
        return std::find(spec.without.begin(), spec.without.end(), name) == spec.without.end();
    };
    GgufWriter file;
    const auto set = [&](const std::string& key, const auto& value) {
        if (wanted(key)) file.set(key, value);
    };
    set("general.architecture", "llama");
    set("general.name", "tiny");
    set("llama.block_count", spec.layers);
    set("llama.context_length", spec.context);
    set("llama.embedding_length", spec.hidden);
    set("llama.feed_forward_length", spec.ffn);
    set("llama.attention.head_count", spec.heads);
    set("llama.attention.head_count_kv", spec.kv_heads);
    set("llama.attention.key_length", spec.head_dim);
    set("llama.attention.value_length", spec.head_dim);
    set("llama.attention.layer_norm_rms_epsilon", spec.norm_epsilon);
    set("llama.rope.dimension_count", spec.head_dim);
    set("llama.rope.freq_base", spec.rope_theta);
    set("llama.vocab_size", spec.vocab);
    detail::set_tiny_tokenizer(file, spec, wanted);

    const auto matrix = [&](const std::string& name, std::uint64_t index, std::size_t rows,
                            std::size_t columns, zse::io::GgmlType type) {
        if (!wanted(name)) return;
        const std::vector<float> values = tiny_matrix(spec.seed, index, rows, columns);
        file.tensor(name, type, {columns, rows}, encode_blocks(type, values, columns));
    };
    const auto norm = [&](const std::string& name, std::uint64_t index) {
        if (wanted(name)) file.tensor_f32(name, {spec.hidden}, tiny_norm(spec.seed, index, spec.hidden));
    };
    const std::size_t q = std::size_t{spec.heads} * spec.head_dim;
    const std::size_t kv = std::size_t{spec.kv_heads} * spec.head_dim;
    if (!spec.rope_freqs.empty() && wanted("rope_freqs.weight")) {
        file.tensor_f32("rope_freqs.weight", {spec.rope_freqs.size()}, spec.rope_freqs);
    }
    matrix("token_embd.weight", 0, spec.vocab, spec.hidden, spec.embedding);
    norm("output_norm.weight", 1);
    if (!spec.tied) matrix("output.weight", 2, spec.vocab, spec.hidden, spec.output);
    for (std::uint32_t layer = 0; layer < spec.layers; ++layer) {
        const std::string at = "blk." + std::to_string(layer) + ".";
        const std::uint64_t first = 3 + 9 * std::uint64_t{layer};
        norm(at + "attn_norm.weight", first);
        matrix(at + "attn_q.weight", first + 1, q, spec.hidden, spec.type);
        matrix(at + "attn_k.weight", first + 2, kv, spec.hidden, spec.type);
        matrix(at + "attn_v.weight", first + 3, kv, spec.hidden, spec.type);
        matrix(at + "attn_output.weight", first + 4, spec.hidden, q, spec.type);
        norm(at + "ffn_norm.weight", first + 5);
        matrix(at + "ffn_gate.weight", first + 6, spec.ffn, spec.hidden, spec.type);
        matrix(at + "ffn_up.weight", first + 7, spec.ffn, spec.hidden, spec.type);
        matrix(at + "ffn_down.weight", first + 8, spec.hidden, spec.ffn, spec.type);
    }
    return file;
}

/// The bytes of the file.
inline std::vector<std::byte> tiny_model(const TinySpec& spec) {
    return tiny_writer(spec).bytes();
}

/// Writes the file into a directory (a test's TemporaryDirectory) and returns its path.
inline std::filesystem::path write_tiny_model(const std::filesystem::path& directory, const TinySpec& spec,
                                              const std::string& name = "tiny.gguf") {
    const std::filesystem::path path = directory / name;
    tiny_writer(spec).write(path);
    return path;
}

}  // namespace support
