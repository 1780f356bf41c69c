// SPDX-License-Identifier: Apache-2.0
// The shape of a model as a literal value: from a file at run time, or written down and planned at compile
// time.
#pragma once

#include <zse/kernels/matrix.hpp>
#include <zse/kernels/rows.hpp>

#include <array>
#include <cstdint>
#include <string_view>

namespace zse::inline v1 {
namespace model {

/// The families of forward pass. One file per architecture implements each.
enum class Architecture : std::uint8_t { llama };

constexpr std::string_view name(Architecture /*architecture*/) noexcept {
    return "llama";
}

/// Formats of the matrices of a layer, as stored.
struct LayerFormats {
    weights::Format q, k, v, o, gate, up, down;
    friend constexpr bool operator==(const LayerFormats&, const LayerFormats&) = default;

    static constexpr LayerFormats all(weights::Format f) noexcept { return {f, f, f, f, f, f, f}; }
};

/// Consecutive layers that are equal in all that memory and kernels depend on.
struct LayerRun {
    std::uint32_t count = 0;
    LayerFormats formats;
    std::uint32_t window = 0;  ///< a token sees this many tokens, itself included; 0: all before it
    friend constexpr bool operator==(const LayerRun&, const LayerRun&) = default;

    /// Whether a layer of the other run could be one of this.
    [[nodiscard]] constexpr bool alike(const LayerRun& other) const noexcept {
        return formats == other.formats && window == other.window;
    }
};

/// Shapes of a decoder of the Llama family. Sizes are in elements.
struct ModelSpec {
    static constexpr std::size_t most_runs = 160;

    Architecture architecture = Architecture::llama;
    std::uint32_t layers = 0;
    std::uint32_t hidden = 0;
    std::uint32_t heads = 0;
    std::uint32_t kv_heads = 0;
    std::uint32_t head_dim = 0;
    std::uint32_t feed_forward = 0;
    std::uint32_t vocabulary = 0;
    std::uint32_t trained_context = 0;
    float rms_epsilon = 1e-5f;
    float rope_base = 10000.0f;
    std::uint32_t rope_dim = 0;  ///< values of a head that RoPE turns; even
    kernels::RopePairs rope_pairs = kernels::RopePairs::neighbours;
    bool rope_factors = false;  ///< the file divides each frequency by a factor of its own (Llama 3.1)
    float rope_linear = 1.0f;   ///< linear scaling: every frequency is divided by this
    bool tied_output = false;   ///< the output matrix is the embedding
    bool qkv_bias = false;
    std::uint32_t experts =
        0;  ///< feed-forward blocks of a layer, of `feed_forward` each; 0: one, and no router
    std::uint32_t experts_used = 0;  ///< blocks that a token goes through
    Bytes tokenizer_bytes = 0;       ///< what the tokenizer's tables hold; known from a file
    weights::Format embedding_format;
    weights::Format output_format;
    std::array<LayerRun, most_runs> runs{};
    std::uint32_t run_count = 0;

    /// The same model with every matrix stored in one format.
    [[nodiscard]] constexpr ModelSpec stored_as(weights::Format format) const noexcept {
        ModelSpec spec = *this;
        spec.embedding_format = spec.output_format = format;
        if (spec.run_count == 0) spec.runs[spec.run_count++].count = layers;
        for (std::uint32_t run = 0; run < spec.run_count; ++run)
            spec.runs[run].formats = LayerFormats::all(format);
        return spec;
    }
    /// The same model where of every `period` layers all but the last see `window` tokens.
    [[nodiscard]] constexpr ModelSpec with_windows(std::uint32_t window, std::uint32_t period) const {
        ModelSpec spec = *this;
        const LayerFormats formats = runs[0].formats;
        spec.run_count = 0;
        for (std::uint32_t layer = 0; layer < layers; ++layer) {
            spec.append({1, formats, (layer + 1) % period == 0 ? 0 : window});
        }
        return spec;
    }
    /// Adds layers at the end; throws unsupported where they change too often.
    constexpr void append(const LayerRun& run) {
        if (run_count > 0 && runs[run_count - 1].alike(run)) {
            runs[run_count - 1].count += run.count;
            return;
        }
        if (run_count == most_runs) {
            throw Error(ErrorCode::unsupported, text("the layers change more than ", most_runs, " times"));
        }
        runs[run_count++] = run;
    }
    /// The run that a layer belongs to.
    [[nodiscard]] constexpr const LayerRun& run_of(std::uint32_t layer) const noexcept {
        std::uint32_t run = 0;
        while (layer >= runs[run].count) layer -= runs[run++].count;
        return runs[run];
    }
    [[nodiscard]] constexpr std::uint32_t q_width() const noexcept { return heads * head_dim; }
    [[nodiscard]] constexpr std::uint32_t kv_width() const noexcept { return kv_heads * head_dim; }

    /// Weights of the whole model; a tied output matrix is counted once.
    [[nodiscard]] constexpr std::uint64_t parameters() const noexcept {
        const std::uint64_t h = hidden;
        const std::uint64_t blocks = experts == 0 ? 1 : experts;
        std::uint64_t layer = h * q_width() * 2 + h * kv_width() * 2 + blocks * h * feed_forward * 3 + 2 * h;
        layer += h * experts;  // the router
        if (qkv_bias) layer += q_width() + 2 * static_cast<std::uint64_t>(kv_width());
        return layer * layers + h * vocabulary * (tied_output ? 1 : 2) + h +
               (rope_factors ? rope_dim / 2 : 0);
    }

    /// What is wrong with the shape, or an empty text. Bounds keep every product within 64 bits.
    [[nodiscard]] constexpr std::string_view defect() const noexcept {
        if (layers == 0 || layers > 4096) return "the number of layers must be 1 to 4096";
        if (hidden == 0 || hidden > 1u << 20) return "the hidden size must be 1 to 1048576";
        if (heads == 0 || heads > 4096) return "the number of heads must be 1 to 4096";
        if (kv_heads == 0 || heads % kv_heads != 0)
            return "the number of key heads must divide the number of heads";
        if (heads / kv_heads > 64) return "at most 64 query heads may share a key head";
        if (head_dim == 0 || head_dim > 1024 || head_dim % 2 != 0)
            return "the head size must be even and 2 to 1024";
        if (feed_forward == 0 || feed_forward > 1u << 24)
            return "the feed-forward size must be 1 to 16777216";
        if (vocabulary == 0 || vocabulary > 1u << 24) return "the vocabulary must have 1 to 16777216 tokens";
        if (trained_context == 0 || trained_context > 1u << 30)
            return "the trained context must be 1 to 2^30 tokens";
        if (rope_dim == 0 || rope_dim > head_dim || rope_dim % 2 != 0) {
            return "the rotary size must be even and at most the head size";
        }
        if (!(rope_base > 0) || !(rope_linear > 0)) return "the rotary base and scale must be positive";
        if (experts > 4096 || experts_used > experts || (experts > 0 && experts_used == 0))
            return "the experts must be at most 4096, and a token must use 1 to all of them";
        if (!(rms_epsilon >= 0) || rms_epsilon > 1) return "the epsilon of the norm must be 0 to 1";
        return {};
    }
};

}  // namespace model

using model::ModelSpec;

}  // namespace zse::inline v1
