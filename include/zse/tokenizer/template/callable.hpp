// SPDX-License-Identifier: Apache-2.0
// What a template can call: functions of the environment, methods bound to a value, and macros.
#pragma once

#include <zse/tokenizer/template/value.hpp>

#include <memory>
#include <string>

namespace zse::inline v1 {
namespace tokenizer::jinja::detail {

struct MacroNode;
class Scope;

struct CallableObject {
    std::string name;
    Value receiver{};                 ///< of a method
    const MacroNode* macro = nullptr;  ///< of a macro; it belongs to the template being rendered
    std::shared_ptr<Scope> scope{};   ///< of a macro: where it was defined
    bool is_method = false;
};

inline Value make_function(std::string name) {
    return Value(std::make_shared<const CallableObject>(CallableObject{.name = std::move(name)}));
}

inline Value make_method(const Value& receiver, std::string name) {
    return Value(std::make_shared<const CallableObject>(
        CallableObject{.name = std::move(name), .receiver = receiver, .is_method = true}));
}

}  // namespace tokenizer::jinja::detail
}  // namespace zse::inline v1
