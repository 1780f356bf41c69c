// SPDX-License-Identifier: Apache-2.0
// The methods of strings, and what filters share with them.
#pragma once

#include <zse/tokenizer/template/access.hpp>
#include <zse/tokenizer/template/arguments.hpp>
#include <zse/tokenizer/template/format.hpp>

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace zse::inline v1 {
namespace tokenizer::jinja::detail {

using Method = Value (*)(Budget&, const Value&, const Arguments&);

template <class Change>
Value change_case(Budget& budget, const Value& string, Change change) {
    budget.scan(string.as_string().size() * 4);
    budget.bytes(saturating_mul(string.as_string().size(), 3));  // the most that a change of case grows
    return derived(string, change(string.as_string()));
}

/// strip(), lstrip() and rstrip(): of whitespace where `characters` is none, else of its characters.
inline Value strip(Budget& budget, const Value& value, const Value& characters, bool left, bool right) {
    require_defined(characters);
    if (!characters.is_none() && !characters.is_string()) {
        fail_input("the characters to strip are a string, but a value of type ", type_name(characters),
                   " was given");
    }
    std::string_view string = value.as_string();
    budget.scan(string.size());
    if (characters.is_none()) {
        if (left) string = strip_left(string);
        if (right) string = strip_right(string);
    } else {
        const std::string& set = characters.as_string();
        const auto in_set = [&](std::string_view character) {
            budget.scan(set.size());
            return has_character(set, character);
        };
        while (left && !string.empty() && in_set(string.substr(0, character_size(string)))) {
            string.remove_prefix(character_size(string));
        }
        while (right && !string.empty() && in_set(string.substr(last_character(string)))) {
            string = string.substr(0, last_character(string));
        }
    }
    budget.bytes(string.size());
    return derived(value, std::string(string));
}

template <bool left, bool right>
Value strip_method(Budget& budget, const Value& value, const Arguments& arguments) {
    return strip(budget, value, Bound("method strip", {"chars"}, arguments).get(0, nullptr), left, right);
}

/// Replaces the first `count` places of `before`, all where count is negative.
inline Value replace(Budget& budget, std::string_view string, std::string_view before, std::string_view after,
                     std::int64_t count) {
    budget.scan(string.size());
    TextBuilder out(budget);
    std::uint64_t left = count < 0 ? static_cast<std::uint64_t>(-1) : static_cast<std::uint64_t>(count);
    if (before.empty()) {
        for (; left > 0; --left) {
            budget.step();
            out.append(after);
            if (string.empty()) return out.take();
            const std::size_t size = character_size(string);
            out.append(string.substr(0, size));
            string.remove_prefix(size);
        }
        return out.append(string).take();
    }
    for (; left > 0; --left) {
        const std::size_t place = find_text(string, before);
        if (place == std::string_view::npos) break;
        budget.scan(place + before.size());
        out.append(string.substr(0, place)).append(after);
        string.remove_prefix(place + before.size());
    }
    return out.append(string).take();
}

inline Value replace_method(Budget& budget, const Value& value, const Arguments& arguments) {
    const Bound bound("method replace", {"old", "new", "count"}, arguments);
    if (value.is_markup())
        fail_unsupported("the method replace of a string that went through |safe is left out");
    return replace(budget, value.as_string(), bound.string(0), bound.string(1), bound.integer(2, -1));
}

/// A list of strings, paid for as it grows.
class Pieces {
public:
    Pieces(Budget& budget, const Value& source) : budget_(budget), source_(source) {}
    void add(std::string_view piece) {
        budget_.step();
        budget_.bytes(piece.size() + sizeof(Value) + sizeof(TextObject));
        items_.push_back(derived(source_, std::string(piece)));
    }
    [[nodiscard]] std::vector<Value>& items() { return items_; }
    [[nodiscard]] Value list() { return Value::list(std::move(items_)); }

private:
    Budget& budget_;
    const Value& source_;
    std::vector<Value> items_;
};

inline void split_at_spaces(Pieces& pieces, std::string_view rest, std::uint64_t most, bool from_right) {
    const auto is_space_at = [&](std::size_t i) { return is_space(code_point(rest.substr(i))); };
    while (true) {
        rest = from_right ? strip_right(rest) : strip_left(rest);
        if (rest.empty()) return;
        if (most == 0) return pieces.add(rest);
        --most;
        if (from_right) {
            std::size_t begin = rest.size();
            while (begin > 0 && !is_space_at(last_character(rest.substr(0, begin)))) {
                begin = last_character(rest.substr(0, begin));
            }
            pieces.add(rest.substr(begin));
            rest = rest.substr(0, begin);
        } else {
            std::size_t end = 0;
            while (end < rest.size() && !is_space_at(end)) end += character_size(rest.substr(end));
            pieces.add(rest.substr(0, end));
            rest.remove_prefix(end);
        }
    }
}

template <bool from_right>
Value split_method(Budget& budget, const Value& value, const Arguments& arguments) {
    const Bound bound("method split", {"sep", "maxsplit"}, arguments);
    const std::int64_t limit = bound.integer(1, -1);
    std::uint64_t most = limit < 0 ? static_cast<std::uint64_t>(-1) : static_cast<std::uint64_t>(limit);
    std::string_view rest = value.as_string();
    budget.scan(rest.size());
    Pieces pieces(budget, value);
    if (!bound.has_value(0)) {
        split_at_spaces(pieces, rest, most, from_right);
    } else {
        const std::string& separator = bound.string(0);
        if (separator.empty()) fail_input("the separator of split() is not empty");
        // From the right, places are looked for in the reversed text, which is made once.
        const std::string reversed = from_right ? std::string(rest.rbegin(), rest.rend()) : std::string();
        const std::string wanted = from_right ? std::string(separator.rbegin(), separator.rend()) : separator;
        for (; most > 0; --most) {
            const std::string_view searched =
                from_right ? std::string_view(reversed).substr(reversed.size() - rest.size()) : rest;
            const std::size_t place = find_text(searched, wanted);
            if (place == std::string_view::npos) break;
            const std::size_t left = rest.size() - place - separator.size();
            pieces.add(from_right ? rest.substr(rest.size() - place) : rest.substr(0, place));
            rest = from_right ? rest.substr(0, left) : rest.substr(rest.size() - left);
        }
        pieces.add(rest);
    }
    if (from_right) std::reverse(pieces.items().begin(), pieces.items().end());
    return pieces.list();
}

/// Calls `take` with each line of str.splitlines(), with its end where `keep` is set.
template <class Take>
void for_each_line(std::string_view rest, bool keep, const Take& take) {
    while (!rest.empty()) {
        std::size_t end = 0;
        while (end < rest.size() && !is_line_end(code_point(rest.substr(end))))
            end += character_size(rest.substr(end));
        std::size_t behind = end;
        if (behind < rest.size()) {
            const bool is_pair = rest.substr(end).starts_with("\r\n");
            behind += is_pair ? 2 : character_size(rest.substr(end));
        }
        take(rest.substr(0, keep ? behind : end));
        rest.remove_prefix(behind);
    }
}

inline Value splitlines_method(Budget& budget, const Value& value, const Arguments& arguments) {
    const Bound bound("method splitlines", {"keepends"}, arguments);
    budget.scan(value.as_string().size());
    Pieces pieces(budget, value);
    const bool keep = bound.has(0) && is_true(bound.get(0));
    for_each_line(value.as_string(), keep, [&](std::string_view line) { pieces.add(line); });
    return pieces.list();
}

template <bool at_end>
Value affix_method(Budget& budget, const Value& value, const Arguments& arguments) {
    const Bound bound(at_end ? "method endswith" : "method startswith", {"affix"}, arguments);
    const auto fits = [&](const Value& affix) {
        require_defined(affix);
        if (!affix.is_string()) fail_input("startswith and endswith look for a string or a tuple of strings");
        budget.scan(affix.as_string().size());
        const std::string_view string = value.as_string();
        return at_end ? string.ends_with(affix.as_string()) : string.starts_with(affix.as_string());
    };
    const Value& affix = bound.get(0);
    const auto* several = affix.object<SequenceObject>();
    if (several == nullptr || several->kind != SequenceKind::tuple) return fits(affix);
    return std::any_of(several->items.begin(), several->items.end(), fits);
}

template <bool at_end>
Value remove_affix_method(Budget& budget, const Value& value, const Arguments& arguments) {
    const std::string& affix = Bound("method removeprefix", {"affix"}, arguments).string(0);
    std::string_view string = value.as_string();
    budget.bytes(string.size());
    if (at_end && string.ends_with(affix)) string.remove_suffix(affix.size());
    if (!at_end && string.starts_with(affix)) string.remove_prefix(affix.size());
    return derived(value, std::string(string));
}

inline Value join_method(Budget& budget, const Value& value, const Arguments& arguments) {
    const Bound bound("method join", {"iterable"}, arguments);
    if (value.is_markup())
        fail_unsupported("the method join of a string that went through |safe is left out");
    TextBuilder out(budget);
    bool first = true;
    for (const Value& item : walk(budget, bound.get(0))) {
        require_defined(item);
        if (!item.is_string())
            fail_input("join() takes strings, but was given a value of type ", type_name(item));
        if (!first) out.append(value.as_string());
        first = false;
        out.append(item.as_string());
    }
    return out.take();
}

/// find(), rfind(), index() and rindex(), as a number of characters.
template <bool from_right, bool must_exist>
Value find_method(Budget& budget, const Value& value, const Arguments& arguments) {
    const Bound bound("method find", {"sub"}, arguments);
    const std::string& wanted = bound.string(0);
    const std::string_view string = value.as_string();
    budget.scan(string.size() * 2);
    const std::size_t place = from_right ? rfind_text(string, wanted) : find_text(string, wanted);
    if (place != std::string_view::npos) return count_characters(string.substr(0, place));
    if (must_exist) fail_input("the substring that index() looks for is not there");
    return -1;
}

inline Value count_method(Budget& budget, const Value& value, const Arguments& arguments) {
    const Bound bound("method count", {"sub"}, arguments);
    const std::string& wanted = bound.string(0);
    std::string_view rest = value.as_string();
    budget.scan(rest.size());
    if (wanted.empty()) return count_characters(rest) + 1;
    std::size_t count = 0;
    for (std::size_t place = find_text(rest, wanted); place != std::string_view::npos;
         place = find_text(rest, wanted)) {
        budget.step();
        rest.remove_prefix(place + wanted.size());
        ++count;
    }
    return count;
}

/// isdigit() and its like. Where only characters beyond ASCII are left to decide, tables of Unicode would be
/// needed, which are left out.
template <bool (*holds)(char)>
Value class_method(Budget& budget, const Value& value, const Arguments& arguments) {
    const Bound none("method", {}, arguments);
    const std::string& string = value.as_string();
    budget.scan(string.size());
    const auto may_hold = [](char c) { return static_cast<unsigned char>(c) >= 0x80 || holds(c); };
    if (string.empty() || !std::all_of(string.begin(), string.end(), may_hold)) return false;
    if (!is_ascii(string)) {
        fail_unsupported("isdigit(), isalpha() and isalnum() are known for ASCII text only");
    }
    return true;
}

inline bool is_ascii_digit(char c) {
    return c >= '0' && c <= '9';
}
inline bool is_ascii_letter(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}
inline bool is_ascii_alphanumeric(char c) {
    return is_ascii_digit(c) || is_ascii_letter(c);
}

inline Value isspace_method(Budget& budget, const Value& value, const Arguments& arguments) {
    const Bound none("method isspace", {}, arguments);
    budget.scan(value.as_string().size());
    return !value.as_string().empty() && strip_left(value.as_string()).empty();
}

/// ljust(), rjust(), center() and zfill().
enum class Side { left, right, middle, zeros };

template <Side side>
Value pad_method(Budget& budget, const Value& value, const Arguments& arguments) {
    const Bound bound("method", {"width", "fillchar"}, arguments);
    const std::string fill = side == Side::zeros ? "0" : bound.string(1, " ");
    if (count_characters(fill) != 1) fail_input("the character to fill with is one character");
    const std::string& string = value.as_string();
    budget.scan(string.size());
    const auto size = static_cast<std::int64_t>(count_characters(string));
    const std::int64_t missing = std::max<std::int64_t>(bound.integer(0) - size, 0);
    budget.bytes(
        saturating_add(saturating_mul(static_cast<std::uint64_t>(missing), fill.size()), string.size()));
    const auto filled = [&fill](std::int64_t count) {
        std::string run;
        for (std::int64_t i = 0; i < count; ++i) run += fill;
        return run;
    };
    if (side == Side::left) return derived(value, string + filled(missing));
    if (side == Side::right) return derived(value, filled(missing) + string);
    if (side == Side::middle) {
        const std::int64_t before = missing / 2 + (missing & (size + missing) & 1);
        return derived(value, filled(before) + string + filled(missing - before));
    }
    const std::size_t sign = !string.empty() && (string[0] == '-' || string[0] == '+') ? 1 : 0;
    return derived(value, string.substr(0, sign) + filled(missing) + string.substr(sign));
}

template <bool from_right>
Value partition_method(Budget& budget, const Value& value, const Arguments& arguments) {
    const std::string& separator = Bound("method partition", {"sep"}, arguments).string(0);
    if (separator.empty()) fail_input("the separator of partition() is not empty");
    const std::string_view string = value.as_string();
    budget.scan(string.size());
    const std::size_t place = from_right ? rfind_text(string, separator) : find_text(string, separator);
    Pieces pieces(budget, value);
    if (place == std::string_view::npos) {
        for (const bool holds_all : {!from_right, false, from_right}) pieces.add(holds_all ? string : "");
    } else {
        pieces.add(string.substr(0, place));
        pieces.add(separator);
        pieces.add(string.substr(place + separator.size()));
    }
    return Value::tuple(std::move(pieces.items()));
}

template <std::string (*change)(std::string_view)>
Value case_method(Budget& budget, const Value& value, const Arguments& arguments) {
    const Bound none("method", {}, arguments);
    return change_case(budget, value, change);
}

inline const std::unordered_map<std::string_view, Method>& string_methods() {
    static const std::unordered_map<std::string_view, Method> table = {
        {"strip", strip_method<true, true>},
        {"lstrip", strip_method<true, false>},
        {"rstrip", strip_method<false, true>},
        {"replace", replace_method},
        {"split", split_method<false>},
        {"rsplit", split_method<true>},
        {"splitlines", splitlines_method},
        {"startswith", affix_method<false>},
        {"endswith", affix_method<true>},
        {"removeprefix", remove_affix_method<false>},
        {"removesuffix", remove_affix_method<true>},
        {"join", join_method},
        {"find", find_method<false, false>},
        {"rfind", find_method<true, false>},
        {"index", find_method<false, true>},
        {"rindex", find_method<true, true>},
        {"count", count_method},
        {"upper", case_method<to_upper>},
        {"lower", case_method<to_lower>},
        {"title", case_method<to_title>},
        {"capitalize", case_method<to_capitalized>},
        {"isdigit", class_method<is_ascii_digit>},
        {"isdecimal", class_method<is_ascii_digit>},
        {"isnumeric", class_method<is_ascii_digit>},
        {"isalpha", class_method<is_ascii_letter>},
        {"isalnum", class_method<is_ascii_alphanumeric>},
        {"isspace", isspace_method},
        {"ljust", pad_method<Side::left>},
        {"rjust", pad_method<Side::right>},
        {"center", pad_method<Side::middle>},
        {"zfill", pad_method<Side::zeros>},
        {"partition", partition_method<false>},
        {"rpartition", partition_method<true>},
        {"format", [](Budget& budget, const Value& value,
                      const Arguments& arguments) { return format_braces(budget, value, arguments); }},
    };
    return table;
}

}  // namespace tokenizer::jinja::detail
}  // namespace zse::inline v1
