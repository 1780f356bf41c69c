// SPDX-License-Identifier: Apache-2.0
// The packed layout cpu.r16k4: how a weight matrix lies in memory for the processor's kernels, whatever its codec.
#pragma once

#include <zse/weights/format.hpp>

#include <cstddef>
#include <cstring>
#include <string_view>

namespace zse::inline v1 {
namespace weights {

/// Groups of 16 rows follow one another. Within a group of rows, the codes of four consecutive columns of all 16
/// rows are neighbours, 16 * 4 bytes: one 512-bit vector, two of 256 or four of 128 bits. A vector meets the same
/// four activations in every row, so nothing is ever added across lanes, for one token or for many.
///
/// A row's blocks (the columns that share a scale) lie in pairs, each pair with its scales in front:
///
///   [scales of 16 rows | scales, next block] [minima | minima] [codes] [codes, next block]
///
/// so that both parts fill whole cache lines; an odd last block stands alone. Codes of 4 bits keep GGUF's order:
/// a byte holds column j of a block below and column j + block / 2 above. Formats without scales hold columns of
/// 16 values. Each group of rows begins at a multiple of 64 bytes. Packing moves bytes and changes none; rows that
/// fill the last group up are zero.
struct PackedLayout {
    static constexpr std::string_view name = "cpu.r16k4";
    static constexpr std::uint32_t version = 1;  ///< changes with any byte of the layout
    static constexpr std::size_t rows = 16;
    static constexpr std::size_t alignment = 64;

    Format format;
    std::uint32_t columns = 0;

    [[nodiscard]] constexpr bool dense() const noexcept { return format.group == 1; }
    [[nodiscard]] constexpr bool has_minimum() const noexcept { return format.id == FormatId::q4_1; }
    /// Bytes of a block's codes of one row.
    [[nodiscard]] constexpr std::size_t code_bytes() const noexcept {
        return format.group_bytes() - row_header();
    }
    /// Bytes of a block's scale, and minimum if any, of one row.
    [[nodiscard]] constexpr std::size_t row_header() const noexcept { return has_minimum() ? 4 : 2; }
    [[nodiscard]] constexpr std::size_t blocks() const noexcept { return ceil_div(columns, format.group); }
    /// Bytes of the scales, and minima if any, of one block of 16 rows.
    [[nodiscard]] constexpr std::size_t header() const noexcept { return rows * row_header(); }

    /// Bytes of a group of 16 rows.
    [[nodiscard]] constexpr Bytes group_bytes() const noexcept {
        const Bytes bytes = dense() ? saturating_mul(rows * format.group_bytes(), round_up(columns, 4u))
                                    : saturating_mul(rows * format.group_bytes(), blocks());
        return round_up(bytes, alignment);
    }
    [[nodiscard]] constexpr std::uint64_t groups(std::uint64_t matrix_rows) const noexcept {
        return ceil_div(matrix_rows, rows);
    }
    /// Bytes of a matrix of `matrix_rows` rows.
    [[nodiscard]] constexpr Bytes bytes(std::uint64_t matrix_rows) const noexcept {
        return saturating_mul(groups(matrix_rows), group_bytes());
    }

    /// Where the parts of a block begin in its group of rows.
    struct Place {
        std::size_t scales, minima, codes;
    };
    [[nodiscard]] constexpr Place place(std::size_t block) const noexcept {
        const std::size_t pair = block / 2 * 2;
        const std::size_t which = block % 2;
        const std::size_t together = pair + 1 < blocks() ? 2 : 1;
        const std::size_t first = pair * rows * format.group_bytes();
        const std::size_t scales = 2 * rows;  // bytes of 16 half-precision scales
        return {first + which * scales, first + (together + which) * scales,
                first + together * header() + which * rows * code_bytes()};
    }

    /// Packs up to 16 rows, which lie `row_bytes` apart as their codec stores them.
    void pack(const std::byte* from, Bytes row_bytes, std::size_t count, std::byte* group) const noexcept {
        if (count < rows || dense() || blocks() % 2 != 0) std::memset(group, 0, group_bytes());
        for (std::size_t r = 0; r < count; ++r) {
            const std::byte* row = from + r * row_bytes;
            for_each_piece(r, [&](std::size_t stored, std::size_t packed, std::size_t bytes) {
                std::memcpy(group + packed, row + stored, bytes);
            });
        }
    }
    /// Row `r` of a group, as its codec stores it: the inverse of pack().
    void unpack(const std::byte* group, std::size_t r, std::byte* row) const noexcept {
        for_each_piece(r, [&](std::size_t stored, std::size_t packed, std::size_t bytes) {
            std::memcpy(row + stored, group + packed, bytes);
        });
    }
    /// The same for one block of row `r`, of a format with scales.
    void unpack_block(const std::byte* group, std::size_t r, std::size_t block,
                      std::byte* stored) const noexcept {
        for_each_piece_of_block(r, block, [&](std::size_t offset, std::size_t packed, std::size_t bytes) {
            std::memcpy(stored + offset, group + packed, bytes);
        });
    }
    friend constexpr bool operator==(const PackedLayout&, const PackedLayout&) = default;

private:
    /// Calls body(offset in the stored row, offset in the group, bytes) for every piece of row r.
    template <class Body>
    constexpr void for_each_piece(std::size_t r, const Body& body) const noexcept {
        if (!dense()) {
            for (std::size_t block = 0; block < blocks(); ++block) {
                const std::size_t stored = block * format.group_bytes();
                for_each_piece_of_block(r, block,
                                        [&](std::size_t offset, std::size_t packed, std::size_t bytes) {
                                            body(stored + offset, packed, bytes);
                                        });
            }
        } else if (format.group_bytes() == 2) {  // constant sizes let copies become moves
            for (std::size_t k = 0; k < columns; ++k) body(k * 2, (k * rows + r) * 2, std::size_t{2});
        } else {
            for (std::size_t k = 0; k < columns; ++k) body(k * 4, (k * rows + r) * 4, std::size_t{4});
        }
    }
    template <class Body>
    constexpr void for_each_piece_of_block(std::size_t r, std::size_t block,
                                           const Body& body) const noexcept {
        const Place at = place(block);
        body(std::size_t{0}, at.scales + r * 2, std::size_t{2});
        if (has_minimum()) body(std::size_t{2}, at.minima + r * 2, std::size_t{2});
        for (std::size_t word = 0; word < code_bytes() / 4; ++word) {
            body(row_header() + word * 4, at.codes + (word * rows + r) * 4, std::size_t{4});
        }
    }
};

}  // namespace weights
}  // namespace zse::inline v1
