// SPDX-License-Identifier: Apache-2.0
// Ways to put values into a text: "%s" % x, "{}".format(x), and the escapes of HTML.
// Leaves out the alignment and the type codes of "{:...}".
#pragma once

#include <zse/tokenizer/template/arguments.hpp>
#include <zse/tokenizer/template/compare.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>

namespace zse::inline v1 {
namespace tokenizer::jinja::detail {

/// Appends a string with the characters of HTML escaped, unless it is markup already.
inline void append_escaped(TextBuilder& out, const Value& string) {
    if (string.is_markup()) {
        out.append(string.as_string());
        return;
    }
    for (const char& c : string.as_string()) {
        switch (c) {
            case '&': out.append("&amp;"); break;
            case '<': out.append("&lt;"); break;
            case '>': out.append("&gt;"); break;
            case '\'': out.append("&#39;"); break;
            case '"': out.append("&#34;"); break;
            default: out.append(std::string_view(&c, 1));
        }
    }
}

/// "%s %d" % values, with flags, width and precision.
class PercentFormat {
public:
    PercentFormat(Budget& budget, const std::string& format, const Value& values)
        : out_(budget), rest_(format), values_(values) {
        const auto* sequence = values.object<SequenceObject>();
        is_tuple_ = sequence != nullptr && sequence->kind == SequenceKind::tuple;
    }

    std::string run() {
        while (true) {
            const std::size_t mark = rest_.find('%');
            out_.append(rest_.substr(0, mark));
            if (mark == std::string_view::npos) break;
            rest_.remove_prefix(mark + 1);
            directive();
        }
        const std::size_t given = is_tuple_ ? values_.items().size() : 1;
        // Python takes what has an index for names to look up, and lets it be.
        if (used_ < given && (is_tuple_ || values_.is_string() || !is_indexed(values_))) {
            fail_input("a '%' format has places for ", used_, " values, but ", given, " are given");
        }
        return out_.take();
    }

private:
    void directive() {
        std::string flags;
        while (!rest_.empty() && std::string_view("-+ 0#").find(rest_[0]) != std::string_view::npos) {
            flags += take();
            if (flags.size() > 8) fail_input("a '%' format has at most 8 flags for a value");
        }
        const std::size_t width = number();
        std::size_t precision = no_precision;
        if (!rest_.empty() && rest_[0] == '.') {
            take();
            precision = number();
        }
        if (rest_.empty()) fail_input("a '%' format ends in the middle of a place for a value");
        const char type = take();
        if (type == '%') {
            out_.append("%");
            return;
        }
        pad(convert(type, flags, precision), flags, width, type);
    }

    std::string convert(char type, const std::string& flags, std::size_t precision) {
        if (type == 's' || type == 'r') {
            TextBuilder part(out_.budget());
            const Value& value = next();
            type == 's' ? append_text(part, value) : append_repr(part, value);
            if (precision == no_precision) return part.take();
            const std::vector<std::size_t> offsets = character_offsets(part.view());
            return part.view().substr(0, offsets[std::min(precision, offsets.size() - 1)]);
        }
        const Value& value = next();
        require_defined(value);
        if (!value.is_number()) {
            fail_input("a '%", std::string(1, type), "' needs a number, but was given a value of type ",
                       type_name(value));
        }
        std::string sign_flags;
        if (flags.find('+') != std::string::npos) {
            sign_flags = "+";
        } else if (flags.find(' ') != std::string::npos) {
            sign_flags = " ";
        }
        char buffer[512];
        if (std::string_view("feEgG").find(type) != std::string_view::npos) {
            const int digits =
                static_cast<int>(precision == no_precision ? 6 : std::min<std::size_t>(precision, 100));
            if (flags.find('#') != std::string::npos)
                fail_unsupported("the flag # of '%' formats is left out");
            const std::string code = "%" + sign_flags + ".*" + type;
            std::snprintf(buffer, sizeof buffer, code.c_str(), digits, value.as_floating());
            return buffer;
        }
        const bool is_whole = type == 'd' || type == 'i' || type == 'x' || type == 'X' || type == 'o';
        if (!is_whole || precision != no_precision || flags.find('#') != std::string::npos) {
            fail_unsupported("'%' formats know s, r, d, i, x, X, o, f, e and g, but another one was found");
        }
        return whole(value, type, sign_flags);
    }

    static std::string whole(const Value& value, char type, const std::string& sign_flags) {
        const bool is_decimal = type == 'd' || type == 'i';
        if (value.is_floating() &&
            (!is_decimal || std::abs(value.as_floating()) >= 9e18 || std::isnan(value.as_floating()))) {
            fail_input("a '%", std::string(1, type), "' needs an integer, but was given a float");
        }
        const std::int64_t number =
            value.is_floating() ? static_cast<std::int64_t>(value.as_floating()) : value.as_integer();
        const std::uint64_t magnitude =
            number < 0 ? 0 - static_cast<std::uint64_t>(number) : static_cast<std::uint64_t>(number);
        char digits[32];
        std::snprintf(digits, sizeof digits,
                      is_decimal    ? "%llu"
                      : type == 'x' ? "%llx"
                      : type == 'X' ? "%llX"
                                    : "%llo",
                      static_cast<unsigned long long>(magnitude));
        return (number < 0 ? "-" : sign_flags) + digits;
    }

    void pad(const std::string& part, const std::string& flags, std::size_t width, char type) {
        const std::size_t size = count_characters(part);
        const std::size_t missing = width > size ? width - size : 0;
        if (flags.find('-') != std::string::npos) {
            out_.append(part).append(missing, ' ');
        } else if (flags.find('0') != std::string::npos && type != 's' && type != 'r') {
            const std::size_t sign =
                !part.empty() && (part[0] == '-' || part[0] == '+' || part[0] == ' ') ? 1 : 0;
            out_.append(part.substr(0, sign)).append(missing, '0').append(part.substr(sign));
        } else {
            out_.append(missing, ' ').append(part);
        }
    }

    const Value& next() {
        const std::size_t given = is_tuple_ ? values_.items().size() : 1;
        if (used_ == given) fail_input("a '%' format has places for more values than the ", given, " given");
        const Value& value = is_tuple_ ? values_.items()[used_] : values_;
        ++used_;
        return value;
    }

    char take() {
        const char c = rest_[0];
        rest_.remove_prefix(1);
        return c;
    }

    std::size_t number() {
        std::size_t value = 0;
        while (!rest_.empty() && rest_[0] >= '0' && rest_[0] <= '9') {
            value = value * 10 + static_cast<std::size_t>(take() - '0');
            if (value > 1'000'000) fail_input("a width or precision of a '%' format is at most 1000000");
        }
        if (!rest_.empty() && (rest_[0] == '*' || rest_[0] == '(')) {
            fail_unsupported("'%' formats with names or variable widths are left out; use |replace or ~");
        }
        return value;
    }

    static constexpr std::size_t no_precision = static_cast<std::size_t>(-1);

    TextBuilder out_;
    std::string_view rest_;
    Value values_;
    bool is_tuple_ = false;
    std::size_t used_ = 0;
};

inline Value format_percent(Budget& budget, const Value& format, const Value& values) {
    if (format.is_markup()) fail_unsupported("formatting a string that went through |safe is left out");
    budget.scan(format.as_string().size());
    return PercentFormat(budget, format.as_string(), values).run();
}

/// "{} {0} {name}".format(...): places without attributes, and without a format but s.
inline Value format_braces(Budget& budget, const Value& format, const Arguments& arguments) {
    if (format.is_markup()) fail_unsupported("formatting a string that went through |safe is left out");
    TextBuilder out(budget);
    std::string_view rest = format.as_string();
    std::size_t automatic = 0;
    while (!rest.empty()) {
        budget.step();
        const std::size_t mark = std::min(rest.find_first_of("{}"), rest.size());
        out.append(rest.substr(0, mark));
        rest.remove_prefix(mark);
        if (rest.empty()) break;
        if (rest.size() > 1 && rest[1] == rest[0]) {
            out.append(1, rest[0]);
            rest.remove_prefix(2);
            continue;
        }
        const std::size_t end = rest.find('}');
        if (rest[0] == '}' || end == std::string_view::npos) {
            fail_input("a format has a single brace; double it where it is meant as text");
        }
        const std::string_view field = rest.substr(1, end - 1);
        rest.remove_prefix(end + 1);
        if (field.find_first_of(".[:!{") != std::string_view::npos) {
            fail_unsupported("places of format() are {}, {0} or {name}, but one has more in it");
        }
        const bool is_index = field.find_first_not_of("0123456789") == std::string_view::npos;
        const Value* value = nullptr;
        if (is_index) {
            if (field.size() > 6) fail_input("a place of format() has too large an index");
            const std::size_t index = field.empty() ? automatic++ : std::stoul(std::string(field));
            if (index < arguments.positional.size()) value = &arguments.positional[index];
        } else {
            for (const auto& named : arguments.named) {
                if (named.first == field) value = &named.second;
            }
        }
        if (value == nullptr) fail_input("a place of format() has no value: ", in_quotes(field));
        append_text(out, *value);
    }
    return out.take();
}

}  // namespace tokenizer::jinja::detail
}  // namespace zse::inline v1
