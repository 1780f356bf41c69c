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

inline bool is_filter(std::string_view name);

template <bool (*holds)(const Value&)>
bool plain_test(Budget&, const Value& value, const Arguments& arguments) {
    const Bound none("test", {}, arguments);
    return holds(value);
}

template <bool (*holds)(std::partial_ordering)>
bool order_test(Budget& budget, const Value& value, const Arguments& arguments) {
    return holds(order(budget, value, Bound("test", {"other"}, arguments).get(0)));
}

inline bool has_items(const Value& value) {
    return value.is_sequence() || value.is_dict() || value.is_string() || value.is_undefined();
}

/// What has a length and an index in Python.
inline bool is_indexed(const Value& value) {
    if (!value.is_sequence()) return has_items(value);
    const SequenceKind kind = value.object<SequenceObject>()->kind;
    return kind != SequenceKind::generator && kind != SequenceKind::view;
}

inline std::int64_t integer_operand(const Value& value) {
    require_defined(value);
    if (!value.is_integer() && !value.is_boolean()) {
        fail_input("odd, even and divisibleby test integers, but were given a value of type ", type_name(value));
    }
    return value.as_integer();
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
        fail_unsupported("sameas compares none, booleans, lists and dicts only; use == for numbers and strings");
    }
    if (a.is_boolean()) return a.as_boolean() == b.as_boolean();
    return a.is_none() || (a.object<SequenceObject>() == b.object<SequenceObject>() &&
                           a.object<const DictObject>() == b.object<const DictObject>() &&
                           a.object<NamespaceObject>() == b.object<NamespaceObject>() &&
                           a.object<LoopObject>() == b.object<LoopObject>() &&
                           a.object<const CallableObject>() == b.object<const CallableObject>());
}

inline const std::unordered_map<std::string_view, Test>& tests() {
    static const std::unordered_map<std::string_view, Test> table = [] {
        std::unordered_map<std::string_view, Test> all;
        using V = const Value&;
        all["defined"] = plain_test<+[](V v) { return !v.is_undefined(); }>;
        all["undefined"] = plain_test<+[](V v) { return v.is_undefined(); }>;
        all["none"] = plain_test<+[](V v) { return v.is_none(); }>;
        all["boolean"] = plain_test<+[](V v) { return v.is_boolean(); }>;
        all["true"] = plain_test<+[](V v) { return v.is_boolean() && v.as_boolean(); }>;
        all["false"] = plain_test<+[](V v) { return v.is_boolean() && !v.as_boolean(); }>;
        all["integer"] = plain_test<+[](V v) { return v.is_integer(); }>;
        all["float"] = plain_test<+[](V v) { return v.is_floating(); }>;
        all["number"] = plain_test<+[](V v) { return v.is_number(); }>;
        all["string"] = plain_test<+[](V v) { return v.is_string(); }>;
        all["mapping"] = plain_test<+[](V v) { return v.is_dict(); }>;
        all["escaped"] = plain_test<+[](V v) { return v.is_markup(); }>;
        all["iterable"] = plain_test<has_items>;
        all["sequence"] = plain_test<is_indexed>;
        all["callable"] = plain_test<+[](V v) { return v.kind() == Kind::callable || v.is_undefined(); }>;
        all["odd"] = plain_test<+[](V v) { return integer_operand(v) % 2 != 0; }>;
        all["even"] = plain_test<+[](V v) { return integer_operand(v) % 2 == 0; }>;
        all["divisibleby"] = [](Budget&, V value, const Arguments& arguments) {
            const std::int64_t by = Bound("test divisibleby", {"num"}, arguments).integer(0);
            return floor_division(integer_operand(value), by).remainder == 0;
        };
        all["lower"] = [](Budget& budget, V value, const Arguments&) { return has_case(budget, value, Case::lower); };
        all["upper"] = [](Budget& budget, V value, const Arguments&) { return has_case(budget, value, Case::upper); };
        all["sameas"] = [](Budget&, V value, const Arguments& arguments) {
            return is_same_object(value, Bound("test sameas", {"other"}, arguments).get(0));
        };
        all["in"] = [](Budget& budget, V value, const Arguments& arguments) {
            return contains(budget, Bound("test in", {"seq"}, arguments).get(0), value);
        };
        all["filter"] = [](Budget&, V value, const Arguments&) { return value.is_string() && is_filter(value.as_string()); };
        all["test"] = [](Budget&, V value, const Arguments&) {
            return value.is_string() && tests().find(value.as_string()) != tests().end();
        };
        const Test equals = [](Budget& budget, V value, const Arguments& arguments) {
            return equal(budget, value, Bound("test eq", {"other"}, arguments).get(0));
        };
        const Test differs = [](Budget& budget, V value, const Arguments& arguments) {
            return !equal(budget, value, Bound("test ne", {"other"}, arguments).get(0));
        };
        for (const std::string_view name : {"eq", "equalto", "=="}) all[name] = equals;
        for (const std::string_view name : {"ne", "!="}) all[name] = differs;
        using Order = std::partial_ordering;
        for (const std::string_view name : {"lt", "lessthan", "<"}) all[name] = order_test<+[](Order o) { return o < 0; }>;
        for (const std::string_view name : {"le", "<="}) all[name] = order_test<+[](Order o) { return o <= 0; }>;
        for (const std::string_view name : {"gt", "greaterthan", ">"}) {
            all[name] = order_test<+[](Order o) { return o > 0; }>;
        }
        for (const std::string_view name : {"ge", ">="}) all[name] = order_test<+[](Order o) { return o >= 0; }>;
        return all;
    }();
    return table;
}

inline bool run_test(Budget& budget, const std::string& name, const Value& value, const Arguments& arguments) {
    const auto found = tests().find(name);
    if (found == tests().end()) fail_unsupported("zse knows no test ", quoted(name));
    return found->second(budget, value, arguments);
}

}  // namespace tokenizer::jinja::detail
}  // namespace zse::inline v1
