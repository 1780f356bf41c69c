// SPDX-License-Identifier: Apache-2.0
// The packed layout cuda.mma16: how a weight matrix lies in memory for tensor cores, whatever its codec.
#pragma once

#include <zse/weights/format.hpp>

#include <cstddef>
#include <cstring>
#include <string_view>

namespace zse::inline v1 {
namespace weights {

/// Groups of 16 rows follow one another; within a group, slabs of 64 columns (128 where that many share a scale):
///
///   [codes] [header: scales, minima]
///
/// Codes lie so that each 16 bytes that a lane of a warp loads are its part of the operand A of mma.m16n8k16 (PTX; see
/// exec::gpu::FragmentA), steps of 16 columns in order:
///
///    4 bits  [4 steps][lane][16 bytes]: word s is step s. Nibbles j and j + 4 are pair j of the fragment, lower and
///            higher column. For nf4 nibbles 2j and 2j + 1 are, and bits 2 and 3 of each code change places: what two
///            byte permutations need for a table of 16 (see kernels::cuda::Fragment).
///    8 bits  [2 steps][lane][16 bytes]: bytes 8s + 2j and 8s + 2j + 1 are pair j of step s
///   16 bits  [step][lane][16 bytes]: the fragment itself
///   32 bits  [step][pairs 0-1, pairs 2-3][lane][16 bytes]
///
/// The header is `[8][blocks of the slab][2]` f16 scales, then in each of the 8 the minima likewise: entry g has those of
/// rows g and g + 8, which are the rows of lanes 4g to 4g + 3. So a lane gets all of them by one load.
///
/// Packing moves codes and changes no value. Rows and columns that fill the last group and slab up have codes that
/// decode to zero, and scales of zero. A matrix whose columns fill its slabs takes as many bytes as its codec.
struct MmaLayout {
    static constexpr std::string_view name = "cuda.mma16";
    static constexpr std::uint32_t version = 1;  ///< changes with any byte of the layout
    static constexpr std::size_t rows = 16;
    static constexpr std::size_t alignment = 32;  ///< of every slab: what memory moves at once (a sector)
    static constexpr std::size_t step = 16;       ///< columns of one mma
    static constexpr std::size_t lanes = 32;
    static constexpr std::size_t load = 16;  ///< bytes that a lane loads at once

    Format format;
    std::uint32_t columns = 0;

    [[nodiscard]] constexpr bool dense() const noexcept { return format.group == 1; }
    [[nodiscard]] constexpr bool has_minimum() const noexcept { return format.id == FormatId::q4_1; }
    /// Bits of a code.
    [[nodiscard]] constexpr std::size_t bits() const noexcept {
        switch (format.id) {
            case FormatId::f32: return 32;
            case FormatId::f16:
            case FormatId::bf16: return 16;
            case FormatId::int8:
            case FormatId::q8_0: return 8;
            case FormatId::nf4:
            case FormatId::q4_0:
            case FormatId::q4_1: return 4;
        }
        return 0;
    }
    [[nodiscard]] constexpr std::size_t slab_columns() const noexcept { return format.group > 64 ? 128 : 64; }
    [[nodiscard]] constexpr std::size_t slabs() const noexcept { return ceil_div(columns, slab_columns()); }
    [[nodiscard]] constexpr std::size_t slab_blocks() const noexcept {
        return dense() ? 0 : slab_columns() / format.group;
    }
    [[nodiscard]] constexpr std::size_t code_bytes() const noexcept {
        return rows * slab_columns() * bits() / 8;
    }
    /// Bytes of a slab's scales and minima of two rows: what a lane loads.
    [[nodiscard]] constexpr std::size_t lane_header() const noexcept {
        return slab_blocks() * (has_minimum() ? 8 : 4);
    }
    [[nodiscard]] constexpr std::size_t slab_bytes() const noexcept {
        return code_bytes() + rows / 2 * lane_header();
    }
    /// Bytes of a group of 16 rows.
    [[nodiscard]] constexpr Bytes group_bytes() const noexcept {
        return saturating_mul(slabs(), slab_bytes());
    }
    [[nodiscard]] constexpr std::uint64_t groups(std::uint64_t matrix_rows) const noexcept {
        return ceil_div(matrix_rows, rows);
    }
    /// Bytes of a matrix of `matrix_rows` rows.
    [[nodiscard]] constexpr Bytes bytes(std::uint64_t matrix_rows) const noexcept {
        return saturating_mul(groups(matrix_rows), group_bytes());
    }

    /// Where in a slab the code of a row of the group and a column of the slab is: a byte, and for 4 bits the half of it.
    struct Place {
        std::size_t byte;
        unsigned shift;
    };
    [[nodiscard]] constexpr Place code_place(std::size_t r, std::size_t column) const noexcept {
        const std::size_t s = column / step;
        const std::size_t lane = r % 8 * 4 + column % 8 / 2;
        const std::size_t pair = r / 8 + column % step / 8 * 2;
        const std::size_t odd = column % 2;
        switch (bits()) {
            case 4: {
                const std::size_t nibble = format.id == FormatId::nf4 ? pair * 2 + odd : pair + odd * 4;
                return {(s / 4 * lanes + lane) * load + s % 4 * 4 + nibble / 2,
                        static_cast<unsigned>(nibble % 2 * 4)};
            }
            case 8: return {(s / 2 * lanes + lane) * load + s % 2 * 8 + pair * 2 + odd, 0};
            case 16: return {(s * lanes + lane) * load + pair * 4 + odd * 2, 0};
            default: return {((s * 2 + pair / 2) * lanes + lane) * load + pair % 2 * 8 + odd * 4, 0};
        }
    }
    /// Where in a slab the scale of a row and a block of the slab is; its minimum is `minimum_offset()` further on.
    [[nodiscard]] constexpr std::size_t scale_place(std::size_t r, std::size_t block) const noexcept {
        return code_bytes() + r % 8 * lane_header() + block * 4 + r / 8 * 2;
    }
    [[nodiscard]] constexpr std::size_t minimum_offset() const noexcept { return slab_blocks() * 4; }
    /// A code of 4 bits as it is kept, and back: the same function.
    [[nodiscard]] constexpr unsigned kept_nibble(unsigned code) const noexcept {
        return format.id == FormatId::nf4 ? (code & 3u) | (code & 4u) << 1 | (code & 8u) >> 1 : code;
    }

    /// Packs up to 16 rows, which lie `row_bytes` apart as their codec stores them.
    void pack(const std::byte* from, Bytes row_bytes, std::size_t count, std::byte* group) const noexcept {
        clear(group);
        for (std::size_t r = 0; r < count; ++r) {
            const std::byte* row = from + r * row_bytes;
            move_row(r, row, group, [](const std::byte* stored, std::byte* packed, std::size_t bytes) {
                std::memcpy(packed, stored, bytes);
            });
            for_each_nibble(
                r, [&](std::size_t stored, unsigned stored_shift, std::size_t at, unsigned shift) {
                    const unsigned code = std::to_integer<unsigned>(row[stored]) >> stored_shift & 0x0fu;
                    put_nibble(group[at], shift, kept_nibble(code));
                });
        }
    }
    /// Row `r` of a group, as its codec stores it: the inverse of pack().
    void unpack(const std::byte* group, std::size_t r, std::byte* row) const noexcept {
        move_row(r, row, group, [](std::byte* stored, const std::byte* packed, std::size_t bytes) {
            std::memcpy(stored, packed, bytes);
        });
        for_each_nibble(r, [&](std::size_t stored, unsigned stored_shift, std::size_t at, unsigned shift) {
            const unsigned code = std::to_integer<unsigned>(group[at]) >> shift & 0x0fu;
            put_nibble(row[stored], stored_shift, kept_nibble(code));
        });
    }
    friend constexpr bool operator==(const MmaLayout&, const MmaLayout&) = default;

private:
    static void put_nibble(std::byte& at, unsigned shift, unsigned code) noexcept {
        at = (at & static_cast<std::byte>(0xf0u >> shift)) | static_cast<std::byte>(code << shift);
    }
    /// The code of weight 0.
    [[nodiscard]] constexpr unsigned zero_code() const noexcept {
        if (format.id == FormatId::q4_0) return 8;
        return format.id == FormatId::nf4 ? kept_nibble(7) : 0;
    }
    void clear(std::byte* group) const noexcept {
        for (std::size_t s = 0; s < slabs(); ++s, group += slab_bytes()) {
            std::memset(group, static_cast<int>(zero_code() * 0x11u), code_bytes());
            std::memset(group + code_bytes(), 0, slab_bytes() - code_bytes());
        }
    }
    [[nodiscard]] constexpr std::size_t row_header() const noexcept { return has_minimum() ? 4 : 2; }

    /// Calls move(in the stored row, in the group, bytes) for every piece of row r that is whole bytes.
    template <class Stored, class Packed, class Move>
    void move_row(std::size_t r, Stored* row, Packed* group, const Move& move) const noexcept {
        if (dense()) {
            const std::size_t bytes = bits() / 8;
            for (std::size_t k = 0; k < columns; ++k) {
                Packed* slab = group + k / slab_columns() * slab_bytes();
                move(row + k * bytes, slab + code_place(r, k % slab_columns()).byte, bytes);
            }
            return;
        }
        for (std::size_t block = 0; block < ceil_div(columns, format.group); ++block) {
            Stored* stored = row + block * format.group_bytes();
            Packed* slab = group + block / slab_blocks() * slab_bytes();
            const std::size_t scale = scale_place(r, block % slab_blocks());
            move(stored, slab + scale, 2);
            if (has_minimum()) move(stored + 2, slab + scale + minimum_offset(), 2);
            if (bits() != 8) continue;
            const std::size_t first = block % slab_blocks() * format.group;
            for (std::size_t i = 0; i < format.group; i += 2) {  // a pair of neighbours stays one
                move(stored + 2 + i, slab + code_place(r, first + i).byte, 2);
            }
        }
    }
    /// Calls body(byte and shift in the stored row, byte and shift in the group) for every code of 4 bits of row r.
    template <class Body>
    void for_each_nibble(std::size_t r, const Body& body) const noexcept {
        if (bits() != 4) return;
        const std::size_t half = format.group / 2u;
        for (std::size_t block = 0; block < ceil_div(columns, format.group); ++block) {
            const std::size_t stored = block * format.group_bytes() + row_header();
            const std::size_t slab = block / slab_blocks() * slab_bytes();
            const std::size_t first = block % slab_blocks() * format.group;
            for (std::size_t i = 0; i < half; ++i) {
                const Place below = code_place(r, first + i);
                const Place above = code_place(r, first + half + i);
                body(stored + i, 0u, slab + below.byte, below.shift);
                body(stored + i, 4u, slab + above.byte, above.shift);
            }
        }
    }
};

}  // namespace weights
}  // namespace zse::inline v1
