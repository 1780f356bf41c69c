// SPDX-License-Identifier: Apache-2.0
// The shapes of well-known public models, for plans without a file. Weights are taken as f16 unless
// stored_as() says so.
#pragma once

#include <zse/model/spec.hpp>

namespace zse::inline v1 {
namespace models {
namespace detail {

constexpr ModelSpec dense(std::uint32_t layers, std::uint32_t hidden, std::uint32_t heads,
                          std::uint32_t kv_heads, std::uint32_t feed_forward, std::uint32_t vocabulary,
                          std::uint32_t context, float rope_base) noexcept {
    ModelSpec spec;
    spec.layers = layers;
    spec.hidden = hidden;
    spec.heads = heads;
    spec.kv_heads = kv_heads;
    spec.head_dim = spec.rope_dim = hidden / heads;
    spec.feed_forward = feed_forward;
    spec.vocabulary = vocabulary;
    spec.trained_context = context;
    spec.rope_base = rope_base;
    return spec.stored_as(weights::format::f16);
}

constexpr ModelSpec smollm2() noexcept {
    ModelSpec spec = dense(30, 576, 9, 3, 1536, 49152, 8192, 100000.0f);
    spec.tied_output = true;
    return spec;
}

constexpr ModelSpec qwen2_5() noexcept {
    ModelSpec spec = dense(28, 3584, 28, 4, 18944, 152064, 32768, 1000000.0f);
    spec.qkv_bias = true;
    spec.rms_epsilon = 1e-6f;
    spec.rope_pairs = kernels::RopePairs::halves;
    return spec;
}

}  // namespace detail

inline constexpr ModelSpec llama2_7b = detail::dense(32, 4096, 32, 32, 11008, 32000, 4096, 10000.0f);
inline constexpr ModelSpec llama3_8b = detail::dense(32, 4096, 32, 8, 14336, 128256, 8192, 500000.0f);
inline constexpr ModelSpec qwen2_5_7b = detail::qwen2_5();
inline constexpr ModelSpec smollm2_135m = detail::smollm2();

/// A name and its shape, for reports.
struct Named {
    std::string_view name;
    const ModelSpec* spec;
};
inline constexpr std::array<Named, 4> all{{{"SmolLM2-135M", &smollm2_135m},
                                           {"Llama-2-7B", &llama2_7b},
                                           {"Qwen2.5-7B", &qwen2_5_7b},
                                           {"Llama-3-8B", &llama3_8b}}};

}  // namespace models
}  // namespace zse::inline v1
