// SPDX-License-Identifier: Apache-2.0
// The alphabet of byte-level BPE: 256 printable characters in which vocabularies spell arbitrary bytes.
#pragma once

#include <zse/tokenizer/utf8.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace zse::inline v1 {
namespace tokenizer {
namespace detail {

/// Bytes that print as themselves in Latin-1; the others become U+0100, U+0101, ... in byte order.
constexpr bool prints_as_itself(unsigned byte) noexcept {
    return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

inline constexpr std::size_t alphabet_end = 0x144;  // one past the last code point in use

struct ByteAlphabet {
    std::array<std::uint16_t, 256> code_point{};
    std::array<std::int16_t, alphabet_end> byte{};  // -1: not in the alphabet

    constexpr ByteAlphabet() {
        for (auto& entry : byte) entry = -1;
        unsigned next = 0x100;
        for (unsigned value = 0; value < 256; ++value) {
            const unsigned point = prints_as_itself(value) ? value : next++;
            code_point[value] = static_cast<std::uint16_t>(point);
            byte[point] = static_cast<std::int16_t>(value);
        }
    }
};

inline constexpr ByteAlphabet byte_alphabet{};

}  // namespace detail

/// Appends `bytes` as a byte-level vocabulary spells them (a space as U+0120). Source of the mapping: the
/// GPT-2 encoder, 2019.
inline void append_byte_level(std::string& text, std::string_view bytes) {
    for (const char byte : bytes) {
        append_utf8(text, detail::byte_alphabet.code_point[static_cast<std::uint8_t>(byte)]);
    }
}

/// Appends the bytes that `text` spells; false (with some bytes appended) where it leaves the alphabet.
template <class String>
bool append_spelled_bytes(String& bytes, std::string_view text) {
    for (std::size_t i = 0; i < text.size(); ++i) {
        unsigned point = static_cast<std::uint8_t>(text[i]);
        if (point >= 0x80) {  // the alphabet ends below U+0800: two bytes at most
            if (point < 0xC2 || point > 0xDF || i + 1 == text.size()) return false;
            const unsigned next = static_cast<std::uint8_t>(text[++i]);
            if ((next & 0xC0u) != 0x80u) return false;
            point = ((point & 0x1Fu) << 6) | (next & 0x3Fu);
        }
        if (point >= detail::alphabet_end || detail::byte_alphabet.byte[point] < 0) return false;
        bytes += static_cast<char>(detail::byte_alphabet.byte[point]);
    }
    return true;
}

}  // namespace tokenizer
}  // namespace zse::inline v1
