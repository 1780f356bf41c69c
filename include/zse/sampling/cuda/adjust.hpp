// SPDX-License-Identifier: Apache-2.0
// The first kernel of sampling: mask and repetition penalty, and the best token of each slice of a row.
#pragma once

#include <zse/sampling/cuda/calls.hpp>
#include <zse/sampling/cuda/row_search.hpp>

namespace zse::inline v1 {
namespace sampling {
namespace cuda {

/// Several blocks a row, so that a single row is not left to one multiprocessor. Each thread holds 16 logits, loaded
/// before the history is looked through.
template <unsigned Threads = 256>
struct AdjustKernel {
    static constexpr unsigned threads = Threads;
    static constexpr std::uint32_t slice = slice_tokens;
    static constexpr std::uint32_t loads = slice / (Threads * 4);

    SampleCall call;

    [[nodiscard]] exec::gpu::Launch launch() const noexcept {
        return {{call.slices(), call.rows, 1}, Threads, slice / 8};
    }

    template <class T>
    ZSE_DEVICE void operator()(T& t) const {
        const std::size_t row = t.block().y;
        const std::uint32_t first = t.block().x * slice;
        const DeviceSampling& p = call.params[row];
        const float* from = call.logits + row * call.stride;
        const bool aligned = reinterpret_cast<std::uintptr_t>(from) % sizeof(exec::gpu::Chunk) == 0;

        exec::gpu::Chunk logits[loads];
        ZSE_UNROLL
        for (std::uint32_t i = 0; i < loads; ++i) {
            const std::uint32_t id = id_at(t, first, i);
            if (aligned && id + 4 <= call.vocabulary) {
                logits[i] = t.load_once(reinterpret_cast<const exec::gpu::Chunk*>(from + id));
                continue;
            }
            ZSE_UNROLL
            for (std::uint32_t j = 0; j < 4; ++j) {
                const float none = -__builtin_huge_valf();
                logits[i].words[j] = __builtin_bit_cast(
                    std::uint32_t, id + j < call.vocabulary ? t.load(from + id + j) : none);
            }
        }

        const bool penalised = p.repetition_penalty != 1 && p.history_tokens != 0;
        auto seen = t.template shared<std::uint32_t>(0, slice / 32);
        if (penalised) {
            for (std::uint32_t i = t.thread(); i < slice / 32; i += Threads) seen[i] = 0u;
            t.sync();
            for (std::uint32_t i = t.thread(); i < p.history_tokens; i += Threads) {
                // Tokens below the slice, and negative ones, become numbers beyond it.
                const std::uint32_t at = static_cast<std::uint32_t>(t.load(p.history + i)) - first;
                if (at < slice) t.atomic_or(seen, at / 32, 1u << (at % 32));
            }
            t.sync();
        }

        std::uint64_t best = 0;
        float* to = reinterpret_cast<float*>(call.workspace + call.values_at()) + row * call.padded();
        ZSE_UNROLL
        for (std::uint32_t i = 0; i < loads; ++i) {
            const std::uint32_t id = id_at(t, first, i);
            if (id >= call.vocabulary) continue;
            std::uint32_t bits = 0;
            if (penalised) bits = seen[(id - first) / 32] >> (id % 32);
            std::uint32_t allowed = 15;
            if (p.mask != nullptr)
                allowed = static_cast<std::uint32_t>(t.load(p.mask + id / 64) >> (id % 64));
            exec::gpu::Chunk values;
            ZSE_UNROLL
            for (std::uint32_t j = 0; j < 4; ++j) {
                const float logit = float_of(logits[i].words[j]) + 0.0f;
                const bool invalid = checked_key(logit) == invalid_key;
                float value = logit;
                if (((bits >> j) & 1u) != 0) value = penalise(logit, p.repetition_penalty);
                if (((allowed >> j) & 1u) == 0) value = -__builtin_huge_valf();
                const std::uint32_t key = invalid ? invalid_key : detail::order_key(value);
                const std::uint64_t mine = ranked(key, id + j);
                best = mine > best ? mine : best;
                values.words[j] = bits_of(value);
            }
            // The greatest logit needs no values.
            if (p.temperature != 0) *reinterpret_cast<exec::gpu::Chunk*>(to + id) = values;
        }
        best = t.template block_reduce<Threads>(best, exec::gpu::Greatest{});
        if (t.thread() == 0) {
            reinterpret_cast<std::uint64_t*>(call.workspace)[row * t.blocks().x + t.block().x] = best;
        }
    }

private:
    template <class T>
    [[nodiscard]] ZSE_DEVICE static std::uint32_t id_at(T& t, std::uint32_t first, std::uint32_t load) {
        return first + (load * Threads + t.thread()) * 4;
    }
    /// As detail::penalise.
    [[nodiscard]] ZSE_DEVICE static float penalise(float logit, float penalty) noexcept {
        constexpr float most = 0x1.fffffep127f;
        if (logit < -most) return logit;
        const float value = logit > 0 ? logit / penalty : logit * penalty;
        return value > most ? most : value < -most ? -most : value;
    }
};

}  // namespace cuda
}  // namespace sampling
}  // namespace zse::inline v1
