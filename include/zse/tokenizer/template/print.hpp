// SPDX-License-Identifier: Apache-2.0
// Values as text: Python's str() and repr(), and the names of their types.
#pragma once

#include <zse/tokenizer/template/unicode.hpp>
#include <zse/tokenizer/template/value.hpp>

#include <charconv>
#include <cmath>
#include <cstdio>
#include <string>
#include <string_view>

namespace zse::inline v1 {
namespace tokenizer::jinja::detail {

/// The value's type as Python calls it, for messages.
inline std::string_view type_name(const Value& value) {
    switch (value.kind()) {
        case Kind::undefined: return "undefined";
        case Kind::none: return "None";
        case Kind::boolean: return "bool";
        case Kind::integer: return "int";
        case Kind::floating: return "float";
        case Kind::string: return "str";
        case Kind::dict: return "dict";
        case Kind::callable: return "function";
        case Kind::object: return value.object<NamespaceObject>() != nullptr ? "namespace" : "loop";
        case Kind::sequence: break;
    }
    switch (value.object<SequenceObject>()->kind) {
        case SequenceKind::list: return "list";
        case SequenceKind::tuple: return "tuple";
        case SequenceKind::range: return "range";
        case SequenceKind::generator: return "generator";
        case SequenceKind::view: return "dict view";
    }
    return "sequence";
}

/// Fails where the value is undefined; every use but printing, testing and walking does.
inline void require_defined(const Value& value) {
    if (value.is_undefined()) fail_input(value.undefined_message());
}

/// repr(float): the shortest digits that read back, with an exponent below 1e-4 and from 1e16.
inline std::string float_text(double value) {
    if (std::isnan(value)) return "nan";
    if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
    char buffer[40];
    const auto end = std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::scientific).ptr;
    std::string_view digits(buffer, static_cast<std::size_t>(end - buffer));
    std::string out;
    if (digits.front() == '-') {
        out += '-';
        digits.remove_prefix(1);
    }
    const std::size_t mark = digits.find('e');
    int exponent = 0;
    const char* exponent_begin = digits.data() + mark + (digits[mark + 1] == '+' ? 2 : 1);
    std::from_chars(exponent_begin, digits.data() + digits.size(), exponent);
    std::string significant(1, digits[0]);
    if (mark > 2) significant += digits.substr(2, mark - 2);
    const int count = static_cast<int>(significant.size());

    if (exponent < -4 || exponent >= 16) {
        out += significant[0];
        if (count > 1) out += "." + significant.substr(1);
        char tail[16];
        std::snprintf(tail, sizeof tail, "e%c%02d", exponent < 0 ? '-' : '+', std::abs(exponent));
        return out + tail;
    }
    if (exponent < 0)
        return out + "0." + std::string(static_cast<std::size_t>(-exponent - 1), '0') + significant;
    const auto whole = static_cast<std::size_t>(exponent) + 1;
    if (static_cast<std::size_t>(count) <= whole) {
        return out + significant + std::string(whole - static_cast<std::size_t>(count), '0') + ".0";
    }
    return out + significant.substr(0, whole) + "." + significant.substr(whole);
}

/// Characters that repr() escapes: controls, separators other than the space, and what has no meaning.
inline bool is_printable(std::uint32_t c) noexcept {
    if (c < 0x20 || (c >= 0x7F && c <= 0xA0) || c == 0xAD) return false;
    if (c < 0x600) return true;
    if ((c >= 0x600 && c <= 0x605) || c == 0x61C || c == 0x6DD || c == 0x70F || c == 0x1680 || c == 0x180E) {
        return false;
    }
    if ((c >= 0x2000 && c <= 0x200F) || (c >= 0x2028 && c <= 0x202F) || (c >= 0x205F && c <= 0x206F))
        return false;
    if (c == 0x3000 || (c >= 0xD800 && c <= 0xF8FF) || c == 0xFEFF || (c >= 0xFFF0 && c <= 0xFFFB))
        return false;
    return (c & 0xFFFE) != 0xFFFE && c < 0xE0000;
}

inline void append_repr(TextBuilder& out, std::string_view string) {
    const bool single =
        string.find('\'') == std::string_view::npos || string.find('"') != std::string_view::npos;
    const char quote = single ? '\'' : '"';
    out.append(1, quote);
    for (; !string.empty(); string.remove_prefix(character_size(string))) {
        const std::string_view character = string.substr(0, character_size(string));
        const std::uint32_t c = code_point(character);
        char escape[16] = {};
        if (c == static_cast<std::uint32_t>(quote) || c == '\\') {
            std::snprintf(escape, sizeof escape, "\\%c", static_cast<char>(c));
        } else if (c == '\n' || c == '\r' || c == '\t') {
            std::snprintf(escape, sizeof escape, "\\%c", c == '\n' ? 'n' : c == '\r' ? 'r' : 't');
        } else if (c < 0x110000 && !is_printable(c)) {
            std::snprintf(escape, sizeof escape,
                          c < 0x100     ? "\\x%02x"
                          : c < 0x10000 ? "\\u%04x"
                                        : "\\U%08x",
                          c);
        } else {
            out.append(character);
            continue;
        }
        out.append(escape);
    }
    out.append(1, quote);
}

inline void append_repr(TextBuilder& out, const Value& value);

inline void append_items(TextBuilder& out, const std::vector<Value>& items) {
    bool first = true;
    for (const Value& item : items) {
        if (!first) out.append(", ");
        first = false;
        append_repr(out, item);
    }
}

inline void append_entries(TextBuilder& out, const std::vector<Value::Entry>& entries) {
    out.append("{");
    bool first = true;
    for (const auto& [key, value] : entries) {
        if (!first) out.append(", ");
        first = false;
        append_repr(out, key);
        out.append(": ");
        append_repr(out, value);
    }
    out.append("}");
}

inline void append_sequence(TextBuilder& out, const SequenceObject& sequence) {
    switch (sequence.kind) {
        case SequenceKind::list:
            out.append("[");
            append_items(out, sequence.items);
            out.append("]");
            return;
        case SequenceKind::tuple:
            out.append("(");
            append_items(out, sequence.items);
            out.append(sequence.items.size() == 1 ? ",)" : ")");
            return;
        case SequenceKind::range:
            if (sequence.printed.empty())
                fail_unsupported("a part of a range has no text here; put |list behind it");
            out.append(sequence.printed);
            return;
        case SequenceKind::view:
            out.append(sequence.printed).append("([");
            append_items(out, sequence.items);
            out.append("])");
            return;
        case SequenceKind::generator:
            fail_unsupported("a lazy sequence has no text of its own; put |list behind the filter");
    }
}

inline void append_repr(TextBuilder& out, const Value& value) {
    out.budget().step();
    switch (value.kind()) {
        case Kind::undefined: out.append("Undefined"); return;
        case Kind::none: out.append("None"); return;
        case Kind::boolean: out.append(value.as_boolean() ? "True" : "False"); return;
        case Kind::integer: out.append(std::to_string(value.as_integer())); return;
        case Kind::floating: out.append(float_text(value.as_floating())); return;
        case Kind::string:
            if (value.is_markup())
                fail_unsupported("the repr of a string that went through |safe is left out");
            append_repr(out, std::string_view(value.as_string()));
            return;
        case Kind::sequence: append_sequence(out, *value.object<SequenceObject>()); return;
        case Kind::dict: append_entries(out, value.entries()); return;
        case Kind::object:
        case Kind::callable: break;
    }
    if (const auto* callable = value.object<const CallableObject>(); callable != nullptr && callable->macro) {
        out.append("<Macro ");
        append_repr(out, std::string_view(callable->name));
        out.append(">");
        return;
    }
    fail_unsupported("a ", type_name(value), " cannot be printed; print what it holds or returns");
}

/// str(): strings as they are, undefined as nothing, everything else as its repr.
inline void append_text(TextBuilder& out, const Value& value) {
    if (value.is_undefined()) return;
    if (value.is_string()) {
        out.append(value.as_string());
    } else {
        append_repr(out, value);
    }
}

inline std::string to_text(Budget& budget, const Value& value) {
    TextBuilder out(budget);
    append_text(out, value);
    return out.take();
}

}  // namespace tokenizer::jinja::detail
}  // namespace zse::inline v1
