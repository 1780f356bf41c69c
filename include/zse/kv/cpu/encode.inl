// SPDX-License-Identifier: Apache-2.0
// Encoding of keys and values for one instruction set, bit for bit as the codecs' own encode. See kv/kernels.hpp.
namespace zse::inline v1 {
namespace kv {
namespace ZSE_ISA {

namespace simd = kernels::ZSE_ISA;

/// What has no vector form goes through the codec itself.
template <class C>
struct Encode {
    static void row(const float* from, std::size_t dim, std::byte* codes, std::byte* scales) noexcept {
        C::encode(from, dim, codes, scales);
    }
};

template <>
struct Encode<f16> {
    static void row(const float* from, std::size_t dim, std::byte* codes, std::byte* scales) noexcept {
        std::size_t i = 0;
        for (; i + simd::lanes <= dim; i += simd::lanes) simd::store_f16(codes + i * 2, simd::load(from + i));
        f16::encode(from + i, dim - i, codes + i * 2, scales);
    }
};

template <std::size_t Group>
struct Encode<int8<Group>> {
    static void row(const float* from, std::size_t dim, std::byte* codes, std::byte* scales) noexcept {
        for (std::size_t g = 0; g < dim / Group; ++g) {
            simd::Vec most = simd::zero();
            for (std::size_t i = 0; i < Group; i += simd::lanes) {
                most = simd::max(most, simd::abs(simd::load(from + g * Group + i)));
            }
            const float scale = detail::store_scale(scales, g, simd::greatest(most) / 127.0f);
            const simd::Vec inverse = simd::broadcast(scale > 0 ? 1.0f / scale : 0.0f);
            for (std::size_t i = 0; i < Group; i += simd::lanes) {
                simd::store_s8(reinterpret_cast<std::int8_t*>(codes) + g * Group + i,
                               simd::code_of(simd::load(from + g * Group + i), inverse));
            }
        }
    }
};

template <class C>
void encode(const float* row, std::size_t dim, std::byte* codes, std::byte* scales) noexcept {
    if constexpr (C::rotates) {
        float turned[most_head_dim];
        std::memcpy(turned, row, dim * sizeof(float));
        rotate(turned, dim);
        Encode<C>::row(turned, dim, codes, scales);
    } else {
        Encode<C>::row(row, dim, codes, scales);
    }
}

template <class C>
inline constexpr SideKernels side_kernels{&encode<C>, &C::decode, C::rotates};

}  // namespace ZSE_ISA
}  // namespace kv
}  // namespace zse::inline v1
