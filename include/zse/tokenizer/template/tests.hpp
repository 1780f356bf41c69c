// SPDX-License-Identifier: Apache-2.0
// The tests behind "is".
#pragma once

#include <zse/tokenizer/template/access.hpp>
#include <zse/tokenizer/template/arguments.hpp>

#include <string>
#include <string_view>
#include <unordered_map>

namespace zse::inline v1 {
namespace tokenizer::jinja::detail {

using Test = bool (*)(Budget&, const Value&, const Arguments&);
using PlainTest = bool (*)(const Value&);

inline bool is_filter(std::string_view name);
inline bool is_test(std::string_view name);

inline std::int64_t integer_operand(const Value& value) {
    require_defined(value);
    if (!value.is_integer() && !value.is_boolean()) {
        fail_input("odd, even and divisibleby test integers, but were given a value of type ",
                   type_name(value));
    }
    return value.as_integer();
}

/// value % 2
inline double half_left(const Value& value) {
    return value.is_floating() ? float_remainder(value.as_floating(), 2)
                               : static_cast<double>(floor_division(integer_operand(value), 2).remainder);
}

/// str(value).isupper() or islower(): some letter has a case, and none the other one.
inline bool has_case(Budget& budget, const Value& value, Case wanted) {
    const std::string string = to_text(budget, value);
    budget.scan(string.size() * 8);
    bool found = false;
    for (std::string_view rest = string; !rest.empty(); rest.remove_prefix(character_size(rest))) {
        const std::string_view character = rest.substr(0, character_size(rest));
        if (!is_cased(character)) continue;
        std::string same;
        append_case(same, character, wanted);
        if (same != character) return false;
        found = true;
    }
    return found;
}

inline bool is_same_object(const Value& a, const Value& b) {
    if (a.kind() != b.kind()) return false;
    if (a.is_integer() || a.is_floating() || a.is_string()) {
        fail_unsupported(
            "sameas compares none, booleans, lists and dicts only; use == for numbers and strings");
    }
    if (a.is_boolean()) return a.as_boolean() == b.as_boolean();
    return a.is_none() || (a.object<SequenceObject>() == b.object<SequenceObject>() &&
                           a.object<const DictObject>() == b.object<const DictObject>() &&
                           a.object<NamespaceObject>() == b.object<NamespaceObject>() &&
                           a.object<LoopObject>() == b.object<LoopObject>() &&
                           a.object<const CallableObject>() == b.object<const CallableObject>());
}

/// Tests of the value alone.
inline const std::unordered_map<std::string_view, PlainTest>& plain_tests() {
    static const std::unordered_map<std::string_view, PlainTest> table = {
        {"boolean", [](const Value& v) { return v.is_boolean(); }},
        {"callable", [](const Value& v) { return v.kind() == Kind::callable || v.is_undefined(); }},
        {"defined", [](const Value& v) { return !v.is_undefined(); }},
        {"escaped", [](const Value& v) { return v.is_markup(); }},
        {"even", [](const Value& v) { return half_left(v) == 0; }},
        {"false", [](const Value& v) { return v.is_boolean() && !v.as_boolean(); }},
        {"filter", [](const Value& v) { return v.is_string() && is_filter(v.as_string()); }},
        {"float", [](const Value& v) { return v.is_floating(); }},
        {"integer", [](const Value& v) { return v.is_integer(); }},
        {"iterable", has_items},
        {"mapping", [](const Value& v) { return v.is_dict(); }},
        {"none", [](const Value& v) { return v.is_none(); }},
        {"number", [](const Value& v) { return v.is_number(); }},
        {"odd", [](const Value& v) { return half_left(v) == 1; }},
        {"sequence", is_indexed},
        {"string", [](const Value& v) { return v.is_string(); }},
        {"test", [](const Value& v) { return v.is_string() && is_test(v.as_string()); }},
        {"true", [](const Value& v) { return v.is_boolean() && v.as_boolean(); }},
        {"undefined", [](const Value& v) { return v.is_undefined(); }},
    };
    return table;
}

/// Tests against another value, or that cost more than a look.
inline const std::unordered_map<std::string_view, Test>& tests() {
    static const Test equals = [](Budget& budget, const Value& value, const Arguments& arguments) {
        return equal(budget, value, Bound("test eq", {"other"}, arguments).get(0));
    };
    static const Test differs = [](Budget& budget, const Value& value, const Arguments& arguments) {
        return !equal(budget, value, Bound("test ne", {"other"}, arguments).get(0));
    };
    static const auto compared = [](Budget& budget, const Value& value, const Arguments& arguments) {
        return order(budget, value, Bound("test of order", {"other"}, arguments).get(0));
    };
    static const Test less = [](Budget& b, const Value& v, const Arguments& a) {
        return compared(b, v, a) < 0;
    };
    static const Test less_equal = [](Budget& b, const Value& v, const Arguments& a) {
        return compared(b, v, a) <= 0;
    };
    static const Test greater = [](Budget& b, const Value& v, const Arguments& a) {
        return compared(b, v, a) > 0;
    };
    static const Test greater_equal = [](Budget& b, const Value& v, const Arguments& a) {
        return compared(b, v, a) >= 0;
    };
    static const std::unordered_map<std::string_view, Test> table = {
        {"eq", equals},
        {"equalto", equals},
        {"==", equals},
        {"ne", differs},
        {"!=", differs},
        {"lt", less},
        {"lessthan", less},
        {"<", less},
        {"le", less_equal},
        {"<=", less_equal},
        {"gt", greater},
        {"greaterthan", greater},
        {">", greater},
        {"ge", greater_equal},
        {">=", greater_equal},
        {"divisibleby",
         [](Budget&, const Value& value, const Arguments& arguments) {
             const std::int64_t by = Bound("test divisibleby", {"num"}, arguments).integer(0);
             return floor_division(integer_operand(value), by).remainder == 0;
         }},
        {"in",
         [](Budget& budget, const Value& value, const Arguments& arguments) {
             return contains(budget, Bound("test in", {"seq"}, arguments).get(0), value);
         }},
        {"lower",
         [](Budget& budget, const Value& value, const Arguments& arguments) {
             const Bound none("test lower", {}, arguments);
             return has_case(budget, value, Case::lower);
         }},
        {"sameas",
         [](Budget&, const Value& value, const Arguments& arguments) {
             return is_same_object(value, Bound("test sameas", {"other"}, arguments).get(0));
         }},
        {"upper",
         [](Budget& budget, const Value& value, const Arguments& arguments) {
             const Bound none("test upper", {}, arguments);
             return has_case(budget, value, Case::upper);
         }},
    };
    return table;
}

inline bool is_test(std::string_view name) {
    return plain_tests().contains(name) || tests().contains(name);
}

inline bool run_test(Budget& budget, const std::string& name, const Value& value,
                     const Arguments& arguments) {
    if (const auto plain = plain_tests().find(name); plain != plain_tests().end()) {
        if (!arguments.positional.empty() || !arguments.named.empty()) {
            fail_input("the test ", in_quotes(name), " takes no arguments");
        }
        return plain->second(value);
    }
    const auto found = tests().find(name);
    if (found == tests().end()) fail_unsupported("zse knows no test ", in_quotes(name));
    return found->second(budget, value, arguments);
}

}  // namespace tokenizer::jinja::detail
}  // namespace zse::inline v1

// The test "is filter" asks for the table of filters, and the filter "select" for that of tests.
#include <zse/tokenizer/template/filters.hpp>
