// SPDX-License-Identifier: Apache-2.0
// The operations of a forward pass that know no KV cache, as items that an executor shares out.
#pragma once

#include <zse/exec/executor.hpp>
#include <zse/kernels/cpu/linear.hpp>
#include <zse/kernels/cpu/row_ops.hpp>

#include <algorithm>
#include <array>

namespace zse::inline v1 {
namespace kernels {

/// h[t] = row tokens[t] of the embedding. `[tokens, hidden]`.
struct Embed {
    Matrix table;
    const std::int32_t* tokens = nullptr;
    std::size_t count = 0;
    float* out = nullptr;

    [[nodiscard]] constexpr std::size_t items() const noexcept { return count; }
    [[nodiscard]] constexpr Bytes thread_bytes() const noexcept { return 0; }
    void run(std::size_t item, const exec::Worker& /*worker*/) const noexcept {
        const auto token = static_cast<std::size_t>(tokens[item]);
        table.kernels->decode_row(table.row(token), table.columns, out + item * table.columns);
    }
};

/// RMS norm of rows; with `rows`, of the rows that it lists. `[count, width]`.
struct RmsNorm {
    const float* x = nullptr;
    const float* weight = nullptr;
    const std::uint32_t* rows = nullptr;
    std::size_t count = 0;
    std::size_t width = 0;
    float epsilon = 0;
    float* out = nullptr;

    [[nodiscard]] constexpr std::size_t items() const noexcept { return count; }
    [[nodiscard]] constexpr Bytes thread_bytes() const noexcept { return 0; }
    void run(std::size_t item, const exec::Worker& /*worker*/) const noexcept {
        const std::size_t row = rows != nullptr ? rows[item] : item;
        cpu::rms_norm(x + row * width, weight, width, epsilon, out + item * width);
    }
};

/// y_i = x W_i^T for up to three matrices that share x, such as queries, keys and values, in one pass.
struct Linear {
    struct Output {
        Matrix weights;
        float* y = nullptr;
        std::size_t y_stride = 0;
        bool accumulate = false;
        const float* bias = nullptr;  ///< `[rows]`, or none
    };
    /// Rows of one item: enough to repay taking it, few enough to share out small matrices.
    static constexpr std::size_t item_rows = 32;

    const float* x = nullptr;
    std::size_t tokens = 0;
    std::array<Output, 3> outputs{};
    std::size_t count = 0;

    [[nodiscard]] static constexpr std::size_t items_of(const Output& output) noexcept {
        return ceil_div(output.weights.rows, item_rows);
    }
    [[nodiscard]] constexpr std::size_t items() const noexcept {
        std::size_t sum = 0;
        for (std::size_t i = 0; i < count; ++i) sum += items_of(outputs[i]);
        return sum;
    }
    [[nodiscard]] constexpr Bytes thread_bytes() const noexcept {
        std::size_t floats = 0;
        for (std::size_t i = 0; i < count; ++i)
            floats = std::max(floats, panel_floats(outputs[i].weights.columns));
        return floats * sizeof(float);
    }
    void run(std::size_t item, const exec::Worker& worker) const noexcept {
        std::size_t which = 0;
        while (item >= items_of(outputs[which])) item -= items_of(outputs[which++]);
        const Output& output = outputs[which];
        LinearTile tile;
        tile.x = x;
        tile.y = output.y;
        tile.tokens = tokens;
        tile.y_stride = output.y_stride;
        tile.first = item * item_rows;
        tile.last = std::min<std::size_t>(tile.first + item_rows, output.weights.rows);
        tile.accumulate = output.accumulate;
        tile.panel = reinterpret_cast<float*>(worker.scratch);
        output.weights.kernels->linear(output.weights, tile);
        if (output.bias == nullptr) return;
        for (std::size_t t = 0; t < tokens; ++t) {
            for (std::size_t r = tile.first; r < tile.last; ++r)
                output.y[t * output.y_stride + r] += output.bias[r];
        }
    }
};

/// gate = silu(gate) * up. `[tokens, width]`.
struct SwiGlu {
    float* gate = nullptr;
    const float* up = nullptr;
    std::size_t count = 0;
    std::size_t width = 0;

    [[nodiscard]] constexpr std::size_t items() const noexcept { return count; }
    [[nodiscard]] constexpr Bytes thread_bytes() const noexcept { return 0; }
    void run(std::size_t item, const exec::Worker& /*worker*/) const noexcept {
        cpu::swiglu(gate + item * width, up + item * width, width);
    }
};

/// The rotary angles of a batch, once a step: `[tokens, pairs]` cosines, then the same of sines.
struct RopeAngles {
    const std::uint32_t* positions = nullptr;
    std::size_t count = 0;
    std::size_t pairs = 0;
    float base = 10000;
    float linear = 1;                ///< divides every frequency
    const float* factors = nullptr;  ///< `[pairs]` divisors of the frequencies (Llama 3.1), or none
    float* cosines = nullptr;
    float* sines = nullptr;

    [[nodiscard]] constexpr std::size_t items() const noexcept { return count; }
    [[nodiscard]] constexpr Bytes thread_bytes() const noexcept { return 0; }
    void run(std::size_t item, const exec::Worker& /*worker*/) const noexcept {
        cpu::rope_angles(positions[item], base, linear, pairs, factors, cosines + item * pairs,
                         sines + item * pairs);
    }
};

}  // namespace kernels
}  // namespace zse::inline v1
