// SPDX-License-Identifier: Apache-2.0
// One value of a key or value in a page, of any codec: slow, and easy to see to be right.
#pragma once

#include <zse/kv/cuda/kind.hpp>
#include <zse/kv/page.hpp>

#include <zse/exec/cuda/thread.hpp>

namespace zse::inline v1 {
namespace kv {
namespace cuda {

namespace detail {

/// Value i of a token, in the basis in which it was coded. `code(o)` is the address of byte o of its codes, `scale` that
/// of the scale of i.
template <class C, class T, class Code>
ZSE_DEVICE float element(T& t, unsigned i, const Code& code, const std::byte* scale) {
    if constexpr (kind<C> == Kind::f32) {
        return *reinterpret_cast<const float*>(code(4 * i));
    } else if constexpr (kind<C> == Kind::f16) {
        return t.low(*reinterpret_cast<const std::uint16_t*>(code(2 * i)));
    } else {
        const float factor = t.low(*reinterpret_cast<const std::uint16_t*>(scale));
        constexpr auto group = static_cast<unsigned>(C::group);
        if constexpr (kind<C> == Kind::fp8) {
            return factor * t.low(t.e4m3_to_halves(static_cast<std::uint8_t>(*code(i))));
        } else if constexpr (kind<C> == Kind::int8) {
            return factor * static_cast<float>(static_cast<std::int8_t>(*code(i)));
        } else {
            const unsigned place = i % group;
            const auto byte = static_cast<unsigned>(*code(i / group * (group / 2) + place % (group / 2)));
            const unsigned nibble = place < group / 2 ? byte & 0x0fu : byte >> 4;
            return factor * (static_cast<float>(nibble) - 8.0f);
        }
    }
}

}  // namespace detail

/// Value i of the key in `slot` of a page, whose first byte for this key head is `head`.
template <class K, class T>
ZSE_DEVICE float key_element(T& t, const PageLayout& layout, const std::byte* head, unsigned slot,
                             unsigned i) {
    constexpr auto piece = static_cast<unsigned>(K::piece);
    const auto code = [&](unsigned offset) {
        return head + (static_cast<std::size_t>(offset / piece) * layout.page_tokens + slot) * piece +
               offset % piece;
    };
    const std::size_t scale = static_cast<std::size_t>(i / K::group) * layout.page_tokens + slot;
    return detail::element<K>(t, i, code, head + layout.k_scales_at() + scale * PageLayout::scale_piece);
}
/// The same of a value.
template <class V, class T>
ZSE_DEVICE float value_element(T& t, const PageLayout& layout, const std::byte* head, unsigned slot,
                               unsigned i) {
    const std::byte* codes = head + layout.v_codes_at() + static_cast<std::size_t>(slot) * layout.v_code;
    const std::size_t scale = static_cast<std::size_t>(i / V::group) * layout.page_tokens + slot;
    return detail::element<V>(
        t, i, [&](unsigned offset) { return codes + offset; },
        head + layout.v_scales_at() + scale * PageLayout::scale_piece);
}

}  // namespace cuda
}  // namespace kv
}  // namespace zse::inline v1
