// SPDX-License-Identifier: Apache-2.0
// Binds the kernels of a format once, at open: by the weight policy where it fixes the codec, by the file
// where not.
#pragma once

#include <zse/kernels/cpu/linear.hpp>

namespace zse::inline v1 {
namespace kernels {

/// The kernels for matrices of `format` under the policy, or null where the policy cannot hold that format.
template <class Policy>
const MatrixKernels* bind(weights::Format format) noexcept {
    if constexpr (weights::WeightCodec<Policy>) {
        if (format == Policy::format) return &cpu::matrix_kernels<Policy>;
        if constexpr (requires { typename Policy::Table; }) {
            if (format == Policy::Table::format) return &cpu::matrix_kernels<typename Policy::Table>;
        }
        return nullptr;
    } else {
        const MatrixKernels* found = nullptr;
        weights::visit_codec(format, [&](auto codec) { found = &cpu::matrix_kernels<decltype(codec)>; });
        return found;
    }
}

}  // namespace kernels
}  // namespace zse::inline v1
