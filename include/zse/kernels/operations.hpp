// SPDX-License-Identifier: Apache-2.0
// The operations of a forward pass that know no KV cache, as items that an executor shares out.
#pragma once

#include <zse/exec/executor.hpp>
#include <zse/kernels/cuda/calls.hpp>
#include <zse/kernels/cuda/workspace.hpp>
#include <zse/kernels/matrix.hpp>
#include <zse/kernels/rows.hpp>

#include <algorithm>
#include <array>
#include <utility>

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
        table.decode_row(static_cast<std::size_t>(tokens[item]), out + item * table.columns);
    }
    [[nodiscard]] constexpr Bytes workspace_bytes() const noexcept { return 0; }
    void enqueue(exec::gpu::Stream& stream) const noexcept {
        table.kernels->device->embed(
            stream, {table.parts[0], tokens, static_cast<std::uint32_t>(count), table.columns, out});
    }
};

/// RMS norm of rows, in the forms that the products after it read; with `rows`, of the rows that it lists.
struct RmsNorm {
    const RowKernels* kernels = nullptr;
    const float* x = nullptr;  ///< `[tokens, width]`
    const float* weight = nullptr;
    const std::uint32_t* rows = nullptr;
    float epsilon = 0;
    Activations out;
    /// On a GPU: the greatest magnitudes of the two activations that the layer computes next, set to zero here.
    std::uint32_t* clear = nullptr;
    std::size_t clear_stride = 0;

    [[nodiscard]] constexpr std::size_t items() const noexcept { return out.tokens; }
    [[nodiscard]] constexpr Bytes thread_bytes() const noexcept { return 0; }
    void run(std::size_t item, const exec::Worker& /*worker*/) const noexcept {
        const std::size_t row = rows != nullptr ? rows[item] : item;
        kernels->rms_norm(x + row * out.columns, weight, out.columns, epsilon,
                          out.floats != nullptr ? out.floats + item * out.columns : nullptr,
                          out.codes != nullptr ? out.coded(item) : CodedToken{});
    }
    [[nodiscard]] constexpr Bytes workspace_bytes() const noexcept { return 0; }
    void enqueue(exec::gpu::Stream& stream) const noexcept {
        kernels->device->rms_norm(
            stream,
            {x, weight, rows, out.floats, out.greatest, clear, static_cast<std::uint32_t>(clear_stride),
             static_cast<std::uint32_t>(out.tokens), static_cast<std::uint32_t>(out.columns), epsilon});
    }
};

namespace detail {

/// The groups of rows of one item of a product: pairs (i, i + half) of a part, whose two halves are two streams from
/// memory.
struct ItemGroups {
    std::size_t first = 0;  ///< the first pair
    std::size_t last = 0;   ///< one past the last pair
    std::size_t half = 0;   ///< from the one of a pair to the other
    std::size_t groups = 0;

    /// Pairs of one item. For prompts two, so that the activations of a tile are read from the level-1 cache half of
    /// the time.
    static constexpr std::size_t pairs(std::size_t tokens) noexcept { return tokens > 32 ? 2 : 1; }

    static constexpr std::size_t items(const Matrix& matrix, std::size_t part, std::size_t tokens) noexcept {
        const std::size_t groups = matrix.part_groups(part);
        return ceil_div(ceil_div(groups, 2), pairs(tokens));
    }
    static constexpr ItemGroups of(const Matrix& matrix, std::size_t part, std::size_t item,
                                   std::size_t tokens) noexcept {
        ItemGroups g;
        g.groups = matrix.part_groups(part);
        g.half = ceil_div(g.groups, 2);
        g.first = item * pairs(tokens);
        g.last = std::min(g.first + pairs(tokens), g.half);
        return g;
    }
};

/// The tile of activations that begins at `token`, as this matrix reads it.
inline const void* tile_of(const Activations& x, const Matrix& matrix, std::size_t token) noexcept {
    if (matrix.reads_codes()) return x.codes + token * CodedActivations::bytes(x.columns);
    return x.floats + token * x.columns;
}

}  // namespace detail

/// y_i = W_i x for up to three matrices that share x, such as queries, keys and values, in one pass.
struct Linear {
    struct Output {
        Matrix weights;
        float* y = nullptr;  ///< `[tokens, rows]`, with `y_stride` floats from token to token
        std::size_t y_stride = 0;
        bool accumulate = false;      ///< add to y instead of replacing it
        const float* bias = nullptr;  ///< `[rows]`, or none
    };

    const RowKernels* kernels = nullptr;
    Activations x;
    std::array<Output, 3> outputs{};
    std::size_t count = 0;

    [[nodiscard]] constexpr std::size_t items(std::size_t part, std::size_t /*parts*/) const noexcept {
        std::size_t sum = 0;
        for (std::size_t i = 0; i < count; ++i) {
            sum += detail::ItemGroups::items(outputs[i].weights, part, x.tokens);
        }
        return sum;
    }
    [[nodiscard]] constexpr Bytes thread_bytes() const noexcept { return 0; }
    void run(std::size_t part, std::size_t item, const exec::Worker& /*worker*/) const noexcept {
        const Output* output = outputs.data();
        for (;; ++output) {
            const std::size_t items = detail::ItemGroups::items(output->weights, part, x.tokens);
            if (item < items) break;
            item -= items;
        }
        const Matrix& w = output->weights;
        const auto groups = detail::ItemGroups::of(w, part, item, x.tokens);
        alignas(64) float y[8][2][16];  // token, group, row
        for (std::size_t token = 0; token < x.tokens; token += CodedActivations::tile_tokens) {
            LinearTile tile;
            tile.x = detail::tile_of(x, w, token);
            tile.tokens = static_cast<std::uint32_t>(CodedActivations::in_tile(token, x.tokens));
            tile.columns = w.columns;
            tile.y = y[0][0];
            for (std::size_t pair = groups.first; pair < groups.last; ++pair) {
                const bool both = pair + groups.half < groups.groups;
                tile.groups[0] = w.group(part, pair);
                tile.groups[1] = both ? w.group(part, pair + groups.half) : nullptr;
                w.kernels->multiply(tile);
                write(*output, y[0][0], token, tile.tokens, w.first_group(part) + pair);
                if (both)
                    write(*output, y[0][1], token, tile.tokens, w.first_group(part) + pair + groups.half);
            }
        }
    }

    /// For a plan, with x.tokens at their most.
    [[nodiscard]] constexpr Bytes workspace_bytes() const noexcept {
        std::uint64_t rows = 0;
        for (std::size_t i = 0; i < count; ++i) rows += round_up(outputs[i].weights.rows, Matrix::group_rows);
        return cuda::workspace_bytes(rows, x.columns, x.tokens);
    }
    void enqueue(exec::gpu::Stream& stream) const noexcept {
        cuda::LinearCall call;
        call.x = x.floats;
        call.greatest = x.greatest;
        call.tokens = static_cast<std::uint32_t>(x.tokens);
        call.columns = static_cast<std::uint32_t>(x.columns);
        call.workspace = stream.workspace();
        call.workspace_bytes = stream.workspace_bytes();
        call.invariant = kernels->device->invariant;
        // Matrices of one codec share a launch; a file may hold them in several.
        for (std::size_t first = 0; first < count; ++first) {
            const MatrixKernels* const codec = outputs[first].weights.kernels;
            if (std::any_of(outputs.begin(), outputs.begin() + first,
                            [&](const Output& o) { return o.weights.kernels == codec; })) {
                continue;
            }
            call.count = 0;
            for (std::size_t i = first; i < count; ++i) {
                const Output& o = outputs[i];
                if (o.weights.kernels != codec) continue;
                call.outputs[call.count++] = {o.weights.parts[0], o.weights.rows, o.y,
                                              o.y_stride,         o.accumulate,   o.bias};
            }
            codec->device->linear(stream, call);
        }
    }

private:
    void write(const Output& output, const float* y, std::size_t token, std::size_t tokens,
               std::size_t group) const noexcept {
        const std::size_t row = group * Matrix::group_rows;
        const float* bias = output.bias != nullptr ? output.bias + row : nullptr;
        float* to = output.y + token * output.y_stride + row;
        const std::size_t rows = output.weights.rows - row;
        if (rows >= Matrix::group_rows) {
            return kernels->put(y, 2 * Matrix::group_rows, tokens, bias, output.accumulate, to,
                                output.y_stride);
        }
        for (std::size_t t = 0; t < tokens; ++t) {  // the last rows of a matrix that fills no group
            for (std::size_t r = 0; r < rows; ++r) {
                float& value = to[t * output.y_stride + r];
                const float sum = y[t * 2 * Matrix::group_rows + r] + (bias != nullptr ? bias[r] : 0.0f);
                value = output.accumulate ? value + sum : sum;
            }
        }
    }
};

/// out = silu(W_gate x) * (W_up x), in the forms that the product after it reads. Both matrices have one shape. An
/// item is a block of 32 columns of `out`, so that it can be quantised where it was computed.
struct GatedLinear {
    const RowKernels* kernels = nullptr;
    Activations x;
    Matrix gate;
    Matrix up;
    Activations out;

    [[nodiscard]] constexpr std::size_t items(std::size_t part, std::size_t /*parts*/) const noexcept {
        return ceil_div(gate.part_groups(part), 2);
    }
    [[nodiscard]] constexpr Bytes thread_bytes() const noexcept { return 0; }
    void run(std::size_t part, std::size_t item, const exec::Worker& /*worker*/) const noexcept {
        const std::size_t group = 2 * item;  // of the part; parts begin at even groups
        const std::size_t first = (gate.first_group(part) + group) * Matrix::group_rows;
        const std::size_t rows = std::min<std::size_t>(2 * Matrix::group_rows, gate.rows - first);
        const bool both = rows > Matrix::group_rows;
        alignas(64) float g[8][32];
        alignas(64) float u[8][32];
        for (std::size_t token = 0; token < x.tokens; token += CodedActivations::tile_tokens) {
            const std::size_t tokens = CodedActivations::in_tile(token, x.tokens);
            multiply(part, group, both, token, tokens, g[0], u[0]);
            if (rows == 32) {
                kernels->swiglu(g[0], u[0], tokens * 32);
            } else {
                for (std::size_t t = 0; t < tokens; ++t) kernels->swiglu(g[t], u[t], rows);
            }
            for (std::size_t t = 0; t < tokens; ++t) {
                if (out.floats != nullptr)
                    std::copy_n(g[t], rows, out.floats + (token + t) * out.columns + first);
                if (out.codes != nullptr) {
                    kernels->quantise(g[t], rows,
                                      out.coded(token + t).block(first / CodedActivations::block));
                }
            }
        }
    }

    /// For a plan, with x.tokens at their most.
    [[nodiscard]] constexpr Bytes workspace_bytes() const noexcept {
        const std::uint64_t rows = round_up(gate.rows, Matrix::group_rows);
        const Bytes product = cuda::workspace_bytes(2 * rows, x.columns, x.tokens);
        return gate.format == up.format
                   ? product
                   : saturating_add(product, saturating_mul(x.tokens, up.rows * sizeof(float)));
    }
    void enqueue(exec::gpu::Stream& stream) const noexcept {
        const auto tokens = static_cast<std::uint32_t>(x.tokens);
        const auto columns = static_cast<std::uint32_t>(x.columns);
        const bool invariant = kernels->device->invariant;
        if (gate.kernels == up.kernels) {
            return gate.kernels->device->gated(
                stream, {gate.parts[0], up.parts[0], gate.rows, columns, x.floats, x.greatest, tokens,
                         out.floats, out.greatest, stream.workspace(), stream.workspace_bytes(), invariant});
        }
        // The product of up lies behind the room of the two products.
        const Bytes room = round_up(up.rows * x.tokens * sizeof(float), 64);
        const Bytes left = stream.workspace_bytes() - room;
        auto* const second = reinterpret_cast<float*>(stream.workspace() + left);
        for (const auto& [w, y] : {std::pair{&gate, out.floats}, std::pair{&up, second}}) {
            cuda::LinearCall call;
            call.outputs[0] = {w->parts[0], w->rows, y, w->rows, false, nullptr};
            call.count = 1;
            call.x = x.floats;
            call.greatest = x.greatest;
            call.tokens = tokens;
            call.columns = columns;
            call.workspace = stream.workspace();
            call.workspace_bytes = left;
            call.invariant = invariant;
            w->kernels->device->linear(stream, call);
        }
        kernels->device->swiglu(stream, {out.floats, second, tokens, gate.rows, out.greatest});
    }

private:
    /// Two groups of both matrices by a tile of tokens; g and u are `[tokens][32]`.
    void multiply(std::size_t part, std::size_t group, bool both, std::size_t token, std::size_t tokens,
                  float* g, float* u) const noexcept {
        LinearTile tile;
        tile.tokens = static_cast<std::uint32_t>(tokens);
        tile.columns = gate.columns;
        if (gate.kernels == up.kernels && tokens <= few_tokens) {
            // The same rows of both at once: two far streams from memory.
            alignas(64) float y[8][2][16];
            tile.x = detail::tile_of(x, gate, token);
            tile.y = y[0][0];
            for (std::size_t half = 0; half < (both ? 2u : 1u); ++half) {
                tile.groups[0] = gate.group(part, group + half);
                tile.groups[1] = up.group(part, group + half);
                gate.kernels->multiply(tile);
                kernels->put(y[0][0], 32, tokens, nullptr, false, g + half * 16, 32);
                kernels->put(y[0][1], 32, tokens, nullptr, false, u + half * 16, 32);
            }
            return;
        }
        for (const auto& [w, y] : {std::pair{&gate, g}, std::pair{&up, u}}) {
            tile.groups[0] = w->group(part, group);
            tile.groups[1] = both ? w->group(part, group + 1) : nullptr;
            tile.x = detail::tile_of(x, *w, token);
            tile.y = y;
            w->kernels->multiply(tile);
        }
    }
    /// Up to this many tokens, weights come slower than they are multiplied.
    static constexpr std::size_t few_tokens = 4;
};

/// The rotary angles of a batch, once a step: `[tokens, dim]` cosines, then the same of signed sines.
struct RopeAngles {
    const std::uint32_t* positions = nullptr;
    std::size_t count = 0;
    std::size_t dim = 0;
    float base = 10000;
    float linear = 1;                ///< divides every frequency
    const float* factors = nullptr;  ///< `[dim / 2]` divisors of the frequencies (Llama 3.1), or none
    RopePairs order = RopePairs::neighbours;
    float* cosines = nullptr;
    float* sines = nullptr;
    const RowKernels* kernels = nullptr;  ///< where a GPU computes

    [[nodiscard]] constexpr std::size_t items() const noexcept { return count; }
    [[nodiscard]] constexpr Bytes thread_bytes() const noexcept { return 0; }
    void run(std::size_t item, const exec::Worker& /*worker*/) const noexcept {
        rope_angles(positions[item], base, linear, dim, factors, order, cosines + item * dim,
                    sines + item * dim);
    }
    [[nodiscard]] constexpr Bytes workspace_bytes() const noexcept { return 0; }
    void enqueue(exec::gpu::Stream& stream) const noexcept {
        kernels->device->rope_angles(
            stream, {positions, static_cast<std::uint32_t>(count), static_cast<std::uint32_t>(dim), base,
                     linear, factors, order, cosines, sines});
    }
};

}  // namespace kernels
}  // namespace zse::inline v1
