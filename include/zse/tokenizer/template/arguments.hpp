// SPDX-License-Identifier: Apache-2.0
// Arguments of a call, and how they are matched to the parameters of a filter, test, function or method.
#pragma once

#include <zse/tokenizer/template/print.hpp>

#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace zse::inline v1 {
namespace tokenizer::jinja::detail {

struct Arguments {
    std::vector<Value> positional{};
    std::vector<std::pair<std::string, Value>> named{};
};

/// Arguments in the order of the parameters. Reading them converts, and fails with the callee's name.
class Bound {
public:
    /// Matches like Python: too many, unknown and doubled arguments fail. `callee` is, say, "filter join".
    Bound(std::string_view callee, std::initializer_list<std::string_view> parameters,
          const Arguments& arguments)
        : callee_(callee), parameters_(parameters), values_(parameters.size(), nullptr) {
        if (arguments.positional.size() > parameters.size()) {
            fail_input("the ", callee, " takes at most ", parameters.size(), " arguments, but ",
                       arguments.positional.size(), " are given");
        }
        for (std::size_t i = 0; i < arguments.positional.size(); ++i) values_[i] = &arguments.positional[i];
        for (const auto& [name, value] : arguments.named) {
            std::size_t place = 0;
            while (place < parameters_.size() && parameters_[place] != name) ++place;
            if (place == parameters_.size())
                fail_input("the ", callee, " takes no argument ", in_quotes(name));
            if (values_[place] != nullptr)
                fail_input("the ", callee, " is given its argument ", in_quotes(name), " twice");
            values_[place] = &value;
        }
    }

    [[nodiscard]] bool has(std::size_t i) const { return values_[i] != nullptr; }
    [[nodiscard]] bool has_value(std::size_t i) const { return has(i) && !values_[i]->is_none(); }

    /// The argument; fails where it is missing.
    [[nodiscard]] const Value& get(std::size_t i) const {
        if (!has(i)) fail_input("the ", callee_, " needs an argument ", parameters_[i]);
        return *values_[i];
    }
    [[nodiscard]] Value get(std::size_t i, const Value& fallback) const {
        return has(i) ? *values_[i] : fallback;
    }

    [[nodiscard]] const std::string& string(std::size_t i) const {
        const Value& value = get(i);
        if (!value.is_string()) fail_type(i, "a string");
        return value.as_string();
    }
    [[nodiscard]] std::string string(std::size_t i, std::string_view fallback) const {
        return has(i) ? string(i) : std::string(fallback);
    }
    [[nodiscard]] std::int64_t integer(std::size_t i) const {
        const Value& value = get(i);
        if (!value.is_integer() && !value.is_boolean()) fail_type(i, "an integer");
        return value.as_integer();
    }
    [[nodiscard]] std::int64_t integer(std::size_t i, std::int64_t fallback) const {
        return has(i) ? integer(i) : fallback;
    }

private:
    [[noreturn]] void fail_type(std::size_t i, std::string_view wanted) const {
        require_defined(*values_[i]);
        fail_input("the ", callee_, " needs ", wanted, " for its argument ", parameters_[i],
                   ", but was given a value of type ", type_name(*values_[i]));
    }

    std::string callee_;
    std::vector<std::string_view> parameters_;
    std::vector<const Value*> values_;
};

}  // namespace tokenizer::jinja::detail
}  // namespace zse::inline v1
