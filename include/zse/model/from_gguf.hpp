// SPDX-License-Identifier: Apache-2.0
// Reads the shape of a model and the formats of its matrices from a GGUF file, and checks both.
#pragma once

#include <zse/io/gguf.hpp>
#include <zse/model/spec.hpp>
#include <zse/tokenizer/from_gguf.hpp>
#include <zse/tokenizer/tokenizer.hpp>

#include <optional>
#include <string>

namespace zse::inline v1 {
namespace model {

namespace detail {

/// The held format that a stored tensor type corresponds to, if zse has its codec.
inline std::optional<weights::Format> format_of(io::GgmlType type) noexcept {
    switch (type) {
        case io::GgmlType::f32: return weights::format::f32;
        case io::GgmlType::f16: return weights::format::f16;
        case io::GgmlType::bf16: return weights::format::bf16;
        case io::GgmlType::q4_0: return weights::format::q4_0;
        case io::GgmlType::q4_1: return weights::format::q4_1;
        case io::GgmlType::q8_0: return weights::format::q8_0;
        default: return std::nullopt;
    }
}

/// The tensor, whose shape has to be `[rows, columns]` (GGUF writes columns first).
inline const io::TensorInfo& matrix_tensor(const io::Gguf& file, const std::string& name, std::uint64_t rows,
                                           std::uint64_t columns) {
    const io::TensorInfo& tensor = file.require(name);
    if (tensor.dims > 2 || tensor.shape[0] != columns || tensor.shape[1] != rows) {
        throw Error(ErrorCode::corrupt, text("tensor ", name, " should have ", rows, " rows of ", columns,
                                             ", but has ", tensor.shape[1], " of ", tensor.shape[0],
                                             "; the file does not fit its own metadata"));
    }
    return tensor;
}

inline weights::Format matrix_format(const io::Gguf& file, const std::string& name, std::uint64_t rows,
                                     std::uint64_t columns) {
    const io::TensorInfo& tensor = matrix_tensor(file, name, rows, columns);
    const auto format = format_of(tensor.type);
    if (!format) {
        throw Error(ErrorCode::unsupported,
                    text("tensor ", name, " is stored as ", io::name(tensor.type),
                         ", which zse does not read yet; use a file in F32, F16, BF16, Q8_0, "
                         "Q4_0 or Q4_1"));
    }
    return *format;
}

/// A vector of float32, such as a norm.
inline const io::TensorInfo& vector_tensor(const io::Gguf& file, const std::string& name,
                                           std::uint64_t count) {
    const io::TensorInfo& tensor = matrix_tensor(file, name, 1, count);
    if (tensor.type != io::GgmlType::f32) {
        throw Error(ErrorCode::unsupported,
                    text("tensor ", name, " should be F32, but is ", io::name(tensor.type)));
    }
    return tensor;
}

/// Reads keys "<architecture>.<name>" with bounds.
class Metadata {
public:
    Metadata(const io::Gguf& file, std::string architecture)
        : file_(file), prefix_(std::move(architecture) + ".") {}

    [[nodiscard]] std::uint32_t count(const std::string& name) const {
        return narrow(name, file_.require_unsigned(prefix_ + name));
    }
    [[nodiscard]] std::uint32_t count_or(const std::string& name, std::uint32_t fallback) const {
        const auto found = file_.find_unsigned(prefix_ + name);
        return found ? narrow(name, *found) : fallback;
    }
    [[nodiscard]] float number_or(const std::string& name, float fallback) const {
        const auto found = file_.find_float(prefix_ + name);
        return found ? static_cast<float>(*found) : fallback;
    }
    [[nodiscard]] std::string text_or(const std::string& name, const char* fallback) const {
        const auto found = file_.find_string(prefix_ + name);
        return found ? std::string(*found) : std::string(fallback);
    }

private:
    [[nodiscard]] std::uint32_t narrow(const std::string& name, std::uint64_t value) const {
        if (value > 0x7fffffffu) {
            throw Error(ErrorCode::corrupt,
                        text("key ", prefix_, name, " is ", value, ", more than any model has"));
        }
        return static_cast<std::uint32_t>(value);
    }

    const io::Gguf& file_;
    std::string prefix_;
};

inline std::string layer_name(std::uint32_t layer, const char* part) {
    return text("blk.", layer, ".", part, ".weight");
}

}  // namespace detail

/// The spec of a GGUF file. Throws where the architecture or a format is unknown, a key or tensor is missing,
/// or a shape contradicts another.
inline ModelSpec spec_from_gguf(const io::Gguf& file) {
    const auto architecture = file.find_string("general.architecture");
    if (!architecture) {
        throw Error(ErrorCode::corrupt,
                    "the file has no key general.architecture; it does not say what model it is");
    }
    if (*architecture != "llama") {
        throw Error(ErrorCode::unsupported, text("the model's architecture is ", io::printable(*architecture),
                                                 ", and zse knows llama; use a model of the Llama family"));
    }
    const detail::Metadata keys(file, std::string(*architecture));
    ModelSpec spec;
    spec.layers = keys.count("block_count");
    spec.hidden = keys.count("embedding_length");
    spec.feed_forward = keys.count("feed_forward_length");
    spec.heads = keys.count("attention.head_count");
    spec.kv_heads = keys.count_or("attention.head_count_kv", spec.heads);
    spec.trained_context = keys.count("context_length");
    if (spec.heads == 0) throw Error(ErrorCode::corrupt, "key llama.attention.head_count is 0");
    spec.head_dim = keys.count_or("attention.key_length", spec.hidden / spec.heads);
    if (keys.count_or("attention.value_length", spec.head_dim) != spec.head_dim) {
        throw Error(ErrorCode::unsupported,
                    "keys and values of different width are not known to the llama architecture");
    }
    if (keys.count_or("expert_count", 0) != 0) {
        throw Error(ErrorCode::unsupported,
                    "the model is a mixture of experts, which zse does not compute yet");
    }
    spec.rope_dim = keys.count_or("rope.dimension_count", spec.head_dim);
    spec.rms_epsilon = keys.number_or("attention.layer_norm_rms_epsilon", 1e-5f);
    spec.rope_base = keys.number_or("rope.freq_base", 10000.0f);
    const std::string scaling = keys.text_or("rope.scaling.type", "none");
    if (scaling == "linear") {
        spec.rope_linear = keys.number_or("rope.scaling.factor", 1.0f);
    } else if (scaling != "none") {
        throw Error(ErrorCode::unsupported,
                    text("the model stretches its context by ", io::printable(scaling),
                         ", and zse knows linear scaling and frequency factors"));
    }
    const io::TensorInfo& embedding = file.require("token_embd.weight");
    spec.vocabulary = static_cast<std::uint32_t>(std::min<std::uint64_t>(embedding.shape[1], 1u << 25));
    spec.tied_output = file.find("output.weight") == nullptr;
    spec.rope_factors = file.find("rope_freqs.weight") != nullptr;
    spec.qkv_bias = file.find("blk.0.attn_q.bias") != nullptr;
    if (const std::string_view wrong = spec.defect(); !wrong.empty()) {
        throw Error(ErrorCode::corrupt, text("the file describes no model: ", wrong));
    }

    using detail::layer_name;
    using detail::matrix_format;
    spec.embedding_format = matrix_format(file, "token_embd.weight", spec.vocabulary, spec.hidden);
    spec.output_format = spec.tied_output
                             ? spec.embedding_format
                             : matrix_format(file, "output.weight", spec.vocabulary, spec.hidden);
    for (std::uint32_t layer = 0; layer < spec.layers; ++layer) {
        LayerFormats formats;
        formats.q = matrix_format(file, layer_name(layer, "attn_q"), spec.q_width(), spec.hidden);
        formats.k = matrix_format(file, layer_name(layer, "attn_k"), spec.kv_width(), spec.hidden);
        formats.v = matrix_format(file, layer_name(layer, "attn_v"), spec.kv_width(), spec.hidden);
        formats.o = matrix_format(file, layer_name(layer, "attn_output"), spec.hidden, spec.q_width());
        formats.gate = matrix_format(file, layer_name(layer, "ffn_gate"), spec.feed_forward, spec.hidden);
        formats.up = matrix_format(file, layer_name(layer, "ffn_up"), spec.feed_forward, spec.hidden);
        formats.down = matrix_format(file, layer_name(layer, "ffn_down"), spec.hidden, spec.feed_forward);
        spec.append({1, formats, 0});
    }
    if (file.find_string("tokenizer.ggml.model")) {
        spec.tokenizer_bytes = tokenizer::Tokenizer::footprint(tokenizer::data_from_gguf(file));
    }
    return spec;
}

}  // namespace model
}  // namespace zse::inline v1
