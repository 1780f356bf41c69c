// SPDX-License-Identifier: Apache-2.0
// RoPE of queries and keys, and the way of keys and values into pages, in one launch.
#pragma once

#include <zse/kv/cuda/calls.hpp>
#include <zse/kv/cuda/encode.hpp>
#include <zse/kv/cuda/rope_angles.hpp>

namespace zse::inline v1 {
namespace kv {
namespace cuda {

/// See AppendCall. A warp takes one head of one row: a query, a key or a value of at most 32 * Registers values.
template <class K, class V, unsigned Registers>
struct AppendKernel {
    static constexpr unsigned threads = 128;

    AppendCall call;

    [[nodiscard]] exec::gpu::Launch launch() const noexcept {
        return {{(call.rows * row_items() + warps - 1) / warps, 1, 1}, threads, 0};
    }

    template <class T>
    ZSE_DEVICE void operator()(T& t) const {
        const unsigned item = t.block().x * warps + t.warp();
        if (item >= call.rows * row_items()) return;
        const unsigned row = item / row_items();
        const unsigned head = item % row_items();
        const unsigned kv_heads = call.pages.layout.kv_heads;
        if (head < call.heads) {
            turn_query(t, row, head);
        } else if (head < call.heads + kv_heads) {
            append_key(t, row, head - call.heads);
        } else {
            append_value(t, row, head - call.heads - kv_heads);
        }
    }

private:
    using Row = WarpRow<Registers>;
    static constexpr unsigned warps = threads / exec::gpu::warp_threads;

    [[nodiscard]] constexpr unsigned row_items() const noexcept {
        return call.heads + 2 * call.pages.layout.kv_heads;
    }

    template <class T>
    ZSE_DEVICE void turn_query(T& t, unsigned row, unsigned head) const {
        const unsigned dim = call.pages.layout.k_dim;
        float* at = call.q + row * call.row_stride + static_cast<std::size_t>(head) * dim;
        Row query = turned(t, row, at, dim);
        if constexpr (K::rotates) rotate(t, query, dim);
        t.sync_warp();  // lanes read each other's values from where these are written
        ZSE_UNROLL
        for (unsigned j = 0; j < Registers; ++j) {
            const unsigned i = Row::index(t.lane(), j);
            if (i < dim) at[i] = query.values[j];
        }
    }
    template <class T>
    ZSE_DEVICE void append_key(T& t, unsigned row, unsigned head) const {
        const PageLayout& layout = call.pages.layout;
        const float* from = call.k + row * call.row_stride + static_cast<std::size_t>(head) * layout.k_dim;
        Row key = turned(t, row, from, layout.k_dim);
        if constexpr (K::rotates) rotate(t, key, layout.k_dim);
        const unsigned position = t.load(call.positions + row);
        std::byte* at = page_head(t, row, head, position);
        encode<K>(t, key, layout.k_dim, TokenPlace::key(layout, at, position % layout.page_tokens));
    }
    template <class T>
    ZSE_DEVICE void append_value(T& t, unsigned row, unsigned head) const {
        const PageLayout& layout = call.pages.layout;
        const float* from = call.v + row * call.row_stride + static_cast<std::size_t>(head) * layout.v_dim;
        Row value = read(t, from, layout.v_dim);
        if constexpr (V::rotates) rotate(t, value, layout.v_dim);
        const unsigned position = t.load(call.positions + row);
        std::byte* at = page_head(t, row, head, position);
        encode<V>(t, value, layout.v_dim,
                  TokenPlace::value(layout, at, position % layout.page_tokens, V::piece));
    }

    template <class T>
    ZSE_DEVICE std::byte* page_head(T& t, unsigned row, unsigned head, unsigned position) const {
        const Segment& segment = call.segments[t.load(call.segment_of_row + row)];
        return call.pages.head(t.load(segment.pages + position / call.pages.layout.page_tokens), head);
    }
    template <class T>
    ZSE_DEVICE static Row read(T& t, const float* from, unsigned dim) {
        Row values;
        ZSE_UNROLL
        for (unsigned j = 0; j < Registers; ++j) {
            const unsigned i = Row::index(t.lane(), j);
            values.values[j] = i < dim ? from[i] : 0.0f;
        }
        return values;
    }
    /// A head of a row after RoPE: value * cosine + partner * sine.
    template <class T>
    ZSE_DEVICE Row turned(T& t, unsigned row, const float* from, unsigned dim) const {
        Row values = read(t, from, dim);
        const std::size_t angles = static_cast<std::size_t>(row) * call.dim;
        const bool neighbours = pairs_neighbours(call.order);
        const unsigned half = call.dim / 2;
        ZSE_UNROLL
        for (unsigned j = 0; j < Registers; ++j) {
            const unsigned i = Row::index(t.lane(), j);
            if (i >= call.dim) continue;
            const unsigned partner = neighbours ? i ^ 1u : (i < half ? i + half : i - half);
            values.values[j] = values.values[j] * t.load(call.cosines + angles + i) +
                               from[partner] * t.load(call.sines + angles + i);
        }
        return values;
    }
};

}  // namespace cuda
}  // namespace kv
}  // namespace zse::inline v1
