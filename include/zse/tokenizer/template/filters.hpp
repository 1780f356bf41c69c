// SPDX-License-Identifier: Apache-2.0
// Filters over sequences and dicts, and the table of all filters.
#pragma once

#include <zse/tokenizer/template/tests.hpp>
#include <zse/tokenizer/template/text_filters.hpp>

#include <algorithm>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace zse::inline v1 {
namespace tokenizer::jinja::detail {

inline Value run_filter(Budget& budget, const std::string& name, const Value& value,
                        const Arguments& arguments);

inline Value length_filter(Budget& budget, const Value& value, const Arguments& arguments) {
    const Bound none("filter length", {}, arguments);
    if (value.is_undefined()) return 0;
    if (value.is_string()) {
        budget.scan(value.as_string().size());
        return count_characters(value.as_string());
    }
    if (value.is_dict()) return value.entries().size();
    const auto* sequence = value.object<SequenceObject>();
    if (sequence == nullptr || sequence->kind == SequenceKind::generator) {
        fail_input("a value of type ", type_name(value),
                   " has no length; put |list before it where it is lazy");
    }
    return sequence->items.size();
}

inline Value default_filter(Budget&, const Value& value, const Arguments& arguments) {
    const Bound bound("filter default", {"default_value", "boolean"}, arguments);
    const bool counts_false = bound.has(1) && is_true(bound.get(1));
    const bool missing = value.is_undefined() || (counts_false && !is_true(value));
    return missing ? bound.get(0, "") : value;
}

inline Value first_filter(Budget& budget, const Value& value, const Arguments& arguments) {
    const Bound none("filter first", {}, arguments);
    if (auto* sequence = value.object<SequenceObject>()) {
        if (sequence->walked >= sequence->items.size())
            return Value::undefined("an empty sequence has no first item");
        const std::size_t place = sequence->walked;
        if (sequence->kind == SequenceKind::generator) ++sequence->walked;
        return sequence->items[place];
    }
    const std::vector<Value> items = walk(budget, value);
    return items.empty() ? Value::undefined("an empty sequence has no first item") : items.front();
}

inline Value last_filter(Budget& budget, const Value& value, const Arguments& arguments) {
    const Bound none("filter last", {}, arguments);
    const auto* sequence = value.object<SequenceObject>();
    if (sequence != nullptr && sequence->kind == SequenceKind::generator) {
        fail_input("a lazy sequence has no last item; put |list before the filter last");
    }
    const std::vector<Value> items = walk(budget, value);
    return items.empty() ? Value::undefined("an empty sequence has no last item") : items.back();
}

inline Value list_filter(Budget& budget, const Value& value, const Arguments& arguments) {
    const Bound none("filter list", {}, arguments);
    return Value::list(walk(budget, value));
}

inline Value reverse_filter(Budget& budget, const Value& value, const Arguments& arguments) {
    const Bound none("filter reverse", {}, arguments);
    if (value.is_string()) return slice(budget, value, nullptr, nullptr, -1);
    std::vector<Value> items = walk(budget, value);
    std::reverse(items.begin(), items.end());
    // What Python can only list first, it gives back as a list.
    const auto* sequence = value.object<SequenceObject>();
    const bool is_lazy = sequence != nullptr && sequence->kind == SequenceKind::generator;
    if (is_lazy) return Value::list(std::move(items));
    return make_sequence(SequenceKind::generator, std::move(items));
}

inline Value items_filter(Budget& budget, const Value& value, const Arguments& arguments) {
    const Bound none("filter items", {}, arguments);
    if (value.is_undefined()) return make_sequence(SequenceKind::generator, {});
    if (!value.is_dict()) fail_input("the filter items needs a dict, but was given a ", type_name(value));
    return make_sequence(SequenceKind::generator, dict_view(budget, value, "items").items());
}

/// The value or its attribute, in lower case unless case counts: what sort, unique, min and max compare.
inline Value sort_key(Budget& budget, const Value& value, const Value* attribute, bool case_sensitive) {
    Value key = attribute == nullptr ? value : get_path(budget, value, *attribute);
    if (case_sensitive || !key.is_string()) return key;
    return change_case(budget, key, to_lower);
}

inline bool flag(const Bound& bound, std::size_t i) {
    return bound.has(i) && is_true(bound.get(i));
}

/// Sorts stably by keys that `key_of` gives; pairs of key and value stand in for Python's key function.
template <class KeyOf>
std::vector<Value> sorted(Budget& budget, const std::vector<Value>& items, bool descending,
                          const KeyOf& key_of) {
    std::vector<std::pair<Value, Value>> keyed;
    for (const Value& item : items) keyed.emplace_back(key_of(item), item);
    std::stable_sort(keyed.begin(), keyed.end(), [&](const auto& a, const auto& b) {
        return descending ? order(budget, b.first, a.first) < 0 : order(budget, a.first, b.first) < 0;
    });
    std::vector<Value> result;
    for (auto& entry : keyed) result.push_back(std::move(entry.second));
    return result;
}

inline Value sort_filter(Budget& budget, const Value& value, const Arguments& arguments) {
    const Bound bound("filter sort", {"reverse", "case_sensitive", "attribute"}, arguments);
    const Value* attribute = bound.has_value(2) ? &bound.get(2) : nullptr;
    if (attribute != nullptr && attribute->is_string() &&
        attribute->as_string().find(',') != std::string::npos) {
        fail_unsupported("sorting by several attributes at once is left out; sort twice, the last one first");
    }
    return Value::list(sorted(budget, walk(budget, value), flag(bound, 0), [&](const Value& item) {
        Value key = sort_key(budget, item, attribute, flag(bound, 1));
        return Value::list({std::move(key)});  // as Python has it: inside a list, undefined keys are equal
    }));
}

inline Value dictsort_filter(Budget& budget, const Value& value, const Arguments& arguments) {
    const Bound bound("filter dictsort", {"case_sensitive", "by", "reverse"}, arguments);
    require_defined(value);
    if (!value.is_dict()) fail_input("the filter dictsort needs a dict, but was given a ", type_name(value));
    const std::string by = bound.string(1, "key");
    if (by != "key" && by != "value") fail_input("the filter dictsort sorts by key or by value");
    const std::vector<Value> items = dict_view(budget, value, "items").items();
    return Value::list(sorted(budget, items, flag(bound, 2), [&](const Value& item) {
        return sort_key(budget, item.items()[by == "key" ? 0 : 1], nullptr, flag(bound, 0));
    }));
}

inline Value unique_filter(Budget& budget, const Value& value, const Arguments& arguments) {
    const Bound bound("filter unique", {"case_sensitive", "attribute"}, arguments);
    const Value* attribute = bound.has_value(1) ? &bound.get(1) : nullptr;
    std::vector<Value> keys;
    std::vector<Value> kept;
    for (const Value& item : walk(budget, value)) {
        Value key = sort_key(budget, item, attribute, flag(bound, 0));
        if (!can_be_key(key)) fail_input("the filter unique cannot compare values of type ", type_name(key));
        if (std::any_of(keys.begin(), keys.end(),
                        [&](const Value& seen) { return equal(budget, seen, key); }))
            continue;
        keys.push_back(std::move(key));
        kept.push_back(item);
    }
    return make_sequence(SequenceKind::generator, std::move(kept));
}

template <bool wants_most>
Value extreme_filter(Budget& budget, const Value& value, const Arguments& arguments) {
    const Bound bound(wants_most ? "filter max" : "filter min", {"case_sensitive", "attribute"}, arguments);
    const Value* attribute = bound.has_value(1) ? &bound.get(1) : nullptr;
    const std::vector<Value> items = walk(budget, value);
    if (items.empty()) return Value::undefined("an empty sequence has no least or greatest item");
    std::size_t best = 0;
    Value best_key = sort_key(budget, items[0], attribute, flag(bound, 0));
    for (std::size_t i = 1; i < items.size(); ++i) {
        Value key = sort_key(budget, items[i], attribute, flag(bound, 0));
        if (wants_most ? order(budget, key, best_key) > 0 : order(budget, key, best_key) < 0) {
            best = i;
            best_key = std::move(key);
        }
    }
    return items[best];
}

inline Value sum_filter(Budget& budget, const Value& value, const Arguments& arguments) {
    const Bound bound("filter sum", {"attribute", "start"}, arguments);
    Value total = bound.get(1, 0);
    if (total.is_string()) fail_input("the filter sum adds numbers or lists, not strings; use join");
    for (const Value& item : walk(budget, value)) {
        total = add(budget, total, bound.has_value(0) ? get_path(budget, item, bound.get(0)) : item);
    }
    return total;
}

inline Value join_filter(Budget& budget, const Value& value, const Arguments& arguments) {
    const Bound bound("filter join", {"d", "attribute"}, arguments);
    const std::string separator = bound.has(0) ? to_text(budget, bound.get(0)) : "";
    TextBuilder out(budget);
    bool first = true;
    for (const Value& item : walk(budget, value)) {
        if (!first) out.append(separator);
        first = false;
        append_text(out, bound.has_value(1) ? get_path(budget, item, bound.get(1)) : item);
    }
    return out.take();
}

inline Value batch_filter(Budget& budget, const Value& value, const Arguments& arguments) {
    const Bound bound("filter batch", {"linecount", "fill_with"}, arguments);
    const std::int64_t count = bound.integer(0);
    if (count < 1)
        fail_input("the filter batch needs lines of at least 1 item, but ", count, " were asked for");
    std::vector<Value> lines;
    std::vector<Value> line;
    for (const Value& item : walk(budget, value)) {
        if (static_cast<std::int64_t>(line.size()) == count)
            lines.push_back(Value::list(std::exchange(line, {})));
        line.push_back(item);
    }
    if (!line.empty() && bound.has_value(1)) {
        const auto missing = static_cast<std::uint64_t>(count) - line.size();
        budget.bytes(saturating_mul(missing, sizeof(Value)));
        line.resize(line.size() + missing, bound.get(1));
    }
    if (!line.empty()) lines.push_back(Value::list(std::move(line)));
    return make_sequence(SequenceKind::generator, std::move(lines));
}

/// The rest of the arguments behind the first `count`: for the filter or test that map and select are given.
inline Arguments rest_of(const Arguments& arguments, std::size_t count) {
    return {{arguments.positional.begin() + static_cast<std::ptrdiff_t>(count), arguments.positional.end()},
            arguments.named};
}

inline const std::string& name_argument(std::string_view callee, const Arguments& arguments, std::size_t i) {
    if (!arguments.positional[i].is_string()) fail_input("the ", callee, " needs a name as a string");
    return arguments.positional[i].as_string();
}

inline Value map_filter(Budget& budget, const Value& value, const Arguments& arguments) {
    std::vector<Value> mapped;
    if (!is_true(value)) return make_sequence(SequenceKind::generator, {});
    const Budget::Level level(budget);  // map('map', 'map', ...) calls itself
    if (arguments.positional.empty()) {
        const Bound bound("filter map", {"attribute", "default"}, arguments);
        for (const Value& item : walk(budget, value)) {
            Value found = get_path(budget, item, bound.get(0));
            if (found.is_undefined() && bound.has_value(1)) found = bound.get(1);
            mapped.push_back(std::move(found));
        }
    } else {
        const std::string& name = name_argument("filter map", arguments, 0);
        const Arguments rest = rest_of(arguments, 1);
        for (const Value& item : walk(budget, value)) mapped.push_back(run_filter(budget, name, item, rest));
    }
    return make_sequence(SequenceKind::generator, std::move(mapped));
}

template <bool by_attribute, bool keeps>
Value select_filter(Budget& budget, const Value& value, const Arguments& arguments) {
    constexpr std::size_t test_place = by_attribute ? 1 : 0;
    if (!is_true(value)) return make_sequence(SequenceKind::generator, {});
    if (by_attribute && arguments.positional.empty())
        fail_input("selectattr and rejectattr need an attribute");
    const bool has_test = arguments.positional.size() > test_place;
    const Arguments rest = has_test ? rest_of(arguments, test_place + 1) : Arguments{};
    std::vector<Value> kept;
    for (const Value& item : walk(budget, value)) {
        budget.step();
        const Value operand = by_attribute ? get_path(budget, item, arguments.positional[0]) : item;
        const bool holds =
            has_test ? run_test(budget, name_argument("filter select", arguments, test_place), operand, rest)
                     : is_true(operand);
        if (holds == keeps) kept.push_back(item);
    }
    return make_sequence(SequenceKind::generator, std::move(kept));
}

inline Value attr_filter(Budget& budget, const Value& value, const Arguments& arguments) {
    const std::string& name = Bound("filter attr", {"name"}, arguments).string(0);
    require_defined(value);
    return own_attribute(budget, value, name);
}

inline const std::unordered_map<std::string_view, Filter>& filters() {
    static const std::unordered_map<std::string_view, Filter> table = {
        {"abs", abs_filter},
        {"attr", attr_filter},
        {"batch", batch_filter},
        {"capitalize", capitalize_filter},
        {"count", length_filter},
        {"d", default_filter},
        {"default", default_filter},
        {"dictsort", dictsort_filter},
        {"e", escape_filter},
        {"escape", escape_filter},
        {"first", first_filter},
        {"float", float_filter},
        {"format", format_filter},
        {"indent", indent_filter},
        {"int", int_filter},
        {"items", items_filter},
        {"join", join_filter},
        {"last", last_filter},
        {"length", length_filter},
        {"list", list_filter},
        {"lower", case_filter<Case::lower>},
        {"map", map_filter},
        {"max", extreme_filter<true>},
        {"min", extreme_filter<false>},
        {"reject", select_filter<false, false>},
        {"rejectattr", select_filter<true, false>},
        {"replace", replace_filter},
        {"reverse", reverse_filter},
        {"round", round_filter},
        {"safe", safe_filter},
        {"select", select_filter<false, true>},
        {"selectattr", select_filter<true, true>},
        {"sort", sort_filter},
        {"string", string_filter},
        {"sum", sum_filter},
        {"title", title_filter},
        {"tojson", tojson_filter},
        {"trim", trim_filter},
        {"unique", unique_filter},
        {"upper", case_filter<Case::upper>},
    };
    return table;
}

inline bool is_filter(std::string_view name) {
    return filters().find(name) != filters().end();
}

inline Value run_filter(Budget& budget, const std::string& name, const Value& value,
                        const Arguments& arguments) {
    budget.step();
    const auto found = filters().find(name);
    if (found == filters().end()) fail_unsupported("zse knows no filter ", in_quotes(name));
    return found->second(budget, value, arguments);
}

}  // namespace tokenizer::jinja::detail
}  // namespace zse::inline v1
