// SPDX-License-Identifier: Apache-2.0
// Attention with plain loops on a GPU, for any codec, page and head: what other kernels are compared with, and what
// computes the shapes that those do not have.
#pragma once

#include <zse/attention/cuda/output.hpp>
#include <zse/kv/cuda/element.hpp>

namespace zse::inline v1 {
namespace attention {
namespace cuda {

/// A block takes one head of one row. It looks at as many tokens at once as it has threads, one each for scores; then
/// each thread sums some of the value's dims over them. Heads of at most 32 * Registers values.
template <class K, class V, unsigned Registers>
struct ReferenceKernel {
    static constexpr unsigned threads = 128;

    AttendCall call;

    [[nodiscard]] exec::gpu::Launch launch() const noexcept {
        return {{call.heads, call.rows, 1},
                threads,
                static_cast<unsigned>((threads + call.pages.layout.k_dim + room) * sizeof(float))};
    }

    template <class T>
    ZSE_DEVICE void operator()(T& t) const {
        const kv::PageLayout& layout = call.pages.layout;
        const std::uint32_t head = t.block().x;
        const std::uint32_t row = t.block().y;
        const kv::Segment& segment = call.segments[t.load(call.segment_of_row + row)];
        const Present present = Present::of(segment);
        const std::uint32_t position = t.load(call.positions + row);
        const std::uint32_t kv_head = head / call.group();
        const auto weights = t.template shared<float>(0, threads);
        const auto query = t.template shared<float>(threads * sizeof(float), layout.k_dim);
        const auto result = t.template shared<float>((threads + layout.k_dim) * sizeof(float), room);
        const float* from = call.q + row * call.q_stride + static_cast<std::size_t>(head) * layout.k_dim;
        for (unsigned i = t.thread(); i < layout.k_dim; i += threads) {
            query[i] = t.load(from + i) * (call.scale * log2_e);
        }
        float value[per_thread] = {};
        float greatest = lowest;
        float sum = 0;
        for (std::uint32_t first = first_seen(position, call.window); first <= position; first += threads) {
            t.sync();  // queries are there, and weights were read
            const std::uint32_t token = first + t.thread();
            const bool seen = token <= position && present.has(token);
            const float score = seen ? product(t, query, address(t, segment, token, kv_head), token) : lowest;
            const float most = t.template block_reduce<threads>(score, exec::gpu::Greatest{});
            const float now = exec::gpu::Greatest{}(greatest, most);
            const float before = t.exp2(greatest - score_base(now));
            const float weight = t.exp2(score - score_base(now));
            greatest = now;
            sum = sum * before + t.template block_reduce<threads>(weight, exec::gpu::Sum{});
            weights[t.thread()] = weight;
            t.sync();
            ZSE_UNROLL
            for (float& v : value) v *= before;
            for (std::uint32_t k = 0; k < threads && first + k <= position; ++k) {
                if (!present.has(first + k)) continue;
                const std::byte* at = address(t, segment, first + k, kv_head);
                const float factor = weights[k];
                ZSE_UNROLL
                for (unsigned j = 0; j < per_thread; ++j) {
                    const unsigned i = j * threads + t.thread();
                    if (i >= layout.v_dim) continue;
                    value[j] += factor * kv::cuda::value_element<V>(t, layout, at,
                                                                    (first + k) % layout.page_tokens, i);
                }
            }
        }
        ZSE_UNROLL
        for (unsigned j = 0; j < per_thread; ++j) {
            if (j * threads + t.thread() < room) result[j * threads + t.thread()] = value[j];
        }
        t.sync();
        if (t.warp() != 0) return;
        kv::cuda::WarpRow<Registers> all;
        ZSE_UNROLL
        for (unsigned j = 0; j < Registers; ++j) all.values[j] = result[all.index(t.lane(), j)];
        store_output<V>(t, call, row, head, all, sum);
    }

private:
    static constexpr unsigned room = Registers * exec::gpu::warp_threads;  ///< of a value
    static constexpr unsigned per_thread = (room + threads - 1) / threads;

    template <class T>
    ZSE_DEVICE const std::byte* address(T& t, const kv::Segment& segment, std::uint32_t token,
                                        std::uint32_t kv_head) const {
        return call.pages.head(t.load(segment.pages + token / call.pages.layout.page_tokens), kv_head);
    }
    template <class T, class Shared>
    ZSE_DEVICE float product(T& t, Shared query, const std::byte* at, std::uint32_t token) const {
        const kv::PageLayout& layout = call.pages.layout;
        float sum = 0;
        for (unsigned i = 0; i < layout.k_dim; ++i) {
            sum += query[i] * kv::cuda::key_element<K>(t, layout, at, token % layout.page_tokens, i);
        }
        return sum;
    }
};

}  // namespace cuda
}  // namespace attention
}  // namespace zse::inline v1
