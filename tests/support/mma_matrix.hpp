// SPDX-License-Identifier: Apache-2.0
// A weight matrix as kernels for a GPU read it, its values as they multiply with it, and activations for it.
#pragma once

#include <zse/weights/mma_packed.hpp>
#include <zse/weights/nf4.hpp>

#include <support/aligned_bytes.hpp>
#include <support/random.hpp>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <type_traits>
#include <vector>

namespace support {

template <class Codec>
class MmaMatrix {
public:
    /// Normally distributed weights of deviation 0.05, with a mean so that a minimum matters.
    MmaMatrix(std::uint32_t rows, std::uint32_t columns, unsigned seed)
        : rows_(rows), columns_(columns), packed_(layout().bytes(rows)) {
        std::vector<float> values = gaussian(std::size_t{rows} * columns, seed, 0.05f);
        for (float& value : values) value += 0.02f;
        const std::size_t row_bytes = Codec::format.row_bytes(columns);
        std::vector<std::byte> stored(rows * row_bytes);
        values_.resize(values.size());
        for (std::size_t r = 0; r < rows; ++r) {
            std::byte* row = stored.data() + r * row_bytes;
            Codec::encode_row(values.data() + r * columns, columns, row);
            decode(row, values_.data() + r * columns);
        }
        for (std::size_t group = 0; group < layout().groups(rows); ++group) {
            const std::size_t first = group * zse::weights::MmaLayout::rows;
            layout().pack(stored.data() + first * row_bytes, row_bytes,
                          std::min<std::size_t>(zse::weights::MmaLayout::rows, rows - first),
                          packed_.data() + group * layout().group_bytes());
        }
    }

    [[nodiscard]] const std::byte* packed() const { return packed_.data(); }
    [[nodiscard]] std::uint32_t rows() const { return rows_; }
    [[nodiscard]] std::uint32_t columns() const { return columns_; }
    [[nodiscard]] double at(std::size_t row, std::size_t column) const {
        return values_[row * columns_ + column];
    }
    /// Sum over columns of weights times x.
    struct Product {
        double sum;
        double square;  ///< sum of the squares of the terms
    };
    [[nodiscard]] Product times(std::size_t row, const float* x) const {
        Product p{};
        for (std::size_t c = 0; c < columns_; ++c) {
            const double term = at(row, c) * x[c];
            p.sum += term;
            p.square += term * term;
        }
        return p;
    }

private:
    [[nodiscard]] zse::weights::MmaLayout layout() const { return {Codec::format, columns_}; }

    /// As the codec decodes it; nf4 in steps of 1/127, which is what kernels multiply with.
    void decode(const std::byte* row, double* values) const {
        std::vector<float> decoded(columns_);
        Codec::decode_row(row, columns_, decoded.data());
        std::copy(decoded.begin(), decoded.end(), values);
        if constexpr (Codec::format.id == zse::weights::FormatId::nf4) {
            for (std::size_t c = 0; c < columns_; ++c) {
                typename Codec::Block block;
                std::memcpy(&block, row + c / Codec::format.group * sizeof block, sizeof block);
                const std::size_t i = c % Codec::format.group;
                const unsigned code =
                    i < Codec::half ? block.nibbles[i] & 15u : block.nibbles[i - Codec::half] >> 4u;
                values[c] = double{static_cast<float>(block.scale)} * zse::weights::nf4_codes[code] / 127;
            }
        }
    }

    std::uint32_t rows_;
    std::uint32_t columns_;
    AlignedBytes packed_;
    std::vector<double> values_;
};

/// Activations `[tokens, columns]`, each token of another size, with their greatest magnitudes.
class FloatRows {
public:
    FloatRows(std::uint32_t tokens, std::uint32_t columns, unsigned seed)
        : columns_(columns), bytes_(std::size_t{tokens} * columns * sizeof(float)), greatest_(tokens) {
        const std::vector<float> values = gaussian(std::size_t{tokens} * columns, seed);
        auto* to = reinterpret_cast<float*>(bytes_.data());
        for (std::size_t t = 0; t < tokens; ++t) {
            float most = 0;
            for (std::size_t c = 0; c < columns; ++c) {
                const float value = values[t * columns + c] * std::exp2(static_cast<float>(t % 7) - 3);
                to[t * columns + c] = value;
                most = std::max(most, std::fabs(value));
            }
            greatest_[t] = std::bit_cast<std::uint32_t>(most);
        }
    }
    [[nodiscard]] const float* data() const { return reinterpret_cast<const float*>(bytes_.data()); }
    [[nodiscard]] const float* row(std::size_t token) const { return data() + token * columns_; }
    [[nodiscard]] const std::uint32_t* greatest() const { return greatest_.data(); }

private:
    std::uint32_t columns_;
    AlignedBytes bytes_;
    std::vector<std::uint32_t> greatest_;
};

/// How far a product of halves may be from the exact one. Both factors of a term are rounded to 11 bits, so each term has
/// two independent errors of up to 2^-11 of it, and their deviation is at most 2^-11 * sqrt(2/3) of a term: five of
/// them for the sum. Sums in float32 err far less.
inline double half_product_error(double square) {
    return 5 * 0x1p-11 * std::sqrt(square * 2 / 3) + 1e-30;
}

}  // namespace support
