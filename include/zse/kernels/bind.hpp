// SPDX-License-Identifier: Apache-2.0
// Binds the kernels of a format and an instruction set once, at open: by the weight policy where it fixes the codec,
// by the file where not.
#pragma once

#include <zse/kernels/cpu/linear.hpp>

namespace zse::inline v1 {
namespace kernels {

/// The kernels of one codec for an instruction set.
template <class Codec>
const MatrixKernels* matrix_kernels(Isa isa) noexcept {
    switch (isa) {
#if defined(__x86_64__)
        case Isa::avx2: return &avx2::matrix_kernels<Codec>;
        case Isa::avx512: return &avx512::matrix_kernels<Codec>;
        case Isa::avx512_vnni: return &avx512_vnni::matrix_kernels<Codec>;
#elif defined(__aarch64__)
        case Isa::neon: return &neon::matrix_kernels<Codec>;
#endif
        default: return &portable::matrix_kernels<Codec>;
    }
}

/// The kernels for matrices of `format` under the policy, or null where the policy cannot hold that format.
template <class Policy>
const MatrixKernels* bind(weights::Format format, Isa isa) noexcept {
    if constexpr (weights::WeightCodec<Policy>) {
        if (format == Policy::format) return matrix_kernels<Policy>(isa);
        if constexpr (requires { typename Policy::Table; }) {
            if (format == Policy::Table::format) return matrix_kernels<typename Policy::Table>(isa);
        }
        return nullptr;
    } else {
        const MatrixKernels* found = nullptr;
        weights::visit_codec(format, [&](auto codec) { found = matrix_kernels<decltype(codec)>(isa); });
        return found;
    }
}

}  // namespace kernels
}  // namespace zse::inline v1
