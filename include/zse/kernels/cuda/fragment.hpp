// SPDX-License-Identifier: Apache-2.0
// From packed weights to operands of a tensor core: the one place where kernels for a GPU know a codec.
#pragma once

#include <zse/kernels/cuda/halves.hpp>
#include <zse/weights/mma_packed.hpp>
#include <zse/weights/nf4.hpp>

namespace zse::inline v1 {
namespace kernels {
namespace cuda {
namespace detail {

/// What a lane has loaded of a slab: its codes, and the scales and minima of its two rows.
template <unsigned Chunks, unsigned Words>
struct LaneSlab {
    exec::gpu::Chunk codes[Chunks];
    std::uint32_t header[Words == 0 ? 1 : Words];
};

/// One value in both halves of a pair.
constexpr std::uint32_t both(std::uint32_t half) noexcept {
    return half | half << 16;
}

/// Codes of a format as pairs of halves. A half 0x6400 + n is 1024 + n for n < 1024, so small integers become halves by
/// placing bits, and one exact subtraction takes the 1024 and the offset of the code away.
template <weights::FormatId Id>
struct Decode;

template <>
struct Decode<weights::FormatId::f16> {
    template <class T, class Slab>
    ZSE_DEVICE static exec::gpu::FragmentA step(T& /*t*/, const Slab& slab, unsigned s) {
        const exec::gpu::Chunk& c = slab.codes[s];
        return {{c.words[0], c.words[1], c.words[2], c.words[3]}};
    }
};
template <>
struct Decode<weights::FormatId::bf16> : Decode<weights::FormatId::f16> {};

/// 8 bits, two's complement.
template <>
struct Decode<weights::FormatId::int8> {
    template <class T, class Slab>
    ZSE_DEVICE static exec::gpu::FragmentA step(T& t, const Slab& slab, unsigned s) {
        exec::gpu::FragmentA a;
        ZSE_UNROLL
        for (unsigned half = 0; half < 2; ++half) {
            // With the sign bit flipped a code is code + 128, in 0 to 255.
            const std::uint32_t word = slab.codes[s / 2].words[s % 2 * 2 + half] ^ 0x80808080u;
            constexpr std::uint32_t minus_1152 = both(0xe480);
            a.pairs[half * 2] = t.half_add(t.pick_bytes(word, 0x64646464u, 0x4140), minus_1152);
            a.pairs[half * 2 + 1] = t.half_add(t.pick_bytes(word, 0x64646464u, 0x4342), minus_1152);
        }
        return a;
    }
};
template <>
struct Decode<weights::FormatId::q8_0> : Decode<weights::FormatId::int8> {};

/// 4 bits less an offset. The upper nibble of a byte is 16 times its code where it stands; multiplying by 1/16 while
/// subtracting saves a shift.
template <std::uint32_t Offset>
struct DecodeNibbles {
    template <class T, class Slab>
    ZSE_DEVICE static exec::gpu::FragmentA step(T& t, const Slab& slab, unsigned s) {
        constexpr std::uint32_t magic = both(0x6400);
        constexpr std::uint32_t sixteenth = both(0x2c00);
        constexpr std::uint32_t minus_low = both(0xe400u + Offset);        // -(1024 + Offset)
        constexpr std::uint32_t minus_high = both(0xd400u + Offset * 16);  // -(64 + Offset)
        exec::gpu::FragmentA a;
        std::uint32_t word = slab.codes[s / 4].words[s % 4];
        ZSE_UNROLL
        for (unsigned half = 0; half < 2; ++half) {
            a.pairs[half * 2] = t.half_add((word & 0x000f000fu) | magic, minus_low);
            a.pairs[half * 2 + 1] = t.half_fma((word & 0x00f000f0u) | magic, sixteenth, minus_high);
            word >>= 8;
        }
        return a;
    }
};
template <>
struct Decode<weights::FormatId::q4_0> : DecodeNibbles<8> {};
template <>
struct Decode<weights::FormatId::q4_1> : DecodeNibbles<0> {};

/// nf4 through a table of 16 bytes. A byte permutation reads a table of 8: a selector's lowest three bits choose the
/// byte, and where bit 3 is set all bits of the result are the byte's sign. So one permutation of table `low` by
/// the codes, and one of table `high` by the codes with bit 3 flipped, each give their entry or zeros or ones, and the
/// exclusive or of both is the entry wanted, provided that the zeros and ones are known from the lower three bits. They
/// are, because entries n and n + 8 have the same sign bit: that is why the layout lets bits 2 and 3 change places, and
/// why the table holds code + 127, whose sign bit says whether the level is above zero.
template <>
struct Decode<weights::FormatId::nf4> {
    /// Four entries of a table, `first` in the lowest byte.
    static constexpr std::uint32_t word(unsigned first, bool high) noexcept {
        std::uint32_t w = 0;
        for (unsigned i = 0; i < 4; ++i) {
            const unsigned kept = first + i + (high ? 8 : 0);
            const unsigned code = weights::MmaLayout{{weights::FormatId::nf4, 64}}.kept_nibble(kept);
            auto entry = static_cast<std::uint32_t>(weights::nf4_codes[code] + 127);
            // Table `high` has no sign bits; where `low` has one, the ones that it gives flip this back.
            if (high && entry >= 128) entry ^= 0xffu;
            w |= entry << (8 * i);
        }
        return w;
    }

    template <class T, class Slab>
    ZSE_DEVICE static exec::gpu::FragmentA step(T& t, const Slab& slab, unsigned s) {
        constexpr std::uint32_t low_0 = word(0, false);
        constexpr std::uint32_t low_4 = word(4, false);
        constexpr std::uint32_t high_0 = word(0, true);
        constexpr std::uint32_t high_4 = word(4, true);
        constexpr std::uint32_t minus_1151 = both(0xe47f);
        exec::gpu::FragmentA a;
        std::uint32_t codes = slab.codes[s / 4].words[s % 4];
        std::uint32_t flipped = codes ^ 0x88888888u;
        ZSE_UNROLL
        for (unsigned half = 0; half < 2; ++half) {
            const std::uint32_t four =
                t.pick_bytes_or_signs(low_0, low_4, codes) ^ t.pick_bytes_or_signs(high_0, high_4, flipped);
            a.pairs[half * 2] = t.half_add(t.pick_bytes(four, 0x64646464u, 0x4140), minus_1151);
            a.pairs[half * 2 + 1] = t.half_add(t.pick_bytes(four, 0x64646464u, 0x4342), minus_1151);
            codes >>= 16;
            flipped >>= 16;
        }
        return a;
    }
};

}  // namespace detail

/// A value is high + low / split_rest, both halves: 22 bits, and the rest is in the range of halves where high is.
inline constexpr float split_rest = 2048;

/// The scales, or minima, of the two rows that a lane has of a fragment: those of d.values[0], [1] and of [2], [3].
struct RowPair {
    float low;
    float high;
};

/// How weights of a codec become operands A of mma.m16n8k16.
///
/// A slab (see weights::MmaLayout) has `steps` steps of 16 columns in `blocks` blocks of `block_steps`. Codes become
/// integers in halves, exactly; scales and minima are applied to float32 sums of a block: sum += scale * d + minimum * (sum
/// of the block's activations). nf4 multiplies with weights::nf4_codes / 127, as the processor's kernels do. Where
/// `scaled` is false (f16, bf16) the values are the weights, and `bfloat` says that they are bfloat16, for mma_bf16.
/// float32 is `split`: each step is a block whose scale split() chooses.
template <class Codec>
struct Fragment {
    static constexpr weights::MmaLayout layout{Codec::format, 0};
    static constexpr weights::FormatId id = Codec::format.id;
    static constexpr bool split_values = id == weights::FormatId::f32;
    static constexpr bool bfloat = id == weights::FormatId::bf16;
    static constexpr bool scaled = !layout.dense() || split_values;
    static constexpr bool has_minimum = layout.has_minimum();
    static constexpr unsigned columns = layout.slab_columns();
    static constexpr unsigned slab_bytes = layout.slab_bytes();
    static constexpr unsigned steps = columns / weights::MmaLayout::step;
    static constexpr unsigned block_steps = split_values     ? 1
                                            : layout.dense() ? steps
                                                             : Codec::format.group / weights::MmaLayout::step;
    static constexpr unsigned blocks = steps / block_steps;
    /// Loads of 16 bytes that a lane makes for a slab, and words of its header.
    static constexpr unsigned chunks =
        layout.code_bytes() / (weights::MmaLayout::load * exec::gpu::warp_threads);
    static constexpr unsigned header_words = layout.lane_header() / 4;

    using Slab = detail::LaneSlab<chunks, header_words>;

    /// The least that can be loaded by itself: a slab, or two steps where nothing is shared. The functions below take
    /// either.
    static constexpr unsigned unit_steps = layout.dense() ? 2 : steps;
    static constexpr unsigned unit_chunks = chunks * unit_steps / steps;
    static constexpr unsigned unit_bytes = slab_bytes * unit_steps / steps;
    using Unit = detail::LaneSlab<unit_chunks, header_words>;

    /// This lane's part of the slab or unit at `slab`; all lanes of a warp read the same.
    template <class T, unsigned Chunks>
    ZSE_DEVICE static void load(T& t, const std::byte* slab, detail::LaneSlab<Chunks, header_words>& to) {
        const auto* codes = reinterpret_cast<const exec::gpu::Chunk*>(slab) + t.lane();
        ZSE_UNROLL
        for (unsigned i = 0; i < Chunks; ++i) to.codes[i] = t.load_once(codes + i * exec::gpu::warp_threads);
        const std::byte* header = slab + layout.code_bytes() + t.lane() / 4 * layout.lane_header();
        if constexpr (header_words == 1) {
            to.header[0] = t.load(reinterpret_cast<const std::uint32_t*>(header));
        } else if constexpr (header_words == 2) {
            const auto pair = t.load(reinterpret_cast<const exec::gpu::HalfChunk*>(header));
            to.header[0] = pair.words[0];
            to.header[1] = pair.words[1];
        } else if constexpr (header_words > 0) {
            static_assert(header_words % 4 == 0);
            ZSE_UNROLL
            for (unsigned i = 0; i < header_words / 4; ++i) {
                const auto four = t.load(reinterpret_cast<const exec::gpu::Chunk*>(header) + i);
                ZSE_UNROLL
                for (unsigned j = 0; j < 4; ++j) to.header[i * 4 + j] = four.words[j];
            }
        }
    }
    /// Step `s`, a constant, of a codec that is not split.
    template <class T, class Lane>
    ZSE_DEVICE static exec::gpu::FragmentA step(T& t, const Lane& slab, unsigned s) {
        return detail::Decode<id>::step(t, slab, s);
    }
    template <class T>
    ZSE_DEVICE static RowPair scales(T& t, const Slab& slab, unsigned block) {
        const std::uint32_t pair = slab.header[block];
        constexpr float unit = id == weights::FormatId::nf4 ? 1.0f / 127.0f : 1.0f;
        return {t.low(pair) * unit, t.high(pair) * unit};
    }
    template <class T>
    ZSE_DEVICE static RowPair minima(T& t, const Slab& slab, unsigned block) {
        const std::uint32_t pair = slab.header[blocks + block];
        return {t.low(pair), t.high(pair)};
    }
    /// Step `s` of float32 weights: weight = scale * (high + low / split_rest), with a scale for each row and step
    /// that brings the row's greatest weight into the range of halves. 22 bits of every weight that is 2^-28 of the
    /// greatest. All lanes of the warp take part.
    template <class T, class Lane>
    ZSE_DEVICE static RowPair split(T& t, const Lane& slab, unsigned s, exec::gpu::FragmentA& high,
                                    exec::gpu::FragmentA& low) {
        float from[2];
        ZSE_UNROLL
        for (unsigned row = 0; row < 2; ++row) {  // pairs 0 and 2 are of the lower row, 1 and 3 of the upper
            std::uint32_t most = 0;
            ZSE_UNROLL
            for (unsigned i = 0; i < 4; ++i) {
                const std::uint32_t magnitude = bits(slab, s, row + i / 2 * 2, i % 2) & 0x7fffffffu;
                most = magnitude > most ? magnitude : most;
            }
            ZSE_UNROLL
            for (unsigned mask = 1; mask < 4; mask *= 2) {
                const std::uint32_t other = t.shuffle_xor(most, mask);
                most = other > most ? other : most;
            }
            const HalfRange range = HalfRange::of(most);
            from[row] = range.down;
            ZSE_UNROLL
            for (unsigned half = 0; half < 2; ++half) {
                const unsigned pair = row + half * 2;
                const std::uint32_t lower = bits(slab, s, pair, 0);
                const std::uint32_t upper = bits(slab, s, pair, 1);
                const float a = __builtin_bit_cast(float, lower) * range.up;
                const float b = __builtin_bit_cast(float, upper) * range.up;
                high.pairs[pair] = t.to_halves(a, b);
                low.pairs[pair] = t.to_halves((a - t.low(high.pairs[pair])) * split_rest,
                                              (b - t.high(high.pairs[pair])) * split_rest);
            }
        }
        return {from[0], from[1]};
    }

private:
    template <class Lane>
    ZSE_DEVICE static std::uint32_t bits(const Lane& slab, unsigned s, unsigned pair, unsigned odd) {
        return slab.codes[s * 2 + pair / 2].words[pair % 2 * 2 + odd];
    }
};

}  // namespace cuda
}  // namespace kernels
}  // namespace zse::inline v1
