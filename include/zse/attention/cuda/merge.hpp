// SPDX-License-Identifier: Apache-2.0
// The partial states of split contexts, merged into outputs in order of position.
#pragma once

#include <zse/attention/cuda/output.hpp>

namespace zse::inline v1 {
namespace attention {
namespace cuda {

/// A block takes one head of one row: its warps sum the values of a quarter of the states each, in order, and then the
/// quarters. Which parts there are follows from the segment, as it did where they were made, so parts without tokens
/// write nothing. Heads of at most 32 * Registers values.
template <class V, unsigned Registers>
struct MergeKernel {
    static constexpr unsigned threads = 128;

    AttendCall call;
    SplitRule rule;
    std::uint32_t parts = 1;

    [[nodiscard]] exec::gpu::Launch launch() const noexcept {
        return {{call.heads, PartialPlace::of(call, parts).rows_each, call.segment_count},
                threads,
                warps * Row::registers * Row::lanes * sizeof(float)};
    }

    template <class T>
    ZSE_DEVICE void operator()(T& t) const {
        const std::uint32_t head = t.block().x;
        const std::uint32_t row = t.block().y;
        const kv::Segment& segment = call.segments[t.block().z];
        if (segment.rows > few_rows || row >= segment.rows) return;
        const Present present = Present::of(segment);
        const TileWalk walk = TileWalk::of(present, segment.first_position, present.end - 1, call.window);
        const std::uint32_t used = rule.parts(walk.count);
        if (used == 1 && call.extra_states == 0) return;  // it was written already
        const std::uint32_t states = call.extra_states + used;

        // Few, so each thread looks at all that it has; the greatest of all is found first, so nothing is scaled twice.
        float greatest = lowest;
        for (std::uint32_t s = t.thread(); s < states; s += threads) {
            greatest = exec::gpu::Greatest{}(greatest, t.load(state(t, row, head, s) + dim()));
        }
        greatest = t.template block_reduce<threads>(greatest, exec::gpu::Greatest{});

        const std::uint32_t quarter = (states + warps - 1) / warps;
        const std::uint32_t begin = t.warp() * quarter;
        const std::uint32_t end = begin + quarter < states ? begin + quarter : states;
        Row value{};
        float sum = 0;
        // Loads of four states are under way at once.
        for (std::uint32_t s = begin; s < end; s += unrolled) {
            float part[unrolled][Registers];
            float factor[unrolled];
            ZSE_UNROLL
            for (unsigned u = 0; u < unrolled; ++u) {
                const bool there = s + u < end;
                const float* from = state(t, row, head, there ? s + u : s);
                ZSE_UNROLL
                for (unsigned j = 0; j < Registers; ++j) {
                    const unsigned i = Row::index(t.lane(), j);
                    part[u][j] = there && i < dim() ? t.load(from + i) : 0.0f;
                }
                factor[u] = there ? t.exp2(t.load(from + dim()) - score_base(greatest)) : 0.0f;
                sum += factor[u] * t.load(from + dim() + 1);
            }
            ZSE_UNROLL
            for (unsigned u = 0; u < unrolled; ++u) {
                ZSE_UNROLL
                for (unsigned j = 0; j < Registers; ++j) value.values[j] += part[u][j] * factor[u];
            }
        }
        const auto quarters = t.template shared<float>(0, warps * Registers * Row::lanes);
        ZSE_UNROLL
        for (unsigned j = 0; j < Registers; ++j) {
            quarters[t.warp() * Registers * Row::lanes + Row::index(t.lane(), j)] = value.values[j];
        }
        // All lanes of a warp have the same sum: one of each counts.
        sum = t.template block_reduce<threads>(t.lane() == 0 ? sum : 0.0f, exec::gpu::Sum{});
        t.sync();
        if (t.warp() != 0) return;
        ZSE_UNROLL
        for (unsigned w = 1; w < warps; ++w) {
            ZSE_UNROLL
            for (unsigned j = 0; j < Registers; ++j) {
                value.values[j] += quarters[w * Registers * Row::lanes + Row::index(t.lane(), j)];
            }
        }
        store_output<V>(t, call, segment.first_row + row, head, value, sum);
    }

private:
    using Row = kv::cuda::WarpRow<Registers>;
    static constexpr unsigned warps = threads / exec::gpu::warp_threads;
    static constexpr unsigned unrolled = 4;

    [[nodiscard]] ZSE_DEVICE std::uint32_t dim() const { return call.pages.layout.v_dim; }

    /// State `index` of a row of the block's segment: first those from elsewhere.
    template <class T>
    ZSE_DEVICE const float* state(T& t, std::uint32_t row, std::uint32_t head, std::uint32_t index) const {
        if (index < call.extra_states) {
            const std::uint64_t batch_row = call.segments[t.block().z].first_row + row;
            return call.extra +
                   ((batch_row * call.heads + head) * call.extra_states + index) * partial_floats(dim());
        }
        return call.partials +
               PartialPlace::of(call, parts).at(call, t.block().z, row, head, index - call.extra_states);
    }
};

}  // namespace cuda
}  // namespace attention
}  // namespace zse::inline v1
