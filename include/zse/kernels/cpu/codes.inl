// SPDX-License-Identifier: Apache-2.0
// Codes to factors for one instruction set. See codes.hpp.
namespace zse::inline v1 {
namespace kernels {
namespace ZSE_ISA {

/// Blocks of Group codes of one row, four neighbouring codes (or, with nibbles, four low and four high ones) to a
/// word; words of the same place of all rows are neighbours, and words of a row lie `stride` bytes apart. Nibbles
/// hold column j below and j + Group / 2 above.
template <class Sum, std::size_t Group, bool Nibbles>
struct Factors {
    /// Columns that are multiplied before their sum meets its scale.
    static constexpr std::size_t columns = Group < 32 ? Group : 32;
    static constexpr std::size_t steps = columns / 4;
    static constexpr std::size_t parts = Group / columns;

    /// Columns [columns * part, + columns) of a block whose first word is at `codes`. With `table`, codes stand for
    /// its entries.
    ZSE_INLINE static void unpack(const std::byte* codes, std::size_t stride, std::size_t part,
                                  typename Sum::Weights* w, const std::int8_t* table = nullptr) {
        if constexpr (!Nibbles) {
#pragma GCC unroll 8
            for (std::size_t s = 0; s < steps; ++s) {
                w[s] = Sum::weights(load_codes(codes + (part * steps + s) * stride));
            }
        } else if constexpr (parts == 1) {
#pragma GCC unroll 4
            for (std::size_t s = 0; s < steps / 2; ++s) {
                const Codes both = load_codes(codes + s * stride);
                w[s] = Sum::weights(meaning(low_nibbles(both), table));
                w[s + steps / 2] = Sum::weights(meaning(high_nibbles(both), table));
            }
        } else {
            const bool low = part < parts / 2;
            const std::byte* at = codes + (low ? part : part - parts / 2) * steps * stride;
#pragma GCC unroll 8
            for (std::size_t s = 0; s < steps; ++s) {
                const Codes both = load_codes(at + s * stride);
                w[s] = Sum::weights(meaning(low ? low_nibbles(both) : high_nibbles(both), table));
            }
        }
    }

private:
    ZSE_INLINE static Codes meaning(Codes c, const std::int8_t* table) {
        return table == nullptr ? c : look_up(c, table);
    }
};

}  // namespace ZSE_ISA
}  // namespace kernels
}  // namespace zse::inline v1
