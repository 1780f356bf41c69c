// SPDX-License-Identifier: Apache-2.0
// Filters over one string or number, and tojson.
#pragma once

#include <zse/tokenizer/template/arguments.hpp>
#include <zse/tokenizer/template/json.hpp>
#include <zse/tokenizer/template/methods.hpp>
#include <zse/tokenizer/template/operators.hpp>

#include <charconv>
#include <cmath>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace zse::inline v1 {
namespace tokenizer::jinja::detail {

using Filter = Value (*)(Budget&, const Value&, const Arguments&);

/// The value as a string that keeps its being markup; others through str().
inline Value soft_text(Budget& budget, const Value& value) {
    return value.is_string() ? value : Value(to_text(budget, value));
}

template <Case to>
Value case_filter(Budget& budget, const Value& value, const Arguments& arguments) {
    const Bound none("filter", {}, arguments);
    return change_case(budget, soft_text(budget, value), to == Case::upper ? to_upper : to_lower);
}

inline Value capitalize_filter(Budget& budget, const Value& value, const Arguments& arguments) {
    const Bound none("filter capitalize", {}, arguments);
    return change_case(budget, soft_text(budget, value), to_capitalized);
}

/// Jinja's own title: words begin behind blanks, hyphens and opening brackets, not behind apostrophes.
inline Value title_filter(Budget& budget, const Value& value, const Arguments& arguments) {
    const Bound none("filter title", {}, arguments);
    return change_case(budget, soft_text(budget, value), [](std::string_view string) {
        std::string out;
        while (!string.empty()) {
            std::size_t word = 0;
            const auto divides = [&](std::string_view rest) {
                return is_space(code_point(rest)) ||
                       std::string_view("-({[<").find(rest[0]) != std::string_view::npos;
            };
            if (divides(string)) {
                const std::size_t size = character_size(string);
                out += string.substr(0, size);
                string.remove_prefix(size);
                continue;
            }
            while (word < string.size() && !divides(string.substr(word)))
                word += character_size(string.substr(word));
            const std::size_t first = character_size(string);
            append_case(out, string.substr(0, first), Case::upper);
            out += to_lower(string.substr(first, word - first));
            string.remove_prefix(word);
        }
        return out;
    });
}

inline Value trim_filter(Budget& budget, const Value& value, const Arguments& arguments) {
    const Bound bound("filter trim", {"chars"}, arguments);
    return strip(budget, soft_text(budget, value), bound.get(0, nullptr), true, true);
}

inline Value replace_filter(Budget& budget, const Value& value, const Arguments& arguments) {
    const Bound bound("filter replace", {"old", "new", "count"}, arguments);
    const std::string before = to_text(budget, bound.get(0));
    const std::string after = to_text(budget, bound.get(1));
    const std::int64_t count = bound.has_value(2) ? bound.integer(2) : -1;
    return replace(budget, to_text(budget, value), before, after, count);
}

inline Value string_filter(Budget& budget, const Value& value, const Arguments& arguments) {
    const Bound none("filter string", {}, arguments);
    return soft_text(budget, value);
}

inline Value safe_filter(Budget& budget, const Value& value, const Arguments& arguments) {
    const Bound none("filter safe", {}, arguments);
    return value.is_markup() ? value : make_markup(to_text(budget, value));
}

inline Value escape_filter(Budget& budget, const Value& value, const Arguments& arguments) {
    const Bound none("filter escape", {}, arguments);
    TextBuilder out(budget);
    append_escaped(out, soft_text(budget, value));
    return make_markup(out.take());
}

inline Value format_filter(Budget& budget, const Value& value, const Arguments& arguments) {
    if (!arguments.named.empty()) fail_unsupported("the filter format with named values is left out");
    return format_percent(budget, soft_text(budget, value), Value::tuple(arguments.positional));
}

inline Value indent_filter(Budget& budget, const Value& value, const Arguments& arguments) {
    const Bound bound("filter indent", {"width", "first", "blank"}, arguments);
    require_defined(value);
    if (!value.is_string())
        fail_input("the filter indent needs a string, but was given a ", type_name(value));
    if (value.is_markup()) fail_unsupported("indenting a string that went through |safe is left out");
    std::string margin;
    if (bound.has(0) && bound.get(0).is_string()) {
        margin = bound.string(0);
    } else {
        const std::int64_t width = bound.integer(0, 4);
        budget.bytes(static_cast<std::uint64_t>(std::max<std::int64_t>(width, 0)));
        margin.assign(static_cast<std::size_t>(std::max<std::int64_t>(width, 0)), ' ');
    }
    const bool first = bound.has(1) && is_true(bound.get(1));
    const bool blank = bound.has(2) && is_true(bound.get(2));
    budget.bytes(value.as_string().size());
    const std::string source = value.as_string() + "\n";
    TextBuilder out(budget);
    bool is_first = true;
    for_each_line(source, false, [&](std::string_view line) {
        budget.step();
        if (!is_first) out.append("\n");
        if (is_first ? first : (blank || !line.empty())) out.append(margin);
        is_first = false;
        out.append(line);
    });
    return out.take();
}

inline Value tojson_filter(Budget& budget, const Value& value, const Arguments& arguments) {
    const Bound bound("filter tojson", {"ensure_ascii", "indent", "separators", "sort_keys"}, arguments);
    JsonStyle style;
    style.ascii = bound.has(0) && is_true(bound.get(0));
    style.sort_keys = bound.has(3) && is_true(bound.get(3));
    if (bound.has_value(1)) {
        style.between_items = ",";
        const Value& indent = bound.get(1);
        if (indent.is_string()) {
            style.indent = indent.as_string();
        } else {
            const std::int64_t width = std::max<std::int64_t>(bound.integer(1), 0);
            budget.bytes(static_cast<std::uint64_t>(width));
            style.indent = std::string(static_cast<std::size_t>(width), ' ');
        }
    }
    if (bound.has_value(2)) {
        const Value& separators = bound.get(2);
        if (!is_plain_sequence(separators) || separators.items().size() != 2 ||
            !separators.items()[0].is_string() || !separators.items()[1].is_string()) {
            fail_input("the separators of tojson are two strings: between items, and behind a key");
        }
        style.between_items = separators.items()[0].as_string();
        style.after_key = separators.items()[1].as_string();
    }
    return JsonWriter(budget, std::move(style)).write(value);
}

/// float(string): decimal notation with blanks around it and single underscores between digits.
inline std::optional<double> parse_float(std::string_view string) {
    string = strip_right(strip_left(string));
    if (string.size() > 400) return std::nullopt;
    std::string plain;
    for (std::size_t i = 0; i < string.size(); ++i) {
        const auto is_digit = [&](std::size_t at) {
            return at < string.size() && string[at] >= '0' && string[at] <= '9';
        };
        if (string[i] != '_') {
            plain += string[i];
        } else if (i == 0 || !is_digit(i - 1) || !is_digit(i + 1)) {
            return std::nullopt;
        }
    }
    if (plain.size() > 1 && plain[0] == '+' && plain[1] != '-') plain.erase(0, 1);
    double value = 0;
    const auto result = std::from_chars(plain.data(), plain.data() + plain.size(), value);
    if (result.ec == std::errc::invalid_argument || result.ptr != plain.data() + plain.size())
        return std::nullopt;
    if (plain.find('(') != std::string::npos) return std::nullopt;  // nan(...) is C's, not Python's
    if (result.ec == std::errc::result_out_of_range)
        fail_unsupported("a number is beyond what a float holds");
    return value;
}

/// int(string, base); nothing where it is no integer of that base.
inline std::optional<std::int64_t> parse_integer(std::string_view string, std::int64_t base) {
    string = strip_right(strip_left(string));
    if (base != 10) fail_unsupported("the filter int knows base 10 only");
    std::string plain;
    const bool is_signed = !string.empty() && (string[0] == '-' || string[0] == '+');
    if (is_signed && string[0] == '-') plain = "-";
    for (std::size_t i = is_signed ? 1 : 0; i < string.size(); ++i) {
        const char c = string[i];
        const bool is_digit = c >= '0' && c <= '9';
        const bool is_gap =
            c == '_' && i > (is_signed ? 1u : 0u) && string[i - 1] != '_' && i + 1 < string.size();
        if (!is_digit && !is_gap) return std::nullopt;
        if (is_digit) plain += c;
        if (plain.size() > 400) fail_overflow();
    }
    std::int64_t value = 0;
    const auto result = std::from_chars(plain.data(), plain.data() + plain.size(), value);
    if (result.ec == std::errc::result_out_of_range) fail_overflow();
    if (result.ec != std::errc{}) return std::nullopt;
    return value;
}

inline std::optional<std::int64_t> truncated(double value) {
    if (!std::isfinite(value)) return std::nullopt;
    if (std::abs(value) >= 9.2e18) fail_overflow();
    return static_cast<std::int64_t>(value);
}

inline Value int_filter(Budget& budget, const Value& value, const Arguments& arguments) {
    const Bound bound("filter int", {"default", "base"}, arguments);
    require_defined(value);
    std::optional<std::int64_t> number;
    if (value.is_string()) {
        budget.scan(value.as_string().size());
        number = parse_integer(value.as_string(), bound.integer(1, 10));
        if (!number) {
            const std::optional<double> decimal = parse_float(value.as_string());
            if (decimal) number = truncated(*decimal);
        }
    } else if (value.is_floating()) {
        if (std::isinf(value.as_floating())) fail_input("an infinite number has no integer");
        number = truncated(value.as_floating());
    } else if (value.is_number()) {
        number = value.as_integer();
    }
    return number ? Value(*number) : bound.get(0, 0);
}

inline Value float_filter(Budget& budget, const Value& value, const Arguments& arguments) {
    const Bound bound("filter float", {"default"}, arguments);
    require_defined(value);
    if (value.is_number()) return value.as_floating();
    if (value.is_string()) {
        budget.scan(value.as_string().size());
        if (const std::optional<double> number = parse_float(value.as_string())) return *number;
    }
    return bound.get(0, 0.0);
}

inline Value abs_filter(Budget&, const Value& value, const Arguments& arguments) {
    const Bound none("filter abs", {}, arguments);
    require_defined(value);
    if (!value.is_number()) fail_input("the filter abs needs a number, but was given a ", type_name(value));
    if (value.is_floating()) return std::abs(value.as_floating());
    return value.as_integer() < 0 ? negate(value) : Value(value.as_integer());
}

inline Value round_filter(Budget&, const Value& value, const Arguments& arguments) {
    const Bound bound("filter round", {"precision", "method"}, arguments);
    require_defined(value);
    if (!value.is_number()) fail_input("the filter round needs a number, but was given a ", type_name(value));
    const std::int64_t precision = bound.integer(0, 0);
    const std::string method = bound.string(1, "common");
    if (precision < 0 || precision > 20) fail_unsupported("the filter round knows precisions from 0 to 20");
    if (method == "common") {
        if (!value.is_floating()) return value.as_integer();
        if (!std::isfinite(value.as_floating())) return value;
        char buffer[400];
        const int size =
            std::snprintf(buffer, sizeof buffer, "%.*f", static_cast<int>(precision), value.as_floating());
        double rounded = 0;
        std::from_chars(buffer, buffer + size, rounded);
        return rounded;
    }
    if (method != "ceil" && method != "floor") fail_input("the method of round is common, ceil or floor");
    const double scale = std::pow(10.0, static_cast<double>(precision));
    const double scaled = value.as_floating() * scale;
    return (method == "ceil" ? std::ceil(scaled) : std::floor(scaled)) / scale;
}

}  // namespace tokenizer::jinja::detail
}  // namespace zse::inline v1
