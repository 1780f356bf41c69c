// SPDX-License-Identifier: Apache-2.0
// Activations as matrix products read them, with access to each code; and the definition of their codes.
#pragma once

#include <zse/kernels/rows.hpp>

#include <support/aligned_bytes.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

namespace support {

/// A stretch of values in 8 bits, written apart from the kernels: value = scale * code.
struct Quantised {
    std::vector<std::int8_t> codes;
    float scale = 0;
    std::int32_t sum = 0;

    explicit Quantised(std::span<const float> values) {
        float most = 0;
        for (const float value : values) most = std::max(most, std::fabs(value));
        scale = most / 127.0f;
        const float inverse = 1.0f / scale;
        for (const float value : values) {
            const float code = std::isfinite(inverse) ? std::nearbyint(value * inverse) : 0.0f;
            codes.push_back(static_cast<std::int8_t>(std::clamp(code, -127.0f, 127.0f)));
            sum += codes.back();
        }
    }
    [[nodiscard]] float value(std::size_t i) const { return scale * static_cast<float>(codes[i]); }
};

/// `[tokens, columns]` as codes and as floats.
class ActivationRows {
public:
    static constexpr std::size_t block = zse::kernels::CodedActivations::block;

    ActivationRows(std::size_t tokens, std::size_t columns)
        : bytes_(forms.bytes(tokens, columns)), x_(forms.in(bytes_.data(), tokens, tokens, columns)) {}
    /// From float rows, by the kernels of an instruction set.
    ActivationRows(zse::kernels::Isa isa, std::size_t tokens, std::size_t columns, const float* rows)
        : ActivationRows(tokens, columns) {
        std::copy_n(rows, tokens * columns, x_.floats);
        for (std::size_t t = 0; t < tokens; ++t) {
            zse::kernels::row_kernels(isa)->quantise(rows + t * columns, columns, x_.coded(t));
        }
    }

    [[nodiscard]] const zse::kernels::Activations& operator*() const { return x_; }
    [[nodiscard]] const zse::kernels::Activations* operator->() const { return &x_; }
    [[nodiscard]] std::size_t blocks() const { return zse::kernels::CodedActivations::blocks(x_.columns); }
    [[nodiscard]] std::int8_t code(std::size_t token, std::size_t column) const {
        return x_.coded(token).block(column / block).codes[column % block];
    }
    [[nodiscard]] float scale(std::size_t token, std::size_t index) const {
        return *x_.coded(token).block(index).scale;
    }
    [[nodiscard]] std::int32_t sum(std::size_t token, std::size_t index) const {
        return *x_.coded(token).block(index).sum;
    }
    [[nodiscard]] float scaled_sum(std::size_t token, std::size_t index) const {
        return *x_.coded(token).block(index).scaled_sum;
    }
    /// Sets a token's codes to code(column), those beyond the columns to zero, with one scale; floats to their values.
    template <class Code>
    void set(std::size_t token, float scale, const Code& code) {
        for (std::size_t index = 0; index < blocks(); ++index) {
            const zse::kernels::CodedToken to = x_.coded(token).block(index);
            *to.scale = scale;
            *to.sum = 0;
            for (std::size_t i = 0; i < block; ++i) {
                const std::size_t column = index * block + i;
                to.codes[i] = column < x_.columns ? static_cast<std::int8_t>(code(column)) : std::int8_t{0};
                *to.sum += to.codes[i];
                if (column < x_.columns) {
                    x_.floats[token * x_.columns + column] = scale * static_cast<float>(to.codes[i]);
                }
            }
            *to.scaled_sum = scale * static_cast<float>(*to.sum);
        }
    }

private:
    static constexpr zse::kernels::ActivationForms forms{true, true};

    AlignedBytes bytes_;
    zse::kernels::Activations x_;
};

}  // namespace support
