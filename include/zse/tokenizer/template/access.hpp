// SPDX-License-Identifier: Apache-2.0
// value.name and value[index]: an attribute comes first for the dot, an element for the brackets, and what is
// neither is undefined.
#pragma once

#include <zse/tokenizer/template/operators.hpp>

#include <algorithm>
#include <iterator>
#include <string>
#include <string_view>

namespace zse::inline v1 {
namespace tokenizer::jinja::detail {

/// Attributes that Python's types have. They hide a dict's keys of the same name behind a dot.
inline bool has_method(const Value& value, std::string_view name) {
    static constexpr std::string_view of_strings[] = {
        "capitalize", "casefold",     "center",       "count",   "encode",     "endswith",    "expandtabs",
        "find",       "format",       "format_map",   "index",   "isalnum",    "isalpha",     "isascii",
        "isdecimal",  "isdigit",      "isidentifier", "islower", "isnumeric",  "isprintable", "isspace",
        "istitle",    "isupper",      "join",         "ljust",   "lower",      "lstrip",      "maketrans",
        "partition",  "removeprefix", "removesuffix", "replace", "rfind",      "rindex",      "rjust",
        "rpartition", "rsplit",       "rstrip",       "split",   "splitlines", "startswith",  "strip",
        "swapcase",   "title",        "translate",    "upper",   "zfill"};
    static constexpr std::string_view of_dicts[] = {"copy", "fromkeys", "get", "items", "keys", "values"};
    static constexpr std::string_view of_lists[] = {"copy", "count", "index"};
    static constexpr std::string_view of_tuples[] = {"count", "index"};
    static constexpr std::string_view of_numbers[] = {
        "as_integer_ratio", "bit_count", "bit_length", "conjugate", "denominator",
        "from_bytes",       "fromhex",   "hex",        "imag",      "is_integer",
        "numerator",        "real",      "to_bytes"};
    const auto among = [name](const auto& names) {
        return std::find(std::begin(names), std::end(names), name) != std::end(names);
    };
    if (value.is_string()) return among(of_strings);
    if (value.is_dict()) return among(of_dicts);
    if (value.is_number()) return among(of_numbers);
    if (const auto* sequence = value.object<SequenceObject>()) {
        return sequence->kind == SequenceKind::list ? among(of_lists) : among(of_tuples);
    }
    return value.object<LoopObject>() != nullptr && (name == "cycle" || name == "changed");
}

/// Methods that would change a list or dict. Chat templates run in a sandbox that hides them.
inline bool is_hidden_method(const Value& value, std::string_view name) {
    static constexpr std::string_view of_dicts[] = {"clear", "pop", "popitem", "setdefault", "update"};
    static constexpr std::string_view of_lists[] = {"append", "clear",  "extend",  "insert",
                                                    "pop",    "remove", "reverse", "sort"};
    const auto among = [name](const auto& names) {
        return std::find(std::begin(names), std::end(names), name) != std::end(names);
    };
    if (value.is_dict()) return among(of_dicts);
    const auto* sequence = value.object<SequenceObject>();
    return sequence != nullptr && sequence->kind == SequenceKind::list && among(of_lists);
}

inline Value loop_attribute(const LoopObject& loop, std::string_view name) {
    const std::size_t count = loop.items.size();
    if (name == "index") return loop.index + 1;
    if (name == "index0") return loop.index;
    if (name == "first") return loop.index == 0;
    if (name == "last") return loop.index + 1 == count;
    if (name == "length") return count;
    if (name == "revindex") return count - loop.index;
    if (name == "revindex0") return count - loop.index - 1;
    if (name == "depth") return 1;  // counts recursive loops only
    if (name == "depth0") return 0;
    if (name == "previtem") {
        return loop.index == 0 ? Value::undefined("there is no previous item") : loop.items[loop.index - 1];
    }
    if (name == "nextitem") {
        return loop.index + 1 == count ? Value::undefined("there is no next item")
                                       : loop.items[loop.index + 1];
    }
    return Value::undefined(text("a loop has no ", in_quotes(name)));
}

/// The attribute that is not an element: a method, or what a namespace, loop or macro has. Undefined
/// otherwise.
inline Value own_attribute(Budget& budget, const Value& value, std::string_view name) {
    budget.bytes(sizeof(CallableObject) + name.size());
    if (auto* space = value.object<NamespaceObject>()) {
        budget.step(space->attributes.size() / 8 + 1);
        if (const Value* found = space->find(name)) return *found;
        return Value::undefined(text("the namespace has no ", in_quotes(name)));
    }
    if (has_method(value, name)) return make_method(value, std::string(name));
    if (const auto* loop = value.object<LoopObject>()) return loop_attribute(*loop, name);
    if (is_hidden_method(value, name)) {
        return Value::undefined(text("the method ", in_quotes(name), " would change its ", type_name(value),
                                     ", which templates may not"));
    }
    if (const auto* callable = value.object<const CallableObject>(); callable != nullptr && callable->macro) {
        if (name == "name") return callable->name;
        if (name == "arguments" || name.starts_with("catch_") || name == "caller" ||
            name == "explicit_caller") {
            fail_unsupported("a macro's attribute ", in_quotes(name), " is left out");
        }
    }
    return Value::undefined(text("a value of type ", type_name(value), " has no ", in_quotes(name)));
}

/// value.name
inline Value get_attribute(Budget& budget, const Value& value, const std::string& name) {
    require_defined(value);
    if (value.is_dict() && !has_method(value, name) && !is_hidden_method(value, name)) {
        if (const Value* found = value.find(name)) return *found;
    }
    return own_attribute(budget, value, name);
}

/// value[index]
inline Value get_item(Budget& budget, const Value& value, const Value& index) {
    require_defined(value);
    if (auto found = element(budget, value, index)) return *std::move(found);
    if (index.is_string()) return own_attribute(budget, value, index.as_string());
    TextBuilder shown(budget);
    if (index.is_number()) append_repr(shown, index);
    return Value::undefined(text("a value of type ", type_name(value), " has no element ", shown.view()));
}

/// "a.0.b" as filters take it: each part an element or attribute, digits an index.
inline Value get_path(Budget& budget, Value value, const Value& path) {
    if (path.is_integer()) return get_item(budget, value, path);
    if (!path.is_string()) {
        require_defined(path);
        fail_input("an attribute is given as a string or an integer, but a value of type ", type_name(path),
                   " came");
    }
    std::string_view rest = path.as_string();
    while (true) {
        const std::size_t end = std::min(rest.find('.'), rest.size());
        const std::string_view part = rest.substr(0, end);
        const bool is_index = !part.empty() && part.size() < 10 &&
                              part.find_first_not_of("0123456789") == std::string_view::npos;
        budget.step();
        value = get_item(budget, value, is_index ? Value(std::stol(std::string(part))) : Value(part));
        if (end == rest.size()) return value;
        rest.remove_prefix(end + 1);
    }
}

}  // namespace tokenizer::jinja::detail
}  // namespace zse::inline v1
