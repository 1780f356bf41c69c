// SPDX-License-Identifier: Apache-2.0
// A digest of many values and bytes, by which two things that should be equal are told apart later.
#pragma once

#include <zse/core/checksum.hpp>

#include <concepts>
#include <string>
#include <string_view>
#include <type_traits>

namespace zse::inline v1 {

/// 128 bits, enough that no two models or settings of this world have the same. No proof against malice.
struct Identity {
    std::uint64_t high = 0;
    std::uint64_t low = 0;
    friend constexpr bool operator==(const Identity&, const Identity&) = default;

    /// The first half in 16 hexadecimal digits, for names of files.
    [[nodiscard]] std::string short_name() const {
        std::string digits;
        for (int shift = 60; shift >= 0; shift -= 4) digits += "0123456789abcdef"[(high >> shift) & 15];
        return digits;
    }
};

/// XXH3 in 128 bits over all that was added, in order.
class Digest {
public:
    Digest() noexcept { XXH3_128bits_reset(&state_); }

    Digest& add(std::span<const std::byte> bytes) noexcept {
        XXH3_128bits_update(&state_, bytes.data(), bytes.size());
        return *this;
    }
    /// With its length, so that texts one after the other are not taken for others.
    Digest& add(std::string_view words) noexcept {
        add(static_cast<std::uint64_t>(words.size()));
        return add(std::as_bytes(std::span(words)));
    }
    template <class T>
    requires std::is_arithmetic_v<T> || std::is_enum_v<T> Digest& add(T value) noexcept {
        return add(std::as_bytes(std::span(&value, 1)));
    }
    [[nodiscard]] Identity identity() const noexcept {
        const XXH128_hash_t hash = XXH3_128bits_digest(&state_);
        return {hash.high64, hash.low64};
    }

private:
    XXH3_state_t state_;
};

}  // namespace zse::inline v1
