// SPDX-License-Identifier: Apache-2.0
// Truth, equality, order and membership of values, as Python defines them.
#pragma once

#include <zse/tokenizer/template/print.hpp>

#include <compare>
#include <string_view>

namespace zse::inline v1 {
namespace tokenizer::jinja::detail {

inline bool is_true(const Value& value) {
    switch (value.kind()) {
        case Kind::undefined:
        case Kind::none: return false;
        case Kind::boolean: return value.as_boolean();
        case Kind::integer: return value.as_integer() != 0;
        case Kind::floating: return value.as_floating() != 0;
        case Kind::string: return !value.as_string().empty();
        case Kind::sequence:
            return value.object<SequenceObject>()->kind == SequenceKind::generator || !value.items().empty();
        case Kind::dict: return !value.entries().empty();
        case Kind::object:
        case Kind::callable: return true;
    }
    return true;
}

/// What can be walked through.
inline bool has_items(const Value& value) {
    return value.is_sequence() || value.is_dict() || value.is_string() || value.is_undefined();
}

/// What has a length and an index.
inline bool is_indexed(const Value& value) {
    if (!value.is_sequence()) return has_items(value);
    const SequenceKind kind = value.object<SequenceObject>()->kind;
    return kind != SequenceKind::generator && kind != SequenceKind::view;
}

inline bool equal(Budget& budget, const Value& a, const Value& b);

inline bool equal_sequences(Budget& budget, const SequenceObject& a, const SequenceObject& b) {
    if (a.kind != b.kind) return false;
    if (a.kind == SequenceKind::generator) return &a == &b;
    if (a.kind == SequenceKind::view) {
        if (&a == &b) return true;
        fail_unsupported("views of dicts cannot be compared; put |list behind them");
    }
    if (a.items.size() != b.items.size()) return false;
    for (std::size_t i = 0; i < a.items.size(); ++i) {
        if (!equal(budget, a.items[i], b.items[i])) return false;
    }
    return true;
}

inline bool equal_dicts(Budget& budget, const DictObject& a, const DictObject& b) {
    if (a.entries.size() != b.entries.size()) return false;
    for (const auto& [key, value] : a.entries) {
        if (!key.is_string()) budget.step(b.entries.size());
        const std::size_t place = find_entry(b, key);
        if (place == b.entries.size() || !equal(budget, value, b.entries[place].second)) return false;
    }
    return true;
}

/// The operator ==.
inline bool equal(Budget& budget, const Value& a, const Value& b) {
    budget.step();
    if (a.is_number() && b.is_number()) return equal_keys(a, b);
    if (a.kind() != b.kind()) return false;
    switch (a.kind()) {
        case Kind::undefined:
        case Kind::none: return true;
        case Kind::string: budget.scan(a.as_string().size()); return a.as_string() == b.as_string();
        case Kind::sequence:
            return equal_sequences(budget, *a.object<SequenceObject>(), *b.object<SequenceObject>());
        case Kind::dict:
            return equal_dicts(budget, *a.object<const DictObject>(), *b.object<const DictObject>());
        case Kind::callable: return a.object<const CallableObject>() == b.object<const CallableObject>();
        default:
            return a.object<NamespaceObject>() == b.object<NamespaceObject>() &&
                   a.object<LoopObject>() == b.object<LoopObject>();
    }
}

/// The order of two values for <, >, <=, >= and sorting; types that Python does not order fail.
inline std::partial_ordering order(Budget& budget, const Value& a, const Value& b) {
    budget.step();
    require_defined(a);
    require_defined(b);
    if (a.is_number() && b.is_number()) return order_numbers(a, b);
    if (a.is_string() && b.is_string()) {
        budget.scan(std::min(a.as_string().size(), b.as_string().size()));
        return a.as_string() <=> b.as_string();  // bytes of UTF-8 are in the order of code points
    }
    const auto* left = a.object<SequenceObject>();
    const auto* right = b.object<SequenceObject>();
    const auto has_order = [](const SequenceObject* sequence) {
        return sequence != nullptr &&
               (sequence->kind == SequenceKind::list || sequence->kind == SequenceKind::tuple);
    };
    if (!has_order(left) || !has_order(right) || left->kind != right->kind) {
        fail_input("values of type ", type_name(a), " and ", type_name(b), " have no order");
    }
    const std::size_t common = std::min(left->items.size(), right->items.size());
    for (std::size_t i = 0; i < common; ++i) {
        if (!equal(budget, left->items[i], right->items[i]))
            return order(budget, left->items[i], right->items[i]);
    }
    return left->items.size() <=> right->items.size();
}

/// The items that a walk over the value visits: a dict's keys, a string's characters, of undefined none.
/// A generator is used up by it.
inline std::vector<Value> walk(Budget& budget, const Value& value) {
    std::vector<Value> items;
    if (auto* sequence = value.object<SequenceObject>()) {
        budget.bytes(saturating_mul(sequence->items.size(), sizeof(Value)));
        items.assign(sequence->items.begin() + static_cast<std::ptrdiff_t>(sequence->walked),
                     sequence->items.end());
        if (sequence->kind == SequenceKind::generator) sequence->walked = sequence->items.size();
    } else if (value.is_dict()) {
        budget.bytes(saturating_mul(value.entries().size(), sizeof(Value)));
        for (const auto& entry : value.entries()) items.push_back(entry.first);
    } else if (value.is_string()) {
        constexpr std::size_t character_cost = sizeof(Value) + sizeof(TextObject) + 16;
        budget.bytes(saturating_mul(value.as_string().size(), character_cost));
        std::string_view rest = value.as_string();
        for (; !rest.empty(); rest.remove_prefix(character_size(rest))) {
            items.emplace_back(rest.substr(0, character_size(rest)));
        }
    } else if (!value.is_undefined()) {
        fail_input("a value of type ", type_name(value), " cannot be walked through");
    }
    budget.step(items.size());
    return items;
}

/// The operator `in`.
inline bool contains(Budget& budget, const Value& container, const Value& item) {
    if (container.is_string()) {
        require_defined(item);
        if (!item.is_string()) {
            fail_input("'in' a string looks for a string, but was given a value of type ", type_name(item));
        }
        budget.scan(container.as_string().size() + item.as_string().size());
        return find_text(container.as_string(), item.as_string()) != std::string_view::npos;
    }
    if (container.is_dict()) {
        const auto* dict = container.object<const DictObject>();
        if (!can_be_key(item)) fail_input("a value of type ", type_name(item), " cannot be a dict's key");
        if (!item.is_string()) budget.step(dict->entries.size());
        return find_entry(*dict, item) < dict->entries.size();
    }
    if (auto* sequence = container.object<SequenceObject>()) {
        for (std::size_t i = sequence->walked; i < sequence->items.size(); ++i) {
            if (sequence->kind == SequenceKind::generator) sequence->walked = i + 1;
            if (equal(budget, sequence->items[i], item)) return true;
        }
        return false;
    }
    if (container.is_undefined()) return false;
    fail_input("'in' needs a string, list or dict, but was given a value of type ", type_name(container));
}

}  // namespace tokenizer::jinja::detail
}  // namespace zse::inline v1
