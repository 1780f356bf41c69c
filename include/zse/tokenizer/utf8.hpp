// SPDX-License-Identifier: Apache-2.0
// UTF-8: where a text stops being valid, and how long a character that has begun may still become.
#pragma once

#include <zse/core/version.hpp>

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace zse::inline v1 {
namespace tokenizer {

/// What the bytes at the start of a text are, after the table of well-formed sequences in the Unicode
/// standard (table 3-7): overlong forms, surrogates and values above U+10FFFF are ill-formed.
struct Utf8Step {
    enum class Kind {
        whole,    ///< one character of `length` bytes
        broken,   ///< `length` bytes that no continuation can make valid (a maximal subpart: one U+FFFD)
        partial,  ///< the text ends inside a character of which `length` bytes are there
    };
    Kind kind;
    std::size_t length;
};

/// Classifies the first character of `bytes`, which must not be empty.
constexpr Utf8Step utf8_step(std::string_view bytes) noexcept {
    const auto at = [bytes](std::size_t i) { return static_cast<std::uint8_t>(bytes[i]); };
    const std::uint8_t lead = at(0);
    if (lead < 0x80) return {Utf8Step::Kind::whole, 1};
    if (lead < 0xC2 || lead > 0xF4) return {Utf8Step::Kind::broken, 1};

    const std::size_t length = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
    // Only the second byte has a range that depends on the lead.
    std::uint8_t low = 0x80;
    std::uint8_t high = 0xBF;
    if (lead == 0xE0) low = 0xA0;
    if (lead == 0xED) high = 0x9F;
    if (lead == 0xF0) low = 0x90;
    if (lead == 0xF4) high = 0x8F;
    for (std::size_t i = 1; i < length; ++i) {
        if (i == bytes.size()) return {Utf8Step::Kind::partial, i};
        if (at(i) < low || at(i) > high) return {Utf8Step::Kind::broken, i};
        low = 0x80;
        high = 0xBF;
    }
    return {Utf8Step::Kind::whole, length};
}

/// Byte offset of the first ill-formed or incomplete sequence; npos where the text is valid.
constexpr std::size_t find_invalid_utf8(std::string_view text) noexcept {
    std::size_t offset = 0;
    while (offset < text.size()) {
        const Utf8Step step = utf8_step(text.substr(offset));
        if (step.kind != Utf8Step::Kind::whole) return offset;
        offset += step.length;
    }
    return std::string_view::npos;
}

/// U+FFFD, which stands for bytes that are no text.
inline constexpr std::string_view replacement_character = "\xEF\xBF\xBD";

/// Appends a code point of at most U+FFFF that is no surrogate.
inline void append_utf8(std::string& text, std::uint32_t code_point) {
    if (code_point < 0x80) {
        text += static_cast<char>(code_point);
    } else if (code_point < 0x800) {
        text += static_cast<char>(0xC0 | (code_point >> 6));
        text += static_cast<char>(0x80 | (code_point & 0x3F));
    } else {
        text += static_cast<char>(0xE0 | (code_point >> 12));
        text += static_cast<char>(0x80 | ((code_point >> 6) & 0x3F));
        text += static_cast<char>(0x80 | (code_point & 0x3F));
    }
}

}  // namespace tokenizer
}  // namespace zse::inline v1
