// SPDX-License-Identifier: Apache-2.0
// Which experts a token goes to, the tokens of each expert side by side, and the sum of what experts gave.
#pragma once

#include <zse/exec/cuda/thread.hpp>

namespace zse::inline v1 {
namespace kernels {
namespace cuda {

/// The `chosen` greatest logits of each token, ties to the lower expert, with their softmax over all experts; with
/// `renormalise`, over those chosen. One warp a token.
struct RouterKernel {
    static constexpr unsigned threads = 128;
    static constexpr unsigned most_experts = 512;  ///< 16 of a lane, in registers
    static constexpr unsigned most_chosen = exec::gpu::warp_threads;

    const float* logits = nullptr;  ///< `[tokens, experts]`
    std::uint32_t tokens = 0;
    std::uint32_t experts = 0;
    std::uint32_t chosen = 0;
    bool renormalise = false;
    std::uint32_t* ids = nullptr;  ///< `[tokens, chosen]`, the best first
    float* weights = nullptr;      ///< likewise

    [[nodiscard]] exec::gpu::Launch launch() const noexcept {
        return {{(tokens + warps - 1) / warps, 1, 1}, threads, 0};
    }

    template <class T>
    ZSE_DEVICE void operator()(T& t) const {
        const unsigned token = t.block().x * warps + t.warp();
        if (token >= tokens) return;
        std::uint64_t keys[per_lane];
        ZSE_UNROLL
        for (unsigned i = 0; i < per_lane; ++i) {
            const unsigned expert = i * exec::gpu::warp_threads + t.lane();
            // Zero has one sign then, so that both kinds tie.
            keys[i] =
                expert < experts
                    ? key(t.load(logits + static_cast<std::size_t>(token) * experts + expert) + 0.0f, expert)
                    : 0;
        }
        std::uint64_t mine = 0;
        float greatest = 0;
        for (unsigned slot = 0; slot < chosen; ++slot) {
            std::uint64_t best = 0;
            ZSE_UNROLL
            for (unsigned i = 0; i < per_lane; ++i) best = exec::gpu::Greatest{}(best, keys[i]);
            best = t.warp_reduce(best, exec::gpu::Greatest{});
            ZSE_UNROLL
            for (unsigned i = 0; i < per_lane; ++i) {
                if (keys[i] == best) keys[i] = 0;
            }
            if (slot == 0) greatest = value(best);
            if (t.lane() == slot) mine = best;
        }
        const float weight = t.lane() < chosen ? power(t, value(mine) - greatest) : 0.0f;
        float total = weight;
        if (!renormalise) {
            ZSE_UNROLL
            for (unsigned i = 0; i < per_lane; ++i) {
                if (keys[i] != 0) total += power(t, value(keys[i]) - greatest);
            }
        }
        total = t.warp_reduce(total, exec::gpu::Sum{});
        if (t.lane() >= chosen) return;
        const std::size_t at = static_cast<std::size_t>(token) * chosen + t.lane();
        ids[at] = ~static_cast<std::uint32_t>(mine);
        weights[at] = weight / total;
    }

private:
    static constexpr unsigned warps = threads / exec::gpu::warp_threads;
    static constexpr unsigned per_lane = most_experts / exec::gpu::warp_threads;

    /// Greater for a greater value, and of equal values for the lower expert; never 0, which stands for none.
    ZSE_DEVICE static std::uint64_t key(float value, std::uint32_t expert) {
        const auto bits = __builtin_bit_cast(std::uint32_t, value);
        const std::uint32_t ordered = (bits >> 31) != 0 ? ~bits : bits | 0x80000000u;
        return static_cast<std::uint64_t>(ordered) << 32 | static_cast<std::uint32_t>(~expert);
    }
    ZSE_DEVICE static float value(std::uint64_t key) {
        const auto ordered = static_cast<std::uint32_t>(key >> 32);
        return __builtin_bit_cast(float, (ordered >> 31) != 0 ? ordered & 0x7fffffffu : ~ordered);
    }
    /// e to the power of v.
    template <class T>
    ZSE_DEVICE static float power(T& t, float v) {
        return t.exp2(v * exec::gpu::log2_e);
    }
};

/// Sorts pairs (token, slot), numbered token * chosen + slot, by expert, in their order. One block an expert: it counts
/// the pairs of lower experts, then lines its own up, so no block waits for another and nothing is added in an order
/// that varies.
struct ExpertOrderKernel {
    static constexpr unsigned threads = 256;

    const std::uint32_t* ids = nullptr;  ///< `[pairs]`: the expert of each pair
    std::uint32_t pairs = 0;
    std::uint32_t experts = 0;
    std::uint32_t* order = nullptr;    ///< `[pairs]`: pairs, expert by expert
    std::uint32_t* offsets = nullptr;  ///< `[experts + 1]`: where in `order` each expert begins
    std::uint32_t* clear = nullptr;    ///< `[pairs]`, greatest magnitudes to come, set to 0; or null

    [[nodiscard]] exec::gpu::Launch launch() const noexcept { return {{experts, 1, 1}, threads, 0}; }

    template <class T>
    ZSE_DEVICE void operator()(T& t) const {
        const unsigned expert = t.block().x;
        std::uint32_t lower = 0;
        for (unsigned i = t.thread(); i < pairs; i += threads) lower += t.load(ids + i) < expert ? 1u : 0u;
        std::uint32_t to = t.template block_reduce<threads>(lower, exec::gpu::Sum{});
        if (t.thread() == 0) {
            offsets[expert] = to;
            if (expert == 0) offsets[experts] = pairs;
        }
        for (unsigned first = 0; first < pairs; first += threads * items) {
            const unsigned mine = first + t.thread() * items;
            std::uint32_t hits = 0;
            ZSE_UNROLL
            for (unsigned i = 0; i < items; ++i) {
                if (mine + i < pairs && t.load(ids + mine + i) == expert) hits |= 1u << i;
            }
            std::uint32_t count = 0;
            ZSE_UNROLL
            for (unsigned i = 0; i < items; ++i) count += hits >> i & 1u;
            std::uint32_t total = 0;
            std::uint32_t at = to + t.template block_scan<threads>(count, total);
            ZSE_UNROLL
            for (unsigned i = 0; i < items; ++i) {
                if ((hits >> i & 1u) == 0) continue;
                if (clear != nullptr) clear[at] = 0;
                order[at++] = mine + i;
            }
            to += total;
        }
    }

private:
    static constexpr unsigned items = 8;  ///< pairs of a thread between two scans, one cache sector
};

/// y[token] = sum over slots, in their order, of weight * result: no sum depends on which expert was done first.
struct CombineKernel {
    static constexpr unsigned threads = 256;

    const float* results = nullptr;  ///< `[tokens, chosen, columns]`
    const float* weights = nullptr;  ///< `[tokens, chosen]`
    std::uint32_t tokens = 0;
    std::uint32_t chosen = 0;
    std::uint32_t columns = 0;
    float* y = nullptr;  ///< `[tokens, columns]`, `y_stride` floats from token to token
    std::uint64_t y_stride = 0;
    bool accumulate = false;

    [[nodiscard]] exec::gpu::Launch launch() const noexcept {
        return {{tokens, (columns + threads - 1) / threads, 1}, threads, 0};
    }

    template <class T>
    ZSE_DEVICE void operator()(T& t) const {
        const unsigned token = t.block().x;
        const unsigned column = t.block().y * threads + t.thread();
        if (column >= columns) return;
        const float* from = results + static_cast<std::size_t>(token) * chosen * columns + column;
        float sum = 0;
        for (unsigned slot = 0; slot < chosen; ++slot) {
            sum += t.load(weights + static_cast<std::size_t>(token) * chosen + slot) *
                   t.load_once(from + static_cast<std::size_t>(slot) * columns);
        }
        float& value = y[token * y_stride + column];
        value = accumulate ? value + sum : sum;
    }
};

}  // namespace cuda
}  // namespace kernels
}  // namespace zse::inline v1
