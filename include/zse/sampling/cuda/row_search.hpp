// SPDX-License-Identifier: Apache-2.0
// One block over one row of values: walks, sums, a radix search for a cut, and the token at a point of the cumulated
// mass. Masses are whole numbers, so that nothing depends on the order of sums.
#pragma once

#include <zse/exec/cuda/thread.hpp>
#include <zse/sampling/select.hpp>

namespace zse::inline v1 {
namespace sampling {
namespace cuda {

/// Casts of bits, as functions: nvcc 13.0 fails on a cast of an element of a member.
ZSE_DEVICE constexpr float float_of(std::uint32_t bits) noexcept {
    return __builtin_bit_cast(float, bits);
}
ZSE_DEVICE constexpr std::uint32_t bits_of(float value) noexcept {
    return __builtin_bit_cast(std::uint32_t, value);
}

/// The value that has this order_key.
ZSE_DEVICE constexpr float value_of_key(std::uint32_t key) noexcept {
    return float_of((key & 0x80000000u) != 0 ? key & 0x7fffffffu : ~key);
}

/// A value and its token in one number: the greatest is the best value, the lowest id of equals.
ZSE_DEVICE constexpr std::uint64_t ranked(std::uint32_t key, std::uint32_t id) noexcept {
    return std::uint64_t{key} << 32 | static_cast<std::uint32_t>(~id);
}
ZSE_DEVICE constexpr std::uint32_t key_of(std::uint64_t ranked) noexcept {
    return static_cast<std::uint32_t>(ranked >> 32);
}
ZSE_DEVICE constexpr std::uint32_t id_of(std::uint64_t ranked) noexcept {
    return ~static_cast<std::uint32_t>(ranked);
}
/// The key of what is no number, and of +infinity, above those of all numbers.
inline constexpr std::uint32_t invalid_key = 0xffffffffu;
/// The key of -infinity.
inline constexpr std::uint32_t impossible_key = 0x007fffffu;

ZSE_DEVICE constexpr std::uint32_t checked_key(float value) noexcept {
    constexpr float most = 0x1.fffffep127f;
    return value <= most ? detail::order_key(value) : invalid_key;
}

/// Tokens stay whose key is greater, and those of equal keys whose id is at most `last`. `kept` is their mass.
struct DeviceCut {
    std::uint32_t key = 0;
    std::uint32_t last = 0xffffffffu;
    std::uint64_t kept = 0;

    [[nodiscard]] ZSE_DEVICE bool keeps(float value, std::uint32_t id) const noexcept {
        const std::uint32_t k = detail::order_key(value);
        return k > key || (k == key && id <= last);
    }
};

/// The block's view of a row. Each warp has a part of the row in one piece, and each lane always the same tokens of it.
template <unsigned Threads>
struct RowSearch {
    static constexpr unsigned warps = Threads / exec::gpu::warp_threads;
    /// Tokens that a warp reads in one load of 16 bytes per lane.
    static constexpr std::uint32_t step = exec::gpu::warp_threads * 4;
    /// Loads under way per lane: 512 threads then have 64 KB under way, twice what hides the latency of memory.
    static constexpr std::uint32_t batch = 8;

    /// Three passes over 11, 11 and 10 bits of a key. With 8 bits the first would see little but exponents, and most
    /// logits would meet in a handful of bins; 2048 bins of 8 bytes, and the room of a sort, are less than the 48 KB
    /// that a block gets unasked.
    static constexpr std::uint32_t bins = 2048;
    static constexpr unsigned sums_at = bins * 2 * sizeof(std::uint32_t);
    static constexpr unsigned found_at = sums_at + warps * sizeof(std::uint64_t);
    static constexpr unsigned shared_bytes = found_at + 4 * sizeof(std::uint64_t);
    static_assert(bins % Threads == 0, "each thread looks through as many bins");

    float* values = nullptr;  ///< `[count]`
    std::uint32_t count = 0;
    bool aligned = true;  ///< values to 16 bytes, and count a multiple of 4

    /// body(value&, id) for all tokens of this thread; what it leaves there is stored where Store says so.
    template <bool Store = false, class T, class Body>
    ZSE_DEVICE void walk(T& t, const Body& body) const {
        const std::uint32_t end = end_of(t.warp());
        for (std::uint32_t at = begin_of(t.warp()) + t.lane() * 4; at < end; at += step * batch) {
            exec::gpu::Chunk chunks[batch];
            ZSE_UNROLL
            for (std::uint32_t i = 0; i < batch; ++i) chunks[i] = chunk(at + i * step, end);
            ZSE_UNROLL
            for (std::uint32_t i = 0; i < batch; ++i) {
                const std::uint32_t id = at + i * step;
                if (id >= end) continue;
                ZSE_UNROLL
                for (std::uint32_t j = 0; j < 4; ++j) {
                    float value = plain(chunks[i].words[j]);
                    if (aligned || id + j < count) body(value, id + j);
                    chunks[i].words[j] = bits_of(value);
                }
                if constexpr (Store) *reinterpret_cast<exec::gpu::Chunk*>(values + id) = chunks[i];
            }
        }
    }

    /// Notes the mass of each warp, from what each thread has of it; returns that of the row. A barrier lies between this
    /// and what used the sums before.
    template <class T>
    ZSE_DEVICE std::uint64_t note_sums(T& t, std::uint64_t mine) const {
        auto sums = t.template shared<std::uint64_t>(sums_at, warps);
        mine = t.warp_reduce(mine, exec::gpu::Sum{});
        if (t.lane() == 0) sums[t.warp()] = mine;
        t.sync();
        std::uint64_t total = 0;
        for (unsigned i = 0; i < warps; ++i) total += sums[i];
        return total;
    }
    /// The same, of a function mass(value, id).
    template <class T, class Mass>
    ZSE_DEVICE std::uint64_t note_sums_of(T& t, const Mass& mass) const {
        std::uint64_t mine = 0;
        walk(t, [&](float value, std::uint32_t id) { mine += mass(value, id); });
        return note_sums(t, mine);
    }

    /// The lowest token at which the mass, summed in order of id, exceeds `target`, which is less than the mass of the
    /// row. The sums of that mass were noted.
    template <class T, class Mass>
    ZSE_DEVICE std::uint32_t locate(T& t, std::uint64_t target, const Mass& mass) const {
        auto sums = t.template shared<std::uint64_t>(sums_at, warps);
        auto found = t.template shared<std::uint64_t>(found_at, 4);
        unsigned warp = 0;
        for (unsigned i = 0; i + 1 < warps; ++i) {
            const std::uint64_t sum = sums[i];
            if (warp != i || target < sum) continue;
            target -= sum;
            ++warp;
        }
        if (t.warp() == warp) {
            const std::uint32_t token = locate_in_warp(t, target, mass);
            if (t.lane() == 0) found[3] = std::uint64_t{token};
        }
        t.sync();
        const std::uint64_t token = found[3];
        return static_cast<std::uint32_t>(token);
    }

    /// The cut that keeps the fewest of the greatest values whose mass reaches `wanted(mass of the row)`, and at least
    /// one; of equals at the edge, those of the lowest ids. mass(value) is the same for the same value, and not 0 for
    /// some value. All threads get it.
    template <class T, class Wanted, class Mass>
    ZSE_DEVICE DeviceCut find_cut(T& t, const Wanted& wanted_of, const Mass& mass) const {
        auto low = t.template shared<std::uint32_t>(0, bins);
        auto high = t.template shared<std::uint32_t>(bins * sizeof(std::uint32_t), bins);
        auto found = t.template shared<std::uint64_t>(found_at, 4);
        std::uint32_t prefix = 0;
        std::uint64_t above = 0;
        std::uint64_t in_bin = 0;
        std::uint64_t wanted = 0;
        for (unsigned pass = 0; pass < 3; ++pass) {
            const unsigned shift = pass == 0 ? 21 : pass == 1 ? 10 : 0;
            const unsigned width = pass == 2 ? 10 : 11;
            for (std::uint32_t i = t.thread(); i < bins; i += Threads) {
                low[i] = 0u;
                high[i] = 0u;
            }
            t.sync();
            walk(t, [&](float value, std::uint32_t) {
                const std::uint64_t m = mass(value);
                const std::uint32_t key = detail::order_key(value);
                // In 64 bits, since the first pass shifts by 32.
                if (m == 0 || std::uint64_t{key} >> (shift + width) != prefix) return;
                const std::uint32_t bin = (key >> shift) & ((1u << width) - 1);
                // Shared memory adds 32 bits at once; the carry goes where the upper half does.
                const auto add = static_cast<std::uint32_t>(m);
                const std::uint32_t old = t.atomic_add(low, bin, add);
                const std::uint32_t up = static_cast<std::uint32_t>(m >> 32) +
                                         (static_cast<std::uint32_t>(old + add) < old ? 1u : 0u);
                if (up != 0) t.atomic_add(high, bin, up);
            });
            t.sync();
            // Each thread has bins in one piece, thread 0 those of the greatest keys.
            const auto bin_mass = [&](std::uint32_t from_top) {
                const std::uint32_t bin = bins - 1 - from_top;
                const std::uint64_t upper = high[bin];
                return upper << 32 | static_cast<std::uint32_t>(low[bin]);
            };
            constexpr std::uint32_t each = bins / Threads;
            std::uint64_t mine = 0;
            for (std::uint32_t i = 0; i < each; ++i) mine += bin_mass(t.thread() * each + i);
            std::uint64_t total = 0;
            std::uint64_t before = above + t.template block_scan<Threads>(mine, total);
            if (pass == 0) {
                wanted = wanted_of(total);
                if (wanted > total) wanted = total;
                if (wanted == 0) wanted = 1;
            }
            if (before < wanted && wanted <= before + mine) {
                std::uint32_t from_top = t.thread() * each;
                std::uint64_t m = bin_mass(from_top);
                while (before + m < wanted) {
                    before += m;
                    m = bin_mass(++from_top);
                }
                found[0] = std::uint64_t{bins - 1 - from_top};
                found[1] = before;
                found[2] = m;
            }
            t.sync();
            const std::uint64_t bin = found[0];
            above = found[1];
            in_bin = found[2];
            prefix = prefix << width | static_cast<std::uint32_t>(bin);
        }
        // All values left in the bin are equal, so are their masses.
        const std::uint64_t one = mass(value_of_key(prefix));
        const std::uint64_t ties = (wanted - above + one - 1) / one;
        DeviceCut cut;
        cut.key = prefix;
        cut.kept = above + ties * one;
        if (ties * one == in_bin) return cut;
        const auto equal = [prefix](float value, std::uint32_t) -> std::uint64_t {
            return detail::order_key(value) == prefix ? 1 : 0;
        };
        note_sums_of(t, equal);
        cut.last = locate(t, ties - 1, equal);
        return cut;
    }

private:
    [[nodiscard]] ZSE_DEVICE std::uint32_t stripe() const noexcept {
        return (count + warps * step - 1) / (warps * step) * step;
    }
    /// Adding zero turns -0 into +0, which compare equal and must also tie by bits.
    [[nodiscard]] ZSE_DEVICE static float plain(std::uint32_t bits) noexcept { return float_of(bits) + 0.0f; }
    [[nodiscard]] ZSE_DEVICE std::uint32_t begin_of(unsigned warp) const noexcept { return warp * stripe(); }
    [[nodiscard]] ZSE_DEVICE std::uint32_t end_of(unsigned warp) const noexcept {
        const std::uint32_t end = (warp + 1) * stripe();
        return end < count ? end : count;
    }
    /// Four values at a token, -infinity beyond the row.
    [[nodiscard]] ZSE_DEVICE exec::gpu::Chunk chunk(std::uint32_t at, std::uint32_t end) const noexcept {
        constexpr std::uint32_t none = 0xff800000u;
        exec::gpu::Chunk c{{none, none, none, none}};
        if (at >= end) return c;
        if (aligned) return *reinterpret_cast<const exec::gpu::Chunk*>(values + at);
        ZSE_UNROLL
        for (std::uint32_t j = 0; j < 4; ++j) {
            if (at + j < count) c.words[j] = bits_of(values[at + j]);
        }
        return c;
    }

    /// All lanes of one warp: the token at which the mass of its part exceeds `target`.
    template <class T, class Mass>
    ZSE_DEVICE std::uint32_t locate_in_warp(T& t, std::uint64_t target, const Mass& mass) const {
        const std::uint32_t end = end_of(t.warp());
        for (std::uint32_t first = begin_of(t.warp()); first < end; first += step * batch) {
            const std::uint32_t at = first + t.lane() * 4;
            exec::gpu::Chunk chunks[batch];
            ZSE_UNROLL
            for (std::uint32_t i = 0; i < batch; ++i) chunks[i] = chunk(at + i * step, end);
            std::uint64_t sums[batch];
            std::uint64_t all = 0;
            ZSE_UNROLL
            for (std::uint32_t i = 0; i < batch; ++i) {
                sums[i] = 0;
                ZSE_UNROLL
                for (std::uint32_t j = 0; j < 4; ++j) sums[i] += mass_of(chunks[i], j, at + i * step, mass);
                all += sums[i];
            }
            all = t.warp_reduce(all, exec::gpu::Sum{});
            if (target >= all) {
                target -= all;
                continue;
            }
            // Chosen without leaving the loop, so that the arrays stay in registers.
            exec::gpu::Chunk chosen{};
            std::uint32_t chosen_at = 0;
            std::uint64_t chosen_sum = 0;
            bool found = false;
            ZSE_UNROLL
            for (std::uint32_t i = 0; i < batch; ++i) {
                const std::uint64_t sum = t.warp_reduce(sums[i], exec::gpu::Sum{});
                if (found) continue;
                found = target < sum;
                if (!found) target -= sum;
                chosen = chunks[i];
                chosen_at = at + i * step;
                chosen_sum = sums[i];
            }
            return locate_in_step(t, target, chosen, chosen_at, chosen_sum, mass);
        }
        return count - 1;  // never: the sums were those of this mass
    }
    template <class T, class Mass>
    ZSE_DEVICE std::uint32_t locate_in_step(T& t, std::uint64_t target, const exec::gpu::Chunk& values_here,
                                            std::uint32_t id, std::uint64_t sum, const Mass& mass) const {
        std::uint64_t until = sum;  // with this lane
        for (unsigned by = 1; by < exec::gpu::warp_threads; by *= 2) {
            const std::uint64_t lower = t.shuffle(until, t.lane() - by);
            if (t.lane() >= by) until += lower;
        }
        std::uint64_t before = until - sum;
        std::uint32_t token = 0;
        bool here = before <= target && target < until;
        ZSE_UNROLL
        for (std::uint32_t j = 0; j < 4; ++j) {
            const std::uint64_t m = mass_of(values_here, j, id, mass);
            if (here && target < before + m) {
                token = id + j;
                here = false;
            }
            before += m;
        }
        return t.warp_reduce(token, exec::gpu::Greatest{});
    }
    template <class Mass>
    [[nodiscard]] ZSE_DEVICE std::uint64_t mass_of(const exec::gpu::Chunk& c, std::uint32_t j,
                                                   std::uint32_t id, const Mass& mass) const noexcept {
        // What lies beyond the row is -infinity, or 0 among weights: no mass.
        return mass(plain(c.words[j]), id + j);
    }
};

}  // namespace cuda
}  // namespace sampling
}  // namespace zse::inline v1
