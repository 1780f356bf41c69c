// SPDX-License-Identifier: Apache-2.0
// The names that a template has set, one scope per block that Jinja scopes: loops, macros, with, captures.
#pragma once

#include <zse/tokenizer/template/value.hpp>

#include <memory>
#include <string_view>
#include <unordered_map>
#include <utility>

namespace zse::inline v1 {
namespace tokenizer::jinja::detail {

/// Names point into the syntax tree, which outlives the rendering.
class Scope {
public:
    explicit Scope(std::shared_ptr<Scope> parent) : parent_(std::move(parent)) {}

    [[nodiscard]] const Scope* parent() const noexcept { return parent_.get(); }
    [[nodiscard]] const Value* find(std::string_view name) const {
        const auto found = values_.find(name);
        return found == values_.end() ? nullptr : &found->second;
    }
    void set(std::string_view name, Value value) { values_.insert_or_assign(name, std::move(value)); }
    void clear() { values_.clear(); }

private:
    std::shared_ptr<Scope> parent_;
    std::unordered_map<std::string_view, Value> values_;
};

}  // namespace tokenizer::jinja::detail
}  // namespace zse::inline v1
