// SPDX-License-Identifier: Apache-2.0
// The KV codecs' encoders on a GPU: a warp codes one token of one head.
#pragma once

#include <zse/kv/cuda/kind.hpp>
#include <zse/kv/cuda/warp_row.hpp>
#include <zse/kv/page.hpp>

#include <array>

namespace zse::inline v1 {
namespace kv {
namespace cuda {

/// Where the codes and scales of one token lie. Offset o of its codes is at o / piece * piece_stride + o % piece.
struct TokenPlace {
    std::byte* codes = nullptr;
    std::byte* scales = nullptr;
    std::size_t piece_stride = 0;
    std::size_t scale_stride = 0;

    static constexpr TokenPlace key(const PageLayout& layout, std::byte* head, std::size_t slot) noexcept {
        return {head + slot * layout.k_piece, head + layout.k_scales_at() + slot * PageLayout::scale_piece,
                static_cast<std::size_t>(layout.k_piece) * layout.page_tokens,
                layout.page_tokens * PageLayout::scale_piece};
    }
    /// The codes of a value lie together: pieces of `piece` bytes, one after the other.
    static constexpr TokenPlace value(const PageLayout& layout, std::byte* head, std::size_t slot,
                                      std::size_t piece) noexcept {
        return {head + layout.v_codes_at() + slot * layout.v_code,
                head + layout.v_scales_at() + slot * PageLayout::scale_piece, piece,
                layout.page_tokens * PageLayout::scale_piece};
    }
};

namespace detail {

/// Combines what the values of each group of a row have: all of a group get the result.
template <unsigned Group, unsigned Registers, class T, class V, class Op>
ZSE_DEVICE void reduce_groups(T& t, V (&v)[Registers], Op op) {
    constexpr unsigned lanes = exec::gpu::warp_threads;
    ZSE_UNROLL
    for (unsigned j = 0; j < Registers; ++j) {
        ZSE_UNROLL
        for (unsigned mask = 1; mask < Group && mask < lanes; mask *= 2)
            v[j] = op(v[j], t.shuffle_xor(v[j], mask));
    }
    ZSE_UNROLL
    for (unsigned apart = 1; apart * lanes < Group; apart *= 2) {
        ZSE_UNROLL
        for (unsigned j = 0; j + apart < Registers; ++j) {
            if ((j & apart) != 0) continue;
            v[j] = op(v[j], v[j + apart]);
            v[j + apart] = v[j];
        }
    }
}

/// A function of its own, and not a constant one: nvcc 13.0 fails where it tries to fold this.
ZSE_DEVICE inline float float_of(std::uint32_t bits) {
    return __builtin_bit_cast(float, bits);
}
ZSE_DEVICE constexpr float clamped(float v, float least, float most) {
    const float raised = v < least ? least : v;
    return raised > most ? most : raised;
}

/// A scale as it is stored, and what a reader will see: as kv::detail::store_scale().
struct StoredScale {
    std::uint16_t bits;
    bool finite;
    float value;
    float inverse;

    template <class T>
    ZSE_DEVICE static StoredScale of(T& t, float scale) {
        constexpr std::uint32_t infinity = 0x7c00;
        constexpr std::uint16_t no_number = 0x7e00;
        const std::uint32_t half = t.to_halves(scale, 0.0f) & 0xffffu;
        const bool finite = (half & infinity) != infinity;
        const float value = t.low(half);
        return {finite ? static_cast<std::uint16_t>(half) : no_number, finite, value,
                finite && value != 0 ? 1.0f / value : 0.0f};
    }
};

/// The codec's choice of a scale for each group, as a float.
template <class C, unsigned Registers, class T>
ZSE_DEVICE void choose_scales(T& t, const WarpRow<Registers>& row, float (&scales)[Registers]) {
    constexpr auto group = static_cast<unsigned>(C::group);
    std::uint32_t most[Registers];
    ZSE_UNROLL
    for (unsigned j = 0; j < Registers; ++j) {
        // As integers: in their order what is no number comes after infinity.
        most[j] = __builtin_bit_cast(std::uint32_t, row.values[j]) & 0x7fffffffu;
    }
    reduce_groups<group>(t, most, exec::gpu::Greatest{});
    if constexpr (kind<C> == Kind::int4) {
        // int4::fitted_scale(): sums of whole numbers, which no order changes.
        float above[Registers];
        float sign[Registers];
        float whole[Registers];
        float best[Registers];
        float fitted[Registers];
        ZSE_UNROLL
        for (unsigned j = 0; j < Registers; ++j) above[j] = row.values[j];
        reduce_groups<group>(t, above, exec::gpu::Greatest{});
        ZSE_UNROLL
        for (unsigned j = 0; j < Registers; ++j) {
            const float greatest = float_of(most[j]);
            sign[j] = above[j] == greatest ? -1.0f : 1.0f;
            whole[j] = t.nearest(row.values[j] * (sign[j] * (C::grid / greatest)));
            best[j] = -1;
            fitted[j] = 0;
        }
        constexpr auto candidates = std::to_array(C::candidates);
        ZSE_UNROLL
        for (unsigned c = 0; c < candidates.size(); ++c) {
            float products[Registers];
            float squares[Registers];
            ZSE_UNROLL
            for (unsigned j = 0; j < Registers; ++j) {
                const float step = clamped(t.nearest(whole[j] * (candidates[c] / C::grid)), -8.0f, 7.0f);
                products[j] = whole[j] * step;
                squares[j] = step * step;
            }
            reduce_groups<group>(t, products, exec::gpu::Sum{});
            reduce_groups<group>(t, squares, exec::gpu::Sum{});
            ZSE_UNROLL
            for (unsigned j = 0; j < Registers; ++j) {
                C::take_better(products[j], squares[j], best[j], fitted[j]);
            }
        }
        ZSE_UNROLL
        for (unsigned j = 0; j < Registers; ++j) {
            const float greatest = float_of(most[j]);
            constexpr std::uint32_t infinity = 0x7f800000;
            scales[j] = fitted[j] * (sign[j] * (greatest / C::grid));
            if (greatest < C::least) scales[j] = 0;
            if (most[j] >= infinity) scales[j] = greatest;
        }
    } else {
        constexpr float greatest_code = kind<C> == Kind::fp8 ? e4m3::greatest : 127.0f;
        ZSE_UNROLL
        for (unsigned j = 0; j < Registers; ++j) scales[j] = float_of(most[j]) / greatest_code;
    }
}

/// The code of one value: a byte, or for int4 the lower half of one.
template <class C, class T>
ZSE_DEVICE std::uint32_t code(T& t, float value, const StoredScale& scale) {
    if constexpr (kind<C> == Kind::fp8) {
        return scale.finite ? e4m3(value * scale.inverse).bits : e4m3::no_number;
    } else if constexpr (kind<C> == Kind::int8) {
        const float step = clamped(t.nearest(value * scale.inverse), -127.0f, 127.0f);
        return scale.finite ? static_cast<std::uint32_t>(static_cast<std::int32_t>(step)) & 0xffu : 0u;
    } else {
        const float step = clamped(t.nearest(value * scale.inverse), -8.0f, 7.0f);
        return scale.finite ? static_cast<std::uint32_t>(step + 8.0f) : 0u;
    }
}

}  // namespace detail

/// C::encode() of a row of `dim` values, bit for bit: a row that has been turned where the codec rotates.
template <class C, unsigned Registers, class T>
ZSE_DEVICE void encode(T& t, const WarpRow<Registers>& row, unsigned dim, const TokenPlace& place) {
    constexpr auto piece = static_cast<unsigned>(C::piece);
    const auto at = [&](unsigned offset) {
        return place.codes + offset / piece * place.piece_stride + offset % piece;
    };
    if constexpr (!has_scales<C>) {
        ZSE_UNROLL
        for (unsigned j = 0; j < Registers; ++j) {
            const unsigned i = row.index(t.lane(), j);
            if (i >= dim) continue;
            if constexpr (kind<C> == Kind::f32) {
                *reinterpret_cast<float*>(at(4 * i)) = row.values[j];
            } else {
                const auto half = static_cast<std::uint16_t>(t.to_halves(row.values[j], 0.0f));
                *reinterpret_cast<std::uint16_t*>(at(2 * i)) = half;
            }
        }
    } else {
        constexpr auto group = static_cast<unsigned>(C::group);
        constexpr unsigned lanes = exec::gpu::warp_threads;
        float scales[Registers];
        detail::choose_scales<C>(t, row, scales);
        std::uint32_t codes[Registers];
        ZSE_UNROLL
        for (unsigned j = 0; j < Registers; ++j) {
            const auto scale = detail::StoredScale::of(t, scales[j]);
            const unsigned i = row.index(t.lane(), j);
            codes[j] = detail::code<C>(t, row.values[j], scale);
            if (i < dim && i % group == 0) {
                *reinterpret_cast<std::uint16_t*>(place.scales + i / group * place.scale_stride) = scale.bits;
            }
        }
        if constexpr (kind<C> == Kind::int4) {
            // A byte holds a value and the one half a group further.
            constexpr unsigned half = group / 2;
            std::uint32_t above[Registers];
            ZSE_UNROLL
            for (unsigned j = 0; j < Registers; ++j) {
                if constexpr (half < lanes) {
                    above[j] = t.shuffle_xor(codes[j], half);
                } else {
                    above[j] = codes[j + half / lanes < Registers ? j + half / lanes : j];
                }
            }
            ZSE_UNROLL
            for (unsigned j = 0; j < Registers; ++j) {
                const unsigned i = row.index(t.lane(), j);
                if (i >= dim || i % group >= half) continue;
                *at(i / group * half + i % group) = static_cast<std::byte>(codes[j] | above[j] << 4);
            }
        } else {
            ZSE_UNROLL
            for (unsigned j = 0; j < Registers; ++j) {
                const unsigned i = row.index(t.lane(), j);
                if (i < dim) *at(i) = static_cast<std::byte>(codes[j]);
            }
        }
    }
}

}  // namespace cuda
}  // namespace kv
}  // namespace zse::inline v1
