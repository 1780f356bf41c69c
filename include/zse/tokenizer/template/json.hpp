// SPDX-License-Identifier: Apache-2.0
// The tojson filter of chat templates: json.dumps with its spacing, not Jinja's HTML-safe one.
#pragma once

#include <zse/tokenizer/template/compare.hpp>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace zse::inline v1 {
namespace tokenizer::jinja::detail {

struct JsonStyle {
    bool ascii = false;  ///< \uXXXX for everything beyond ASCII
    bool sort_keys = false;
    std::optional<std::string> indent{};  ///< one level of it; absent: all on one line
    std::string between_items = ", ";
    std::string after_key = ": ";
};

class JsonWriter {
public:
    JsonWriter(Budget& budget, JsonStyle style) : out_(budget), style_(std::move(style)) {}

    std::string write(const Value& value) {
        add(value, 0);
        return out_.take();
    }

private:
    void add(const Value& value, std::size_t level) {
        out_.budget().step();
        switch (value.kind()) {
            case Kind::none: out_.append("null"); return;
            case Kind::boolean: out_.append(value.as_boolean() ? "true" : "false"); return;
            case Kind::integer: out_.append(std::to_string(value.as_integer())); return;
            case Kind::floating: out_.append(number(value.as_floating())); return;
            case Kind::string: add_string(value.as_string()); return;
            case Kind::dict: add_dict(value, level); return;
            case Kind::sequence: {
                const SequenceKind kind = value.object<SequenceObject>()->kind;
                if (kind == SequenceKind::list || kind == SequenceKind::tuple)
                    return add_list(value.items(), level);
                break;
            }
            case Kind::undefined: require_defined(value); break;
            default: break;
        }
        fail_input("JSON has no form for a value of type ", type_name(value));
    }

    static std::string number(double value) {
        if (std::isnan(value)) return "NaN";
        if (std::isinf(value)) return value < 0 ? "-Infinity" : "Infinity";
        return float_text(value);
    }

    void new_line(std::size_t level) {
        if (!style_.indent) return;
        out_.append("\n");
        for (std::size_t i = 0; i < level; ++i) out_.append(*style_.indent);
    }

    void add_list(const std::vector<Value>& items, std::size_t level) {
        out_.append("[");
        bool first = true;
        for (const Value& item : items) {
            if (!first) out_.append(style_.between_items);
            first = false;
            new_line(level + 1);
            add(item, level + 1);
        }
        if (!items.empty()) new_line(level);
        out_.append("]");
    }

    void add_dict(const Value& dict, std::size_t level) {
        std::vector<const Value::Entry*> entries;
        out_.budget().bytes(dict.entries().size() * sizeof(void*));
        for (const auto& entry : dict.entries()) entries.push_back(&entry);
        if (style_.sort_keys) {
            std::stable_sort(entries.begin(), entries.end(), [this](const auto* a, const auto* b) {
                return order(out_.budget(), a->first, b->first) < 0;
            });
        }
        out_.append("{");
        bool first = true;
        for (const auto* entry : entries) {
            if (!first) out_.append(style_.between_items);
            first = false;
            new_line(level + 1);
            add_key(entry->first);
            out_.append(style_.after_key);
            add(entry->second, level + 1);
        }
        if (!entries.empty()) new_line(level);
        out_.append("}");
    }

    void add_key(const Value& key) {
        if (key.is_string()) return add_string(key.as_string());
        if (key.is_sequence()) fail_input("a key of JSON is a string, but the dict has a tuple for one");
        out_.append("\"");
        add(key, 0);
        out_.append("\"");
    }

    void add_string(std::string_view string) {
        out_.append("\"");
        while (!string.empty()) {
            const std::string_view character = string.substr(0, character_size(string));
            string.remove_prefix(character.size());
            const std::uint32_t c = code_point(character);
            switch (c) {
                case '"': out_.append("\\\""); continue;
                case '\\': out_.append("\\\\"); continue;
                case '\n': out_.append("\\n"); continue;
                case '\r': out_.append("\\r"); continue;
                case '\t': out_.append("\\t"); continue;
                case '\b': out_.append("\\b"); continue;
                case '\f': out_.append("\\f"); continue;
                default: break;
            }
            if (c < 0x20 || (style_.ascii && c > 0x7E && c < 0x10000)) {
                add_escape(c);
            } else if (style_.ascii && c >= 0x10000 && c < 0x110000) {
                add_escape(0xD800 + ((c - 0x10000) >> 10));
                add_escape(0xDC00 + (c & 0x3FF));
            } else {
                out_.append(character);
            }
        }
        out_.append("\"");
    }

    void add_escape(std::uint32_t unit) {
        char buffer[8];
        std::snprintf(buffer, sizeof buffer, "\\u%04x", unit);
        out_.append(buffer);
    }

    TextBuilder out_;
    JsonStyle style_;
};

}  // namespace tokenizer::jinja::detail
}  // namespace zse::inline v1
