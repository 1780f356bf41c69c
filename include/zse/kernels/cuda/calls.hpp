// SPDX-License-Identifier: Apache-2.0
// What the operations of a forward pass ask of a GPU: arguments of launches, and the tables that are bound at open.
// Knows no kernel, so that host files stay small.
#pragma once

#include <zse/exec/cuda/stream.hpp>

namespace zse::inline v1 {
namespace kernels {

enum class RopePairs : std::uint8_t;

namespace cuda {

/// y_i = W_i x for up to three matrices of one codec that share x, in one launch where their codec allows it.
struct LinearCall {
    struct Output {
        const std::byte* weights = nullptr;  ///< packed as weights::MmaLayout
        std::uint32_t rows = 0;
        float* y = nullptr;  ///< `[tokens, rows]`, `y_stride` floats from token to token
        std::uint64_t y_stride = 0;
        bool accumulate = false;      ///< add to y instead of replacing it
        const float* bias = nullptr;  ///< `[rows]`, or none
    };

    Output outputs[3] = {};
    std::uint32_t count = 0;
    const float* x = nullptr;                 ///< `[tokens, columns]`
    const std::uint32_t* greatest = nullptr;  ///< `[tokens]`: bits of the greatest magnitude of each row of x
    std::uint32_t tokens = 0;
    std::uint32_t columns = 0;
    std::byte* workspace =
        nullptr;  ///< zeros in its first bytes, which the kernels leave as zeros: see Workspace
    Bytes workspace_bytes = 0;
    bool invariant = false;  ///< the bits of a row depend on no other row
};

/// out = silu(W_gate x) * (W_up x), both `[rows, columns]` and of one codec.
struct GatedCall {
    const std::byte* gate = nullptr;
    const std::byte* up = nullptr;
    std::uint32_t rows = 0;
    std::uint32_t columns = 0;
    const float* x = nullptr;
    const std::uint32_t* greatest = nullptr;
    std::uint32_t tokens = 0;
    float* out = nullptr;  ///< `[tokens, rows]`
    std::uint32_t* out_greatest =
        nullptr;  ///< `[tokens]`, raised to the greatest magnitude of each row of out
    std::byte* workspace = nullptr;
    Bytes workspace_bytes = 0;
    bool invariant = false;
};

/// Rows of a table as float32.
struct EmbedCall {
    const std::byte* table = nullptr;
    const std::int32_t* tokens = nullptr;  ///< `[count]`
    std::uint32_t count = 0;
    std::uint32_t columns = 0;
    float* out = nullptr;  ///< `[count, columns]`
};

/// The launches of one codec.
struct MatrixLaunches {
    void (*linear)(exec::gpu::Stream&, const LinearCall&) noexcept = nullptr;
    void (*gated)(exec::gpu::Stream&, const GatedCall&) noexcept = nullptr;
    void (*embed)(exec::gpu::Stream&, const EmbedCall&) noexcept = nullptr;
};

struct RmsNormCall {
    const float* x = nullptr;
    const float* weight = nullptr;
    const std::uint32_t* rows = nullptr;
    float* out = nullptr;
    std::uint32_t* greatest = nullptr;
    std::uint32_t* clear = nullptr;
    std::uint32_t clear_stride = 0;
    std::uint32_t count = 0;
    std::uint32_t columns = 0;
    float epsilon = 0;
};

struct RopeAnglesCall {
    const std::uint32_t* positions = nullptr;
    std::uint32_t count = 0;
    std::uint32_t dim = 0;
    float base = 10000;
    float linear = 1;
    const float* factors = nullptr;
    RopePairs order{};
    float* cosines = nullptr;
    float* sines = nullptr;
};

/// Where gate and up have different codecs: gate = silu(gate) * up, and the greatest magnitudes.
struct SwigluCall {
    float* gate = nullptr;      ///< `[tokens, columns]`
    const float* up = nullptr;  ///< likewise
    std::uint32_t tokens = 0;
    std::uint32_t columns = 0;
    std::uint32_t* greatest = nullptr;  ///< `[tokens]`
};

/// Launches that know no codec.
struct RowLaunches {
    void (*rms_norm)(exec::gpu::Stream&, const RmsNormCall&) noexcept = nullptr;
    void (*rope_angles)(exec::gpu::Stream&, const RopeAnglesCall&) noexcept = nullptr;
    void (*swiglu)(exec::gpu::Stream&, const SwigluCall&) noexcept = nullptr;
    bool invariant = false;
};

}  // namespace cuda
}  // namespace kernels
}  // namespace zse::inline v1
