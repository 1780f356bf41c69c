// SPDX-License-Identifier: Apache-2.0
// The values that a template computes with: Python's, as far as chat templates use them.
// Strings, lists and dicts are immutable and shared; namespaces alone can change.
#pragma once

#include <zse/tokenizer/template/budget.hpp>

#include <algorithm>
#include <compare>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

namespace zse::inline v1 {
namespace tokenizer::jinja {

class Value;

namespace detail {

struct SequenceObject;
struct DictObject;
struct NamespaceObject;
struct LoopObject;
struct CallableObject;

/// UTF-8. `markup` is set on what `safe` and `escape` return: adding to it escapes the other side.
struct TextObject {
    std::string bytes;
    bool markup = false;
};

enum class SequenceKind {
    list,
    tuple,
    range,
    generator,  ///< what lazy filters return: always true, no length, can be walked once
    view,       ///< keys(), values() or items() of a dict: a length, but no index
};

}  // namespace detail

/// What a value is, in Python's terms.
enum class Kind { undefined, none, boolean, integer, floating, string, sequence, dict, object, callable };

/// A Python value. Copies share.
class Value {
public:
    using Entry = std::pair<Value, Value>;

    /// Undefined, as a name that was never set.
    Value() = default;
    Value(std::nullptr_t) : data_(None{}) {}  // NOLINT(google-explicit-constructor): reads as JSON does
    template <std::same_as<bool> T>
    Value(T value) : data_(value) {}  // NOLINT(google-explicit-constructor)
    template <std::integral T>
    requires(!std::same_as<T, bool> && sizeof(T) <= 8) Value(T value)
        : data_(checked(value)) {}         // NOLINT(google-explicit-constructor)
    Value(double value) : data_(value) {}  // NOLINT(google-explicit-constructor)
    Value(std::string value)               // NOLINT(google-explicit-constructor)
        : data_(std::make_shared<const detail::TextObject>(detail::TextObject{std::move(value)})) {}
    Value(std::string_view value) : Value(std::string(value)) {}  // NOLINT(google-explicit-constructor)
    Value(const char* value) : Value(std::string(value)) {}       // NOLINT(google-explicit-constructor)

    /// Nesting deeper than max_value_depth is an Error (invalid_input).
    static Value list(std::vector<Value> items);
    static Value tuple(std::vector<Value> items);
    /// Keeps the order; of equal keys the place of the first and the value of the last, as Python.
    /// Keys are none, boolean, number, string or tuple; anything else is an Error (invalid_input).
    static Value dict(std::vector<Entry> entries);
    /// `message` says what is undefined, for the error when it is used.
    static Value undefined(std::string message);

    [[nodiscard]] Kind kind() const noexcept;
    [[nodiscard]] bool is_undefined() const noexcept { return holds<Undefined>(); }
    [[nodiscard]] bool is_none() const noexcept { return holds<None>(); }
    [[nodiscard]] bool is_boolean() const noexcept { return holds<bool>(); }
    [[nodiscard]] bool is_integer() const noexcept { return holds<std::int64_t>(); }
    [[nodiscard]] bool is_floating() const noexcept { return holds<double>(); }
    [[nodiscard]] bool is_number() const noexcept { return is_boolean() || is_integer() || is_floating(); }
    [[nodiscard]] bool is_string() const noexcept { return holds<Shared<const detail::TextObject>>(); }
    [[nodiscard]] bool is_sequence() const noexcept { return holds<Shared<detail::SequenceObject>>(); }
    [[nodiscard]] bool is_dict() const noexcept { return holds<Shared<const detail::DictObject>>(); }

    // Each of the following needs the kind that its name says.
    [[nodiscard]] bool as_boolean() const { return std::get<bool>(data_); }
    /// Of an integer or a boolean.
    [[nodiscard]] std::int64_t as_integer() const {
        return is_boolean() ? static_cast<std::int64_t>(as_boolean()) : std::get<std::int64_t>(data_);
    }
    /// Of any number.
    [[nodiscard]] double as_floating() const {
        return is_floating() ? std::get<double>(data_) : static_cast<double>(as_integer());
    }
    [[nodiscard]] const std::string& as_string() const {
        return std::get<Shared<const detail::TextObject>>(data_)->bytes;
    }
    [[nodiscard]] const std::vector<Value>& items() const;
    [[nodiscard]] const std::vector<Entry>& entries() const;
    /// The dict's value of a string key; nullptr where there is none.
    [[nodiscard]] const Value* find(std::string_view key) const;

    // For the evaluator.
    template <class T>
    using Shared = std::shared_ptr<T>;
    explicit Value(Shared<const detail::TextObject> object) : data_(std::move(object)) {}
    explicit Value(Shared<detail::SequenceObject> object) : data_(std::move(object)) {}
    explicit Value(Shared<const detail::DictObject> object) : data_(std::move(object)) {}
    explicit Value(Shared<detail::NamespaceObject> object) : data_(std::move(object)) {}
    explicit Value(Shared<detail::LoopObject> object) : data_(std::move(object)) {}
    explicit Value(Shared<const detail::CallableObject> object) : data_(std::move(object)) {}
    /// The object behind it; nullptr where it is of another type.
    template <class T>
    [[nodiscard]] T* object() const noexcept {
        const auto* held = std::get_if<Shared<T>>(&data_);
        return held == nullptr ? nullptr : held->get();
    }
    template <class T>
    [[nodiscard]] Shared<T> share() const {
        return std::get<Shared<T>>(data_);
    }
    [[nodiscard]] bool is_markup() const noexcept {
        const auto* string = object<const detail::TextObject>();
        return string != nullptr && string->markup;
    }
    /// What is undefined, as a sentence without its end.
    [[nodiscard]] std::string undefined_message() const {
        const auto& message = std::get<Undefined>(data_).message;
        return message ? *message : "an undefined value is used";
    }

private:
    struct None {};
    struct Undefined {
        Shared<const std::string> message;
    };

    template <class T>
    [[nodiscard]] bool holds() const noexcept {
        return std::holds_alternative<T>(data_);
    }
    template <std::integral T>
    static std::int64_t checked(T value) {
        if constexpr (std::unsigned_integral<T> && sizeof(T) == 8) {
            if (value > static_cast<T>(std::numeric_limits<std::int64_t>::max())) {
                detail::fail_unsupported("integers of templates have 64 bits, but ", value, " was given");
            }
        }
        return static_cast<std::int64_t>(value);
    }

    std::variant<Undefined, None, bool, std::int64_t, double, Shared<const detail::TextObject>,
                 Shared<detail::SequenceObject>, Shared<const detail::DictObject>,
                 Shared<detail::NamespaceObject>, Shared<detail::LoopObject>,
                 Shared<const detail::CallableObject>>
        data_;
};

namespace detail {

struct SequenceObject {
    SequenceKind kind = SequenceKind::list;
    std::vector<Value> items;
    std::size_t depth = 1;
    std::size_t walked = 0;  ///< of a generator: items already taken
    std::string printed;     ///< of a range or view: what stands before its items in print
};

struct DictObject {
    std::vector<Value::Entry> entries;
    std::size_t depth = 1;
    std::unordered_map<std::string_view, std::size_t> names;  ///< string keys (they point into entries)
};

struct NamespaceObject {
    std::vector<std::pair<std::string, Value>> attributes;

    [[nodiscard]] Value* find(std::string_view name) {
        for (auto& attribute : attributes) {
            if (attribute.first == name) return &attribute.second;
        }
        return nullptr;
    }
};

/// `loop` inside a for.
struct LoopObject {
    std::vector<Value> items;
    std::size_t depth = 1;
    std::size_t index = 0;
};

struct MacroNode;
class Scope;

/// What a template can call: a function of the environment, a method bound to a value, or a macro.
struct CallableObject {
    std::string name;
    Value receiver{};                  ///< of a method
    const MacroNode* macro = nullptr;  ///< of a macro; it belongs to the template being rendered
    std::shared_ptr<Scope> scope{};    ///< of a macro: where it was defined
    bool is_method = false;
};

/// Objects that a value holds inside each other. Namespaces and scopes end the count: the renderer owns them.
inline std::size_t depth_of(const Value& value) noexcept {
    if (const auto* sequence = value.object<SequenceObject>()) return sequence->depth;
    if (const auto* dict = value.object<const DictObject>()) return dict->depth;
    if (const auto* loop = value.object<LoopObject>()) return loop->depth;
    if (const auto* callable = value.object<const CallableObject>()) return depth_of(callable->receiver) + 1;
    return 0;
}

inline void check_depth(std::size_t depth) {
    if (depth > max_value_depth) {
        fail_input("values nest at most ", max_value_depth, " lists and dicts, but a deeper one was made");
    }
}

/// The depth of what holds these items.
inline std::size_t depth_around(const std::vector<Value>& items) {
    std::size_t depth = 1;
    for (const Value& item : items) depth = std::max(depth, depth_of(item) + 1);
    check_depth(depth);
    return depth;
}

inline Value make_sequence(SequenceKind kind, std::vector<Value> items, std::string printed = {}) {
    auto object = std::make_shared<SequenceObject>();
    object->depth = depth_around(items);
    object->kind = kind;
    object->items = std::move(items);
    object->printed = std::move(printed);
    return Value(std::move(object));
}

inline Value make_function(std::string name) {
    return Value(std::make_shared<const CallableObject>(CallableObject{.name = std::move(name)}));
}

inline Value make_method(const Value& receiver, std::string name) {
    check_depth(depth_of(receiver) + 1);
    return Value(std::make_shared<const CallableObject>(
        CallableObject{.name = std::move(name), .receiver = receiver, .is_method = true}));
}

inline Value make_markup(std::string bytes) {
    return Value(std::make_shared<const TextObject>(TextObject{std::move(bytes), true}));
}

/// A string that came out of another: markup where that was.
inline Value derived(const Value& source, std::string bytes) {
    return source.is_markup() ? make_markup(std::move(bytes)) : Value(std::move(bytes));
}

/// The order of two numbers, exact where a float cannot hold the integer.
inline std::partial_ordering order_numbers(const Value& a, const Value& b) {
    if (a.is_floating() && b.is_floating()) return a.as_floating() <=> b.as_floating();
    if (!a.is_floating() && !b.is_floating()) return a.as_integer() <=> b.as_integer();
    if (a.is_floating()) return 0 <=> order_numbers(b, a);
    const double real = b.as_floating();
    constexpr double limit = 0x1p63;
    if (!(real >= -limit && real < limit)) return 0.0 <=> real;  // beyond all integers, or not a number
    const auto whole = static_cast<std::int64_t>(real);
    if (a.as_integer() != whole) return a.as_integer() <=> whole;
    return static_cast<double>(whole) <=> real;
}

/// Keys of different kinds are equal where Python's are: 1, 1.0 and true.
inline bool equal_keys(const Value& a, const Value& b) {
    if (a.is_string() || b.is_string())
        return a.is_string() && b.is_string() && a.as_string() == b.as_string();
    if (a.is_number() && b.is_number()) return order_numbers(a, b) == 0;
    if (a.is_sequence() && b.is_sequence()) {
        const auto& left = a.items();
        const auto& right = b.items();
        return left.size() == right.size() && std::equal(left.begin(), left.end(), right.begin(), equal_keys);
    }
    return a.kind() == b.kind() && (a.is_none() || a.is_undefined());
}

inline bool can_be_key(const Value& key) {
    if (const auto* sequence = key.object<SequenceObject>()) {
        return sequence->kind == SequenceKind::tuple &&
               std::all_of(sequence->items.begin(), sequence->items.end(), can_be_key);
    }
    return key.is_none() || key.is_number() || key.is_string() || key.is_undefined();
}

/// Index of a key among the entries; their number where it is not there.
inline std::size_t find_entry(const DictObject& dict, const Value& key) {
    if (key.is_string()) {
        const auto found = dict.names.find(key.as_string());
        return found == dict.names.end() ? dict.entries.size() : found->second;
    }
    if (dict.names.size() == dict.entries.size()) return dict.entries.size();
    std::size_t index = 0;
    while (index < dict.entries.size() && !equal_keys(dict.entries[index].first, key)) ++index;
    return index;
}

}  // namespace detail

inline Value Value::list(std::vector<Value> items) {
    return detail::make_sequence(detail::SequenceKind::list, std::move(items));
}

inline Value Value::tuple(std::vector<Value> items) {
    return detail::make_sequence(detail::SequenceKind::tuple, std::move(items));
}

inline Value Value::dict(std::vector<Entry> entries) {
    auto object = std::make_shared<detail::DictObject>();
    object->entries.reserve(entries.size());
    for (Entry& entry : entries) {
        if (!detail::can_be_key(entry.first)) {
            detail::fail_input(
                "a dict's key is a string, number, none or tuple, but something else was given");
        }
        object->depth =
            std::max({object->depth, detail::depth_of(entry.first) + 1, detail::depth_of(entry.second) + 1});
        const std::size_t place = detail::find_entry(*object, entry.first);
        if (place < object->entries.size()) {
            object->entries[place].second = std::move(entry.second);
            continue;
        }
        object->entries.push_back(std::move(entry));
        const Value& key = object->entries.back().first;
        if (key.is_string()) object->names.emplace(key.as_string(), place);
    }
    detail::check_depth(object->depth);
    return Value(std::shared_ptr<const detail::DictObject>(std::move(object)));
}

inline Value Value::undefined(std::string message) {
    Value value;
    value.data_ = Undefined{std::make_shared<const std::string>(std::move(message))};
    return value;
}

inline Kind Value::kind() const noexcept {
    constexpr Kind kinds[] = {Kind::undefined, Kind::none,   Kind::boolean,  Kind::integer,
                              Kind::floating,  Kind::string, Kind::sequence, Kind::dict,
                              Kind::object,    Kind::object, Kind::callable};
    return kinds[data_.index()];
}

inline const std::vector<Value>& Value::items() const {
    return std::get<Shared<detail::SequenceObject>>(data_)->items;
}

inline const std::vector<Value::Entry>& Value::entries() const {
    return std::get<Shared<const detail::DictObject>>(data_)->entries;
}

inline const Value* Value::find(std::string_view key) const {
    const auto& dict = *std::get<Shared<const detail::DictObject>>(data_);
    const auto found = dict.names.find(key);
    return found == dict.names.end() ? nullptr : &dict.entries[found->second].second;
}

}  // namespace tokenizer::jinja
}  // namespace zse::inline v1
