// SPDX-License-Identifier: Apache-2.0
// The functions of the environment: range, namespace, dict, raise_exception and strftime_now.
#pragma once

#include <zse/tokenizer/template/arguments.hpp>
#include <zse/tokenizer/template/compare.hpp>

#include <chrono>
#include <cstdint>
#include <ctime>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace zse::inline v1 {
namespace tokenizer::jinja {

/// Local wall-clock time, as seconds since 1970-01-01 00:00 of that same clock.
using LocalSeconds = std::chrono::seconds;

namespace detail {

/// What a template throws with raise_exception: its own words reach the user as they are.
class RaisedByTemplate : public Error {
public:
    using Error::Error;
};

/// What functions may see of the rendering.
struct Environment {
    Budget budget;
    std::optional<LocalSeconds> now;                             ///< absent: the machine's clock
    std::vector<std::shared_ptr<NamespaceObject>> namespaces{};  ///< all that were made, to end their cycles
};

inline Value range_function(Environment& environment, const Arguments& arguments) {
    if (arguments.positional.empty()) fail_input("range() needs an end");
    const Bound bound("function range", {"start", "stop", "step"}, arguments);
    const bool has_start = arguments.positional.size() > 1;
    const std::int64_t start = has_start ? bound.integer(0) : 0;
    const std::int64_t stop = bound.integer(has_start ? 1 : 0);
    const std::int64_t step = bound.integer(2, 1);
    if (step == 0) fail_input("the step of range() is not 0");
    const auto distance = step > 0 ? static_cast<std::uint64_t>(stop) - static_cast<std::uint64_t>(start)
                                   : static_cast<std::uint64_t>(start) - static_cast<std::uint64_t>(stop);
    const auto stride = step > 0 ? static_cast<std::uint64_t>(step) : 0 - static_cast<std::uint64_t>(step);
    const bool is_empty = step > 0 ? stop <= start : stop >= start;
    const std::uint64_t count = is_empty ? 0 : (distance - 1) / stride + 1;
    const std::size_t most = environment.budget.limits().range;
    if (count > most) fail_input("range() gives at most ", most, " numbers, but ", count, " were asked for");
    environment.budget.bytes(count * sizeof(Value));
    environment.budget.step(count);
    std::vector<Value> items;
    items.reserve(count);
    for (std::uint64_t i = 0; i < count; ++i) {
        items.emplace_back(static_cast<std::int64_t>(static_cast<std::uint64_t>(start) +
                                                     i * static_cast<std::uint64_t>(step)));
    }
    std::string printed = text("range(", start, ", ", stop);
    if (step != 1) printed += text(", ", step);
    return make_sequence(SequenceKind::range, std::move(items), printed + ")");
}

/// A dict that pays for itself. Keys that are no strings are looked for one by one.
inline Value make_dict(Budget& budget, std::vector<Value::Entry> entries) {
    std::uint64_t slow_keys = 0;
    for (const auto& entry : entries) slow_keys += entry.first.is_string() ? 0 : 1;
    budget.bytes(saturating_mul(entries.size(), sizeof(Value::Entry) + 64));
    budget.step(saturating_add(entries.size(), saturating_mul(slow_keys, entries.size()) / 8));
    return Value::dict(std::move(entries));
}

/// dict(mapping or pairs, name=value, ...)
inline Value dict_function(Environment& environment, const Arguments& arguments) {
    std::vector<Value::Entry> entries;
    if (arguments.positional.size() > 1)
        fail_input("dict() takes one dict or list of pairs, and named values");
    if (!arguments.positional.empty()) {
        const Value& source = arguments.positional[0];
        require_defined(source);
        if (source.is_dict()) {
            environment.budget.bytes(source.entries().size() * sizeof(Value::Entry));
            entries = source.entries();
        } else {
            for (const Value& pair : walk(environment.budget, source)) {
                std::vector<Value> both = walk(environment.budget, pair);
                if (both.size() != 2)
                    fail_input("dict() needs pairs, but an element has ", both.size(), " items");
                entries.emplace_back(std::move(both[0]), std::move(both[1]));
            }
        }
    }
    for (const auto& [name, value] : arguments.named) entries.emplace_back(name, value);
    return make_dict(environment.budget, std::move(entries));
}

/// Python's sandbox hides names with an underscore before them again, so that they could not be read.
inline void check_namespace_name(const std::string& name) {
    if (name.starts_with('_')) {
        fail_unsupported("names in a namespace do not begin with an underscore, but one is ",
                         in_quotes(name));
    }
}

inline Value namespace_function(Environment& environment, const Arguments& arguments) {
    const Value initial = dict_function(environment, arguments);
    auto space = std::make_shared<NamespaceObject>();
    for (const auto& [key, value] : initial.entries()) {
        if (!key.is_string()) fail_input("the names in a namespace are strings");
        check_namespace_name(key.as_string());
        space->attributes.emplace_back(key.as_string(), value);
    }
    environment.budget.bytes(sizeof(NamespaceObject) + 64);
    environment.namespaces.push_back(space);
    return Value(std::move(space));
}

[[noreturn]] inline Value raise_exception_function(Environment& environment, const Arguments& arguments) {
    const Bound bound("function raise_exception", {"message"}, arguments);
    throw RaisedByTemplate(ErrorCode::invalid_input, to_text(environment.budget, bound.get(0)));
}

inline std::tm local_time(const std::optional<LocalSeconds>& now) {
    std::tm fields{};
    const std::time_t seconds = now ? static_cast<std::time_t>(now->count()) : std::time(nullptr);
    const bool known =
        now ? ::gmtime_r(&seconds, &fields) != nullptr : ::localtime_r(&seconds, &fields) != nullptr;
    if (!known) fail_input("the time given to strftime_now is beyond what a calendar holds");
    return fields;
}

inline Value strftime_now_function(Environment& environment, const Arguments& arguments) {
    const std::string& format = Bound("function strftime_now", {"format"}, arguments).string(0);
    const std::tm fields = local_time(environment.now);
    TextBuilder out(environment.budget);
    for (std::size_t i = 0; i < format.size(); ++i) {
        if (format[i] != '%') {
            out.append(1, format[i]);
            continue;
        }
        std::string directive = "%";
        if (++i < format.size() && format[i] == '-') directive += format[i++];  // no padding, as glibc has it
        if (i >= format.size() || std::string_view("aAbBcdDeFHIjmMpRSTuUVwWxXyYGgCnht%").find(format[i]) ==
                                      std::string_view::npos) {
            fail_unsupported("a directive in the format of strftime_now is none of those that zse knows: ",
                             in_quotes(format));
        }
        directive += format[i];
        environment.budget.step();
        char buffer[128];
        const std::size_t size = std::strftime(buffer, sizeof buffer, directive.c_str(), &fields);
        out.append(std::string_view(buffer, size));
    }
    return out.take();
}

/// A function by its name; nothing where there is none.
using Function = Value (*)(Environment&, const Arguments&);

inline Function find_function(std::string_view name) {
    if (name == "range") return range_function;
    if (name == "namespace") return namespace_function;
    if (name == "dict") return dict_function;
    if (name == "raise_exception") return raise_exception_function;
    if (name == "strftime_now") return strftime_now_function;
    return nullptr;
}

/// Functions of Jinja that zse leaves out: naming one is refused, rather than taken for undefined.
inline bool is_left_out(std::string_view name) {
    return name == "cycler" || name == "joiner" || name == "lipsum" || name == "self";
}

}  // namespace detail
}  // namespace tokenizer::jinja
}  // namespace zse::inline v1
