// SPDX-License-Identifier: Apache-2.0
// Blocks of weights to vectors of float32, one specialisation a codec; equal to the scalar truth bit for bit.
#pragma once

#include <zse/kernels/cpu/simd.hpp>
#include <zse/weights/as_stored.hpp>

#include <cstring>

namespace zse::inline v1 {
namespace kernels {
namespace HWY_NAMESPACE {

/// Unpack<Codec>::block(bytes, sink) calls sink(first, vector) for each vector of a whole block, in order.
/// `group` is the number of weights in what it unpacks at a time.
template <class Codec>
struct Unpack;

HWY_INLINE VecF half_scale(const std::byte* at) {
    v1::f16 scale;
    std::memcpy(&scale, at, sizeof scale);
    return hn::Set(f32_tag, static_cast<float>(scale));
}

/// `lanes` bytes to int32.
HWY_INLINE hn::Vec<I32> widen_unsigned(const std::uint8_t* bytes) {
    return hn::PromoteTo(I32(), hn::LoadU(hn::Rebind<std::uint8_t, F32>(), bytes));
}
HWY_INLINE hn::Vec<I32> widen_signed(const std::int8_t* bytes) {
    return hn::PromoteTo(I32(), hn::LoadU(hn::Rebind<std::int8_t, F32>(), bytes));
}

/// Vector `first / lanes` of the codes of a block whose byte j holds element j below and element j + half
/// above.
HWY_INLINE hn::Vec<I32> nibbles(const std::uint8_t* bytes, std::size_t first, std::size_t half) {
    const hn::Vec<I32> pair = widen_unsigned(bytes + first % half);
    return first < half ? hn::And(pair, hn::Set(I32(), 0x0f)) : hn::ShiftRight<4>(pair);
}

template <class Codec, class T>
struct UnpackDense {
    // Sixteen values: the longest vector, so that every width walks a row in whole groups.
    static constexpr std::size_t group = 16;
    static constexpr std::size_t bytes = group * sizeof(T);

    template <class Sink>
    static HWY_INLINE void block(const std::byte* at, const Sink& sink) {
#pragma GCC unroll 16
        for (std::size_t first = 0; first < group; first += lanes) {
            sink(first, load(at + first * sizeof(T)));
        }
    }

private:
    static HWY_INLINE VecF load(const std::byte* at) {
        if constexpr (sizeof(T) == sizeof(float)) {
            return hn::LoadU(f32_tag, reinterpret_cast<const float*>(at));
        } else if constexpr (Codec::format.id == weights::FormatId::f16) {
            return hn::PromoteTo(f32_tag, hn::LoadU(hn::Rebind<hwy::float16_t, F32>(),
                                                    reinterpret_cast<const hwy::float16_t*>(at)));
        } else {
            return hn::PromoteTo(f32_tag, hn::LoadU(hn::Rebind<hwy::bfloat16_t, F32>(),
                                                    reinterpret_cast<const hwy::bfloat16_t*>(at)));
        }
    }
};

template <>
struct Unpack<weights::f32> : UnpackDense<weights::f32, float> {};
template <>
struct Unpack<weights::f16> : UnpackDense<weights::f16, v1::f16> {};
template <>
struct Unpack<weights::bf16> : UnpackDense<weights::bf16, v1::bf16> {};

template <class Codec>
struct UnpackSymmetric8 {
    static constexpr std::size_t group = Codec::format.group;
    static constexpr std::size_t bytes = sizeof(typename Codec::Block);

    template <class Sink>
    static HWY_INLINE void block(const std::byte* at, const Sink& sink) {
        const VecF scale = half_scale(at);
        const auto* codes = reinterpret_cast<const std::int8_t*>(at + 2);
#pragma GCC unroll 16
        for (std::size_t first = 0; first < group; first += lanes) {
            sink(first, hn::Mul(scale, hn::ConvertTo(f32_tag, widen_signed(codes + first))));
        }
    }
};

template <>
struct Unpack<weights::q8_0> : UnpackSymmetric8<weights::q8_0> {};
template <std::uint16_t Group>
struct Unpack<weights::int8<Group>> : UnpackSymmetric8<weights::int8<Group>> {};

template <>
struct Unpack<weights::q4_0> {
    static constexpr std::size_t group = 32;
    static constexpr std::size_t bytes = sizeof(weights::q4_0::Block);

    template <class Sink>
    static HWY_INLINE void block(const std::byte* at, const Sink& sink) {
        const VecF scale = half_scale(at);
        const auto* codes = reinterpret_cast<const std::uint8_t*>(at + 2);
#pragma GCC unroll 16
        for (std::size_t first = 0; first < group; first += lanes) {
            const auto steps = hn::Sub(nibbles(codes, first, 16), hn::Set(I32(), 8));
            sink(first, hn::Mul(scale, hn::ConvertTo(f32_tag, steps)));
        }
    }
};

template <>
struct Unpack<weights::q4_1> {
    static constexpr std::size_t group = 32;
    static constexpr std::size_t bytes = sizeof(weights::q4_1::Block);

    template <class Sink>
    static HWY_INLINE void block(const std::byte* at, const Sink& sink) {
        const VecF scale = half_scale(at);
        const VecF minimum = half_scale(at + 2);
        const auto* codes = reinterpret_cast<const std::uint8_t*>(at + 4);
#pragma GCC unroll 16
        for (std::size_t first = 0; first < group; first += lanes) {
            sink(first, hn::MulAdd(hn::ConvertTo(f32_tag, nibbles(codes, first, 16)), scale, minimum));
        }
    }
};

template <std::uint16_t Group>
struct Unpack<weights::nf4<Group>> {
    static constexpr std::size_t group = Group;
    static constexpr std::size_t bytes = sizeof(typename weights::nf4<Group>::Block);

    template <class Sink>
    static HWY_INLINE void block(const std::byte* at, const Sink& sink) {
        const VecF scale = half_scale(at);
        const auto* codes = reinterpret_cast<const std::uint8_t*>(at + 2);
#pragma GCC unroll 16
        for (std::size_t first = 0; first < group; first += lanes) {
            sink(first, hn::Mul(scale, level(nibbles(codes, first, Group / 2))));
        }
    }

private:
    static HWY_INLINE VecF level(hn::Vec<I32> codes) {
        if constexpr (lanes == 16) {  // the whole code book is one register
            return hn::TableLookupLanes(hn::LoadU(f32_tag, weights::nf4_levels.data()),
                                        hn::IndicesFromVec(f32_tag, codes));
        } else {
            return hn::GatherIndex(f32_tag, weights::nf4_levels.data(), codes);
        }
    }
};

}  // namespace HWY_NAMESPACE
}  // namespace kernels
}  // namespace zse::inline v1
