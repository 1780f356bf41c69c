// SPDX-License-Identifier: Apache-2.0
// The shapes of well-known public models, for plans without a file. Weights are taken as f16 unless stored_as() says
// so. Only models that a ModelSpec describes exactly: Gemma's four norms a layer and Phi's fused matrices are not here.
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

/// The output matrix is the embedding.
constexpr ModelSpec tied(ModelSpec spec) noexcept {
    spec.tied_output = true;
    return spec;
}

constexpr ModelSpec smollm2(std::uint32_t layers, std::uint32_t hidden, std::uint32_t heads,
                            std::uint32_t kv_heads, std::uint32_t feed_forward, float rope_base) noexcept {
    return tied(dense(layers, hidden, heads, kv_heads, feed_forward, 49152, 8192, rope_base));
}

/// Llama 3.1 and later: 128K tokens, with a factor for each rotary frequency.
constexpr ModelSpec long_llama(std::uint32_t layers, std::uint32_t hidden, std::uint32_t heads,
                               std::uint32_t feed_forward) noexcept {
    ModelSpec spec = dense(layers, hidden, heads, 8, feed_forward, 128256, 131072, 500000.0f);
    spec.rope_factors = true;
    return spec;
}

constexpr ModelSpec qwen2_5(std::uint32_t layers, std::uint32_t hidden, std::uint32_t heads,
                            std::uint32_t kv_heads, std::uint32_t feed_forward,
                            std::uint32_t vocabulary = 152064) noexcept {
    ModelSpec spec = dense(layers, hidden, heads, kv_heads, feed_forward, vocabulary, 32768, 1000000.0f);
    spec.qkv_bias = true;
    spec.rms_epsilon = 1e-6f;
    spec.rope_pairs = kernels::RopePairs::halves;
    return spec;
}
constexpr ModelSpec small_qwen2_5(std::uint32_t layers, std::uint32_t hidden, std::uint32_t heads,
                                  std::uint32_t feed_forward) noexcept {
    return tied(qwen2_5(layers, hidden, heads, 2, feed_forward, 151936));
}

/// The first Mistral: every layer sees 4,096 tokens.
constexpr ModelSpec mistral_v0_1() noexcept {
    ModelSpec spec = dense(32, 4096, 32, 8, 14336, 32000, 32768, 10000.0f);
    spec.runs[0].window = 4096;
    return spec;
}

/// Its heads are narrower than hidden / heads.
constexpr ModelSpec nemo() noexcept {
    ModelSpec spec = dense(40, 5120, 32, 8, 14336, 131072, 131072, 1000000.0f);
    spec.head_dim = spec.rope_dim = 128;
    return spec;
}

constexpr ModelSpec mixtral() noexcept {
    ModelSpec spec = dense(32, 4096, 32, 8, 14336, 32000, 32768, 1000000.0f);
    spec.experts = 8;
    spec.experts_used = 2;
    return spec;
}

}  // namespace detail

// Shapes are those of the config.json that each model was published with on Hugging Face.
inline constexpr ModelSpec smollm2_135m = detail::smollm2(30, 576, 9, 3, 1536, 100000.0f);
inline constexpr ModelSpec smollm2_360m = detail::smollm2(32, 960, 15, 5, 2560, 100000.0f);
inline constexpr ModelSpec smollm2_1_7b = detail::smollm2(24, 2048, 32, 32, 8192, 130000.0f);
inline constexpr ModelSpec tinyllama_1_1b = detail::dense(22, 2048, 32, 4, 5632, 32000, 2048, 10000.0f);
inline constexpr ModelSpec llama2_7b = detail::dense(32, 4096, 32, 32, 11008, 32000, 4096, 10000.0f);
inline constexpr ModelSpec llama2_13b = detail::dense(40, 5120, 40, 40, 13824, 32000, 4096, 10000.0f);
inline constexpr ModelSpec llama2_70b = detail::dense(80, 8192, 64, 8, 28672, 32000, 4096, 10000.0f);
inline constexpr ModelSpec codellama_34b = detail::dense(48, 8192, 64, 8, 22016, 32000, 16384, 1000000.0f);
inline constexpr ModelSpec yi_34b = detail::dense(60, 7168, 56, 8, 20480, 64000, 4096, 5000000.0f);
inline constexpr ModelSpec llama3_8b = detail::dense(32, 4096, 32, 8, 14336, 128256, 8192, 500000.0f);
inline constexpr ModelSpec llama3_70b = detail::dense(80, 8192, 64, 8, 28672, 128256, 8192, 500000.0f);
inline constexpr ModelSpec llama3_1_8b = detail::long_llama(32, 4096, 32, 14336);
inline constexpr ModelSpec llama3_1_70b = detail::long_llama(80, 8192, 64, 28672);
inline constexpr ModelSpec llama3_1_405b = detail::long_llama(126, 16384, 128, 53248);
inline constexpr ModelSpec llama3_2_1b = detail::tied(detail::long_llama(16, 2048, 32, 8192));
inline constexpr ModelSpec llama3_2_3b = detail::tied(detail::long_llama(28, 3072, 24, 8192));
inline constexpr ModelSpec qwen2_5_0_5b = detail::small_qwen2_5(24, 896, 14, 4864);
inline constexpr ModelSpec qwen2_5_1_5b = detail::small_qwen2_5(28, 1536, 12, 8960);
inline constexpr ModelSpec qwen2_5_3b = detail::small_qwen2_5(36, 2048, 16, 11008);
inline constexpr ModelSpec qwen2_5_7b = detail::qwen2_5(28, 3584, 28, 4, 18944);
inline constexpr ModelSpec qwen2_5_14b = detail::qwen2_5(48, 5120, 40, 8, 13824);
inline constexpr ModelSpec qwen2_5_32b = detail::qwen2_5(64, 5120, 40, 8, 27648);
inline constexpr ModelSpec qwen2_5_72b = detail::qwen2_5(80, 8192, 64, 8, 29568);
inline constexpr ModelSpec mistral_7b_v0_1 = detail::mistral_v0_1();
inline constexpr ModelSpec mistral_7b_v0_3 = detail::dense(32, 4096, 32, 8, 14336, 32768, 32768, 1000000.0f);
inline constexpr ModelSpec mistral_nemo_12b = detail::nemo();
inline constexpr ModelSpec mixtral_8x7b = detail::mixtral();

/// A name and its shape, for reports.
struct Named {
    std::string_view name;
    const ModelSpec* spec;
};

/// All of them, smallest first.
inline constexpr std::array<Named, 27> all{{{"SmolLM2-135M", &smollm2_135m},
                                            {"SmolLM2-360M", &smollm2_360m},
                                            {"Qwen2.5-0.5B", &qwen2_5_0_5b},
                                            {"TinyLlama-1.1B", &tinyllama_1_1b},
                                            {"Llama-3.2-1B", &llama3_2_1b},
                                            {"Qwen2.5-1.5B", &qwen2_5_1_5b},
                                            {"SmolLM2-1.7B", &smollm2_1_7b},
                                            {"Qwen2.5-3B", &qwen2_5_3b},
                                            {"Llama-3.2-3B", &llama3_2_3b},
                                            {"Llama-2-7B", &llama2_7b},
                                            {"Mistral-7B-v0.1", &mistral_7b_v0_1},
                                            {"Mistral-7B-v0.3", &mistral_7b_v0_3},
                                            {"Qwen2.5-7B", &qwen2_5_7b},
                                            {"Llama-3-8B", &llama3_8b},
                                            {"Llama-3.1-8B", &llama3_1_8b},
                                            {"Mistral-Nemo-12B", &mistral_nemo_12b},
                                            {"Llama-2-13B", &llama2_13b},
                                            {"Qwen2.5-14B", &qwen2_5_14b},
                                            {"Qwen2.5-32B", &qwen2_5_32b},
                                            {"CodeLlama-34B", &codellama_34b},
                                            {"Yi-34B", &yi_34b},
                                            {"Mixtral-8x7B", &mixtral_8x7b},
                                            {"Llama-2-70B", &llama2_70b},
                                            {"Llama-3-70B", &llama3_70b},
                                            {"Llama-3.1-70B", &llama3_1_70b},
                                            {"Qwen2.5-72B", &qwen2_5_72b},
                                            {"Llama-3.1-405B", &llama3_1_405b}}};

}  // namespace models
}  // namespace zse::inline v1
