// SPDX-License-Identifier: Apache-2.0
// Encoding and decoding of rows by KV codec, bound once at open: keys and values are instantiated apart.
#pragma once

#include <zse/kernels/cpu/vector.hpp>
#include <zse/kv/codec.hpp>
#include <zse/kv/fp8.hpp>

#include <array>

namespace zse::inline v1 {
namespace kv {

/// ModelSpec allows no longer head.
inline constexpr std::size_t most_head_dim = 1024;

/// The functions of a codec for one instruction set.
struct SideKernels {
    /// A row of float32, turned first where the codec rotates, to codes and scales that lie together.
    void (*encode)(const float* row, std::size_t dim, std::byte* codes, std::byte* scales) noexcept;
    /// The codec's own decode, with no turning back.
    void (*decode)(const std::byte* codes, const std::byte* scales, std::size_t dim, float* row) noexcept;
    /// kv::rotate(), bit for bit; for queries and outputs where the codec rotates.
    void (*rotate)(float* row, std::size_t dim) noexcept;
    bool rotates;
};

}  // namespace kv
}  // namespace zse::inline v1

#define ZSE_ISA_BODY <zse/kv/cpu/encode.inl>
#include <zse/kernels/cpu/for_each_isa.inl>

namespace zse::inline v1 {
namespace kv {

/// The kernels of a codec for an instruction set.
template <KvCodec C>
const SideKernels* side_kernels(kernels::Isa isa) noexcept {
    switch (isa) {
#if defined(__x86_64__)
        case kernels::Isa::avx2: return &avx2::side_kernels<C>;
        case kernels::Isa::avx512: return &avx512::side_kernels<C>;
        case kernels::Isa::avx512_vnni: return &avx512_vnni::side_kernels<C>;
#elif defined(__aarch64__)
        case kernels::Isa::neon: return &neon::side_kernels<C>;
#endif
        default: return &portable::side_kernels<C>;
    }
}

}  // namespace kv
}  // namespace zse::inline v1
