// SPDX-License-Identifier: Apache-2.0
// JSON to template values, for tests that keep their conversations in JSON.
#pragma once

#include <nlohmann/json.hpp>
#include <zse/tokenizer/template/value.hpp>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace support {

/// Keeps the order of the keys.
inline zse::tokenizer::jinja::Value template_value(const nlohmann::ordered_json& json) {
    using zse::tokenizer::jinja::Value;
    if (json.is_boolean()) return json.get<bool>();
    if (json.is_number_integer()) return json.get<std::int64_t>();
    if (json.is_number()) return json.get<double>();
    if (json.is_string()) return json.get<std::string>();
    if (json.is_array()) {
        std::vector<Value> items;
        for (const auto& item : json) items.push_back(template_value(item));
        return Value::list(std::move(items));
    }
    if (json.is_object()) {
        std::vector<Value::Entry> entries;
        for (const auto& [key, value] : json.items()) entries.emplace_back(key, template_value(value));
        return Value::dict(std::move(entries));
    }
    return nullptr;
}

}  // namespace support
