// SPDX-License-Identifier: Apache-2.0
// The methods that templates may call: those of dicts and lists, and the way to those of strings.
#pragma once

#include <zse/tokenizer/template/string_methods.hpp>

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace zse::inline v1 {
namespace tokenizer::jinja::detail {

inline Value count_of_item(Budget& budget, const Value& value, const Arguments& arguments) {
    const Value& wanted = Bound("method count", {"value"}, arguments).get(0);
    std::size_t count = 0;
    for (const Value& item : value.items()) count += equal(budget, item, wanted) ? 1 : 0;
    return count;
}

inline Value index_of_item(Budget& budget, const Value& value, const Arguments& arguments) {
    const Value& wanted = Bound("method index", {"value"}, arguments).get(0);
    for (std::size_t i = 0; i < value.items().size(); ++i) {
        if (equal(budget, value.items()[i], wanted)) return i;
    }
    fail_input("the value that index() looks for is not in the list");
}

/// keys(), values() and items() of a dict.
inline Value dict_view(Budget& budget, const Value& dict, std::string_view name) {
    budget.bytes(saturating_mul(dict.entries().size(), 2 * sizeof(Value) + sizeof(SequenceObject)));
    budget.step(dict.entries().size());
    std::vector<Value> items;
    for (const auto& [key, value] : dict.entries()) {
        items.push_back(name == "keys" ? key : name == "values" ? value : Value::tuple({key, value}));
    }
    return make_sequence(SequenceKind::view, std::move(items), "dict_" + std::string(name));
}

inline Value call_method(Budget& budget, const CallableObject& method, const Arguments& arguments) {
    const Value& receiver = method.receiver;
    const std::string& name = method.name;
    if (receiver.is_string()) {
        const auto found = string_methods().find(name);
        if (found != string_methods().end()) return found->second(budget, receiver, arguments);
    } else if (receiver.is_dict()) {
        if (name == "get") {
            const Bound bound("method get", {"key", "default"}, arguments);
            if (!can_be_key(bound.get(0))) fail_input("the key of get() is a string, number, none or tuple");
            auto found = element(budget, receiver, bound.get(0));
            return found ? *std::move(found) : bound.get(1, nullptr);
        }
        const Bound none("method of a dict", {}, name == "fromkeys" ? Arguments{} : arguments);
        if (name == "items" || name == "keys" || name == "values") return dict_view(budget, receiver, name);
        if (name == "copy") return receiver;
    } else if (receiver.is_sequence()) {
        if (name == "count") return count_of_item(budget, receiver, arguments);
        if (name == "index") return index_of_item(budget, receiver, arguments);
        if (name == "copy") return receiver;
    }
    fail_unsupported("the method ", in_quotes(name), " of a ", type_name(receiver), " is left out");
}

}  // namespace tokenizer::jinja::detail
}  // namespace zse::inline v1
