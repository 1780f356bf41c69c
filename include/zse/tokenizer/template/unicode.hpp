// SPDX-License-Identifier: Apache-2.0
// Python's view of text: a string is code points, whitespace is Unicode's, and case maps beyond ASCII.
// A byte that is no valid UTF-8 passes for one character of its own.
#pragma once

#include <zse/tokenizer/template/case_table.hpp>
#include <zse/tokenizer/utf8.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

namespace zse::inline v1 {
namespace tokenizer::jinja::detail {

/// Bytes of the first character of a text that is not empty.
inline std::size_t character_size(std::string_view text) noexcept {
    const Utf8Step step = utf8_step(text);
    return step.kind == Utf8Step::Kind::whole ? step.length : 1;
}

/// The first code point; a byte that is no text gives a value beyond Unicode.
inline std::uint32_t code_point(std::string_view text) noexcept {
    const auto at = [text](std::size_t i) {
        return static_cast<std::uint32_t>(static_cast<std::uint8_t>(text[i]));
    };
    switch (utf8_step(text).kind == Utf8Step::Kind::whole ? utf8_step(text).length : 0) {
        case 1: return at(0);
        case 2: return (at(0) & 0x1F) << 6 | (at(1) & 0x3F);
        case 3: return (at(0) & 0x0F) << 12 | (at(1) & 0x3F) << 6 | (at(2) & 0x3F);
        case 4: return (at(0) & 0x07) << 18 | (at(1) & 0x3F) << 12 | (at(2) & 0x3F) << 6 | (at(3) & 0x3F);
        default: return 0x110000 + at(0);
    }
}

/// Appends any code point of Unicode.
inline void append_code_point(std::string& text, std::uint32_t value) {
    if (value < 0x10000) {
        append_utf8(text, value);
        return;
    }
    text += static_cast<char>(0xF0 | (value >> 18));
    text += static_cast<char>(0x80 | ((value >> 12) & 0x3F));
    text += static_cast<char>(0x80 | ((value >> 6) & 0x3F));
    text += static_cast<char>(0x80 | (value & 0x3F));
}

inline bool is_ascii(std::string_view text) noexcept {
    return std::all_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

inline std::size_t count_characters(std::string_view text) noexcept {
    if (is_ascii(text)) return text.size();
    std::size_t count = 0;
    for (; !text.empty(); text.remove_prefix(character_size(text))) ++count;
    return count;
}

/// Where each character begins, and the size of the text at the end.
inline std::vector<std::size_t> character_offsets(std::string_view text) {
    std::vector<std::size_t> offsets;
    for (std::size_t i = 0; i < text.size(); i += character_size(text.substr(i))) offsets.push_back(i);
    offsets.push_back(text.size());
    return offsets;
}

/// What str.isspace() holds for.
inline bool is_space(std::uint32_t c) noexcept {
    return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
           c == 0x3000;
}

/// Where str.splitlines() splits.
inline bool is_line_end(std::uint32_t c) noexcept {
    return (c >= 0x0A && c <= 0x0D) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 || c == 0x2029;
}

/// Bytes of the whitespace at the start.
inline std::size_t leading_space(std::string_view text) noexcept {
    std::size_t size = 0;
    while (size < text.size() && is_space(code_point(text.substr(size)))) {
        size += character_size(text.substr(size));
    }
    return size;
}

/// Where the last character of a text that is not empty begins.
inline std::size_t last_character(std::string_view text) noexcept {
    const std::size_t most = std::min<std::size_t>(text.size(), 4);
    for (std::size_t size = most; size > 1; --size) {
        const std::string_view tail = text.substr(text.size() - size);
        const Utf8Step step = utf8_step(tail);
        if (step.kind == Utf8Step::Kind::whole && step.length == size) return text.size() - size;
    }
    return text.size() - 1;
}

inline std::string_view strip_right(std::string_view text) noexcept {
    while (!text.empty()) {
        const std::size_t last = last_character(text);
        if (!is_space(code_point(text.substr(last)))) break;
        text = text.substr(0, last);
    }
    return text;
}

inline std::string_view strip_left(std::string_view text) noexcept {
    return text.substr(leading_space(text));
}

/// First place of `needle` at or after `from`; npos where there is none. memmem is linear, whatever comes
/// from outside; std::string_view::find is not.
inline std::size_t find_text(std::string_view text, std::string_view needle, std::size_t from = 0) noexcept {
    if (from > text.size() || needle.size() > text.size() - from) return std::string_view::npos;
    if (needle.empty()) return from;
    const void* found = ::memmem(text.data() + from, text.size() - from, needle.data(), needle.size());
    if (found == nullptr) return std::string_view::npos;
    return static_cast<std::size_t>(static_cast<const char*>(found) - text.data());
}

/// Last place of `needle`; npos where there is none.
inline std::size_t rfind_text(std::string_view text, std::string_view needle) {
    const std::string reversed(text.rbegin(), text.rend());
    const std::string wanted(needle.rbegin(), needle.rend());
    const std::size_t place = find_text(reversed, wanted);
    return place == std::string_view::npos ? place : text.size() - place - needle.size();
}

/// Whether `character`, one in UTF-8, is among the characters of `set`.
inline bool has_character(std::string_view set, std::string_view character) {
    for (; !set.empty(); set.remove_prefix(character_size(set))) {
        if (set.substr(0, character_size(set)) == character) return true;
    }
    return false;
}

enum class Case { lower, upper, title };

template <std::size_t ranges, std::size_t exceptions>
void append_mapped(std::string& out, std::uint32_t c, const CaseRange (&range)[ranges],
                   const CaseException (&exception)[exceptions]) {
    const auto* special = std::lower_bound(
        std::begin(exception), std::end(exception), c,
        [](const CaseException& entry, std::uint32_t value) { return entry.code_point < value; });
    if (special != std::end(exception) && special->code_point == c) {
        out += special->mapped;
        return;
    }
    const auto* found =
        std::lower_bound(std::begin(range), std::end(range), c,
                         [](const CaseRange& entry, std::uint32_t value) { return entry.last < value; });
    const bool maps =
        found != std::end(range) && c >= found->first && (c - found->first) % found->stride == 0;
    append_code_point(out,
                      maps ? static_cast<std::uint32_t>(static_cast<std::int32_t>(c) + found->delta) : c);
}

/// Appends one character in another case.
inline void append_case(std::string& out, std::string_view character, Case to) {
    const std::uint32_t c = code_point(character);
    if (c < 0x80) {
        const bool is_lower = c >= 'a' && c <= 'z';
        const bool is_upper = c >= 'A' && c <= 'Z';
        out += static_cast<char>(to == Case::lower ? (is_upper ? c + 32 : c) : (is_lower ? c - 32 : c));
        return;
    }
    if (c >= 0x110000) {
        out += character;
        return;
    }
    if (to == Case::lower) return append_mapped(out, c, lower_ranges, lower_exceptions);
    if (to == Case::title) {
        const auto* special = std::lower_bound(
            std::begin(title_exceptions), std::end(title_exceptions), c,
            [](const CaseException& entry, std::uint32_t value) { return entry.code_point < value; });
        if (special != std::end(title_exceptions) && special->code_point == c) {
            out += special->mapped;
            return;
        }
    }
    append_mapped(out, c, upper_ranges, upper_exceptions);
}

/// A letter that has a case: what str.isupper() and str.title() look at.
inline bool is_cased(std::string_view character) {
    std::string lower;
    std::string upper;
    append_case(lower, character, Case::lower);
    append_case(upper, character, Case::upper);
    return lower != character || upper != character;
}

/// Lower case of a whole text. A capital sigma at the end of a word takes its final form.
inline std::string to_lower(std::string_view text) {
    std::string out;
    bool after_letter = false;
    for (std::size_t i = 0; i < text.size();) {
        const std::string_view character = text.substr(i, character_size(text.substr(i)));
        i += character.size();
        if (code_point(character) == 0x3A3 && after_letter) {
            const std::string_view next =
                i < text.size() ? text.substr(i, character_size(text.substr(i))) : "";
            out += next.empty() || !is_cased(next) ? "\u03C2" : "\u03C3";
            continue;
        }
        append_case(out, character, Case::lower);
        after_letter = static_cast<unsigned char>(character[0]) < 0x80
                           ? ((character[0] | 0x20) >= 'a' && (character[0] | 0x20) <= 'z')
                           : is_cased(character);
    }
    return out;
}

inline std::string to_upper(std::string_view text) {
    std::string out;
    for (; !text.empty(); text.remove_prefix(character_size(text))) {
        append_case(out, text.substr(0, character_size(text)), Case::upper);
    }
    return out;
}

/// str.capitalize(): the first character in title case, the rest in lower case.
inline std::string to_capitalized(std::string_view text) {
    if (text.empty()) return {};
    std::string out;
    const std::size_t first = character_size(text);
    append_case(out, text.substr(0, first), Case::title);
    return out + to_lower(text.substr(first));
}

/// str.title(): each run of cased letters begins in title case.
inline std::string to_title(std::string_view text) {
    std::string out;
    bool inside = false;
    for (; !text.empty(); text.remove_prefix(character_size(text))) {
        const std::string_view character = text.substr(0, character_size(text));
        append_case(out, character, inside ? Case::lower : Case::title);
        inside = is_cased(character);
    }
    return out;
}

}  // namespace tokenizer::jinja::detail
}  // namespace zse::inline v1
