// SPDX-License-Identifier: Apache-2.0
// A weight matrix as an engine holds it, made from rows of floats, which are coded, packed and shared out to parts.
#pragma once

#include <zse/kernels/bind.hpp>

#include <support/aligned_bytes.hpp>

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

namespace support {

/// A weight codec by its functions, so that a test can loop over codecs.
struct Codec {
    zse::weights::Format format;
    void (*encode)(const float*, std::size_t, std::byte*) noexcept;
    void (*decode)(const std::byte*, std::size_t, float*) noexcept;
    const zse::kernels::MatrixKernels* (*kernels)(zse::kernels::Isa) noexcept;
};

template <class C>
Codec codec() {
    return {C::format, &C::encode_row, &C::decode_row, &zse::kernels::matrix_kernels<C>};
}

class PackedMatrix {
public:
    /// From `[rows, columns]` values.
    PackedMatrix(const Codec& codec, std::uint32_t rows, std::uint32_t columns, const float* values,
                 std::uint32_t parts = 1)
        : PackedMatrix(codec, rows, columns, encoded(codec, rows, columns, values), parts) {}
    /// From rows as the codec stores them.
    PackedMatrix(const Codec& codec, std::uint32_t rows, std::uint32_t columns, std::vector<std::byte> stored,
                 std::uint32_t parts = 1)
        : codec_(codec), stored_(std::move(stored)) {
        matrix_.rows = rows;
        matrix_.columns = columns;
        matrix_.format = codec.format;
        matrix_.part_count = parts;
        const auto layout = matrix_.layout();
        for (std::size_t part = 0; part < parts; ++part) {
            parts_.emplace_back(matrix_.part_bytes(part));
            const std::size_t first = matrix_.first_group(part);
            for (std::size_t group = first; group < matrix_.first_group(part + 1); ++group) {
                const std::size_t row = group * layout.rows;
                layout.pack(this->stored(row), row_bytes(), std::min<std::size_t>(layout.rows, rows - row),
                            parts_.back().data() + (group - first) * layout.group_bytes());
            }
            pointers_.push_back(parts_.back().data());
        }
    }
    PackedMatrix(const PackedMatrix&) = delete;
    PackedMatrix& operator=(const PackedMatrix&) = delete;
    PackedMatrix(PackedMatrix&&) = default;

    /// The matrix with the kernels of an instruction set; it points into this.
    [[nodiscard]] zse::kernels::Matrix on(zse::kernels::Isa isa) const {
        zse::kernels::Matrix matrix = matrix_;
        matrix.parts = pointers_.data();
        matrix.kernels = codec_.kernels(isa);
        return matrix;
    }
    /// A row as the codec stores it.
    [[nodiscard]] const std::byte* stored(std::size_t row) const {
        return stored_.data() + row * row_bytes();
    }
    /// All rows as the codec decodes them.
    [[nodiscard]] std::vector<float> decoded() const {
        std::vector<float> values(std::size_t{matrix_.rows} * matrix_.columns);
        for (std::size_t r = 0; r < matrix_.rows; ++r) {
            codec_.decode(stored(r), matrix_.columns, values.data() + r * matrix_.columns);
        }
        return values;
    }

private:
    static std::vector<std::byte> encoded(const Codec& codec, std::size_t rows, std::size_t columns,
                                          const float* values) {
        const std::size_t row_bytes = codec.format.row_bytes(columns);
        std::vector<std::byte> stored(rows * row_bytes);
        for (std::size_t r = 0; r < rows; ++r) {
            codec.encode(values + r * columns, columns, stored.data() + r * row_bytes);
        }
        return stored;
    }
    [[nodiscard]] std::size_t row_bytes() const { return codec_.format.row_bytes(matrix_.columns); }

    Codec codec_;
    zse::kernels::Matrix matrix_;
    std::vector<std::byte> stored_;
    std::vector<AlignedBytes> parts_;
    std::vector<const std::byte*> pointers_;
};

}  // namespace support
