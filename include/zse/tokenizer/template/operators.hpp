// SPDX-License-Identifier: Apache-2.0
// Arithmetic, indexing and slicing with Python's results: division floors, the remainder takes the divisor's
// sign.
#pragma once

#include <zse/tokenizer/template/compare.hpp>
#include <zse/tokenizer/template/format.hpp>
#include <zse/tokenizer/template/syntax.hpp>

#include <cmath>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <vector>

namespace zse::inline v1 {
namespace tokenizer::jinja::detail {

[[noreturn]] inline void fail_overflow() {
    fail_unsupported("integers of templates have 64 bits, but a result needs more");
}

[[noreturn]] inline void fail_operands(std::string_view symbol, const Value& a, const Value& b) {
    require_defined(a);
    require_defined(b);
    fail_input("the operator ", symbol, " does not take values of type ", type_name(a), " and ",
               type_name(b));
}

/// value * count for strings, lists and tuples.
inline Value repeat(Budget& budget, const Value& value, std::int64_t count) {
    const std::uint64_t times = count < 0 ? 0 : static_cast<std::uint64_t>(count);
    if (value.is_string()) {
        const std::string& unit = value.as_string();
        const std::uint64_t size = saturating_mul(unit.size(), times);
        budget.bytes(size);
        std::string repeated;
        repeated.reserve(size);
        for (std::uint64_t i = 0; size > 0 && i < times; ++i) repeated += unit;
        return derived(value, std::move(repeated));
    }
    const auto* sequence = value.object<SequenceObject>();
    const std::uint64_t size = saturating_mul(sequence->items.size(), times);
    budget.bytes(saturating_mul(size, sizeof(Value)));
    budget.step(size);
    std::vector<Value> items;
    items.reserve(size);
    for (std::uint64_t i = 0; size > 0 && i < times; ++i) {
        items.insert(items.end(), sequence->items.begin(), sequence->items.end());
    }
    return make_sequence(sequence->kind, std::move(items));
}

inline bool is_plain_sequence(const Value& value) {
    const auto* sequence = value.object<SequenceObject>();
    return sequence != nullptr &&
           (sequence->kind == SequenceKind::list || sequence->kind == SequenceKind::tuple);
}

inline Value add(Budget& budget, const Value& a, const Value& b) {
    if (a.is_number() && b.is_number()) {
        if (a.is_floating() || b.is_floating()) return a.as_floating() + b.as_floating();
        std::int64_t sum = 0;
        if (__builtin_add_overflow(a.as_integer(), b.as_integer(), &sum)) fail_overflow();
        return sum;
    }
    if (a.is_string() && b.is_string()) {
        TextBuilder sum(budget);
        if (!a.is_markup() && !b.is_markup()) return sum.append(a.as_string()).append(b.as_string()).take();
        append_escaped(sum, a);
        append_escaped(sum, b);
        return make_markup(sum.take());
    }
    if (is_plain_sequence(a) && is_plain_sequence(b) &&
        a.object<SequenceObject>()->kind == b.object<SequenceObject>()->kind) {
        const std::size_t size = a.items().size() + b.items().size();
        budget.bytes(saturating_mul(size, sizeof(Value)));
        budget.step(size);
        std::vector<Value> items = a.items();
        items.insert(items.end(), b.items().begin(), b.items().end());
        return make_sequence(a.object<SequenceObject>()->kind, std::move(items));
    }
    fail_operands("+", a, b);
}

inline Value multiply(Budget& budget, const Value& a, const Value& b) {
    if (a.is_number() && b.is_number()) {
        if (a.is_floating() || b.is_floating()) return a.as_floating() * b.as_floating();
        std::int64_t product = 0;
        if (__builtin_mul_overflow(a.as_integer(), b.as_integer(), &product)) fail_overflow();
        return product;
    }
    const auto repeats = [](const Value& value) { return value.is_string() || is_plain_sequence(value); };
    const auto counts = [](const Value& value) { return value.is_integer() || value.is_boolean(); };
    if (repeats(a) && counts(b)) return repeat(budget, a, b.as_integer());
    if (counts(a) && repeats(b)) return repeat(budget, b, a.as_integer());
    fail_operands("*", a, b);
}

/// a // b and a % b of integers.
struct Division {
    std::int64_t quotient;
    std::int64_t remainder;
};

inline Division floor_division(std::int64_t a, std::int64_t b) {
    if (b == 0) fail_input("an integer is divided by zero");
    if (b == -1) {
        if (a == std::numeric_limits<std::int64_t>::min()) fail_overflow();
        return {-a, 0};
    }
    Division result{a / b, a % b};
    if (result.remainder != 0 && (result.remainder < 0) != (b < 0)) {
        --result.quotient;
        result.remainder += b;
    }
    return result;
}

inline double float_remainder(double a, double b) {
    double remainder = std::fmod(a, b);
    if (remainder != 0 && (remainder < 0) != (b < 0)) remainder += b;
    return remainder == 0 ? std::copysign(0.0, b) : remainder;
}

inline double float_floor_division(double a, double b) {
    const double remainder = std::fmod(a, b);
    double quotient = (a - remainder) / b;
    if (remainder != 0 && (remainder < 0) != (b < 0)) quotient -= 1;
    if (quotient == 0) return std::copysign(0.0, a / b);
    const double floor = std::floor(quotient);
    return quotient - floor > 0.5 ? floor + 1 : floor;
}

inline Value power(const Value& a, const Value& b) {
    if (!a.is_floating() && !b.is_floating() && b.as_integer() >= 0) {
        std::int64_t base = a.as_integer();
        std::int64_t result = 1;
        bool overflow = false;
        for (std::int64_t rest = b.as_integer(); rest > 0; rest >>= 1) {
            if ((rest & 1) != 0) overflow |= __builtin_mul_overflow(result, base, &result);
            if (rest > 1 && __builtin_mul_overflow(base, base, &base)) overflow = true;
            if (overflow) fail_overflow();
        }
        return result;
    }
    const double base = a.as_floating();
    const double exponent = b.as_floating();
    if (base == 0 && exponent < 0) fail_input("zero is raised to a negative power");
    const double result = std::pow(base, exponent);
    if (std::isnan(result) && !std::isnan(base) && !std::isnan(exponent)) {
        fail_unsupported("a negative number is raised to a fraction, which gives a complex number");
    }
    if (std::isinf(result) && std::isfinite(base) && std::isfinite(exponent)) {
        fail_input("a power is beyond what a float holds");
    }
    return result;
}

inline Value arithmetic(Budget& budget, Operator operation, const Value& a, const Value& b) {
    if (operation == Operator::add) return add(budget, a, b);
    if (operation == Operator::multiply) return multiply(budget, a, b);
    if (operation == Operator::modulo && a.is_string()) return format_percent(budget, a, b);
    const std::string_view symbol = operation == Operator::subtract       ? "-"
                                    : operation == Operator::divide       ? "/"
                                    : operation == Operator::floor_divide ? "//"
                                    : operation == Operator::modulo       ? "%"
                                                                          : "**";
    if (!a.is_number() || !b.is_number()) fail_operands(symbol, a, b);
    if (operation == Operator::power) return power(a, b);
    const bool is_float = a.is_floating() || b.is_floating();
    if (operation == Operator::subtract) {
        if (is_float) return a.as_floating() - b.as_floating();
        std::int64_t difference = 0;
        if (__builtin_sub_overflow(a.as_integer(), b.as_integer(), &difference)) fail_overflow();
        return difference;
    }
    if (b.as_floating() == 0) fail_input("a number is divided by zero");
    if (operation == Operator::divide) return a.as_floating() / b.as_floating();
    if (is_float) {
        return operation == Operator::modulo ? float_remainder(a.as_floating(), b.as_floating())
                                             : float_floor_division(a.as_floating(), b.as_floating());
    }
    const Division division = floor_division(a.as_integer(), b.as_integer());
    return operation == Operator::modulo ? division.remainder : division.quotient;
}

inline Value negate(const Value& value) {
    require_defined(value);
    if (value.is_floating()) return -value.as_floating();
    if (!value.is_number()) fail_input("the operator - does not take a value of type ", type_name(value));
    if (value.as_integer() == std::numeric_limits<std::int64_t>::min()) fail_overflow();
    return -value.as_integer();
}

/// The element of a list, string or dict; nothing where there is none of that index.
inline std::optional<Value> element(Budget& budget, const Value& container, const Value& index) {
    if (container.is_dict()) {
        if (!can_be_key(index)) return std::nullopt;
        const auto* dict = container.object<const DictObject>();
        if (!index.is_string()) budget.step(dict->entries.size() / 8);
        const std::size_t place = find_entry(*dict, index);
        if (place == dict->entries.size()) return std::nullopt;
        return dict->entries[place].second;
    }
    if (!index.is_integer() && !index.is_boolean()) return std::nullopt;
    const std::int64_t wanted = index.as_integer();
    const auto place = [wanted](std::size_t size) -> std::optional<std::size_t> {
        const auto count = static_cast<std::int64_t>(size);
        if (wanted >= count || wanted < -count) return std::nullopt;
        return static_cast<std::size_t>(wanted < 0 ? wanted + count : wanted);
    };
    if (const auto* sequence = container.object<SequenceObject>()) {
        if (sequence->kind == SequenceKind::generator || sequence->kind == SequenceKind::view)
            return std::nullopt;
        const auto found = place(sequence->items.size());
        if (!found) return std::nullopt;
        return sequence->items[*found];
    }
    if (container.is_string()) {
        const std::string& string = container.as_string();
        budget.scan(string.size());
        if (is_ascii(string)) {
            const auto found = place(string.size());
            if (!found) return std::nullopt;
            return derived(container, std::string(1, string[*found]));
        }
        const std::vector<std::size_t> offsets = character_offsets(string);
        const auto found = place(offsets.size() - 1);
        if (!found) return std::nullopt;
        return derived(container, string.substr(offsets[*found], offsets[*found + 1] - offsets[*found]));
    }
    return std::nullopt;
}

/// The indices that container[start:stop:step] visits, as Python's slice.indices().
struct SliceRange {
    std::int64_t start;
    std::int64_t step;
    std::size_t count;
};

inline SliceRange slice_range(const Value& start, const Value& stop, const Value& step, std::size_t size) {
    const auto read = [](const Value& bound, std::int64_t fallback) {
        require_defined(bound);
        if (bound.is_none()) return fallback;
        if (!bound.is_integer() && !bound.is_boolean()) {
            fail_input("a slice's bounds are integers, but one is of type ", type_name(bound));
        }
        return bound.as_integer();
    };
    const auto length = static_cast<std::int64_t>(size);
    const std::int64_t by = std::max(read(step, 1), -std::numeric_limits<std::int64_t>::max());
    if (by == 0) fail_input("the step of a slice is not 0");
    const std::int64_t low = by < 0 ? -1 : 0;
    const std::int64_t high = by < 0 ? length - 1 : length;
    const auto clamp = [&](const Value& bound, std::int64_t fallback) {
        if (bound.is_none()) return fallback;
        std::int64_t value = read(bound, 0);
        if (value < 0) value = value < -length ? -1 - length : value;
        if (value < 0) value += length;
        return std::clamp(value, low, high);
    };
    const std::int64_t from = clamp(start, by < 0 ? high : low);
    const std::int64_t to = clamp(stop, by < 0 ? low : high);
    const std::int64_t distance = by < 0 ? from - to : to - from;
    const std::int64_t stride = by < 0 ? -by : by;
    return {from, by, distance <= 0 ? 0 : static_cast<std::size_t>((distance - 1) / stride + 1)};
}

inline Value slice(Budget& budget, const Value& container, const Value& start, const Value& stop,
                   const Value& step) {
    require_defined(container);
    if (container.is_string()) {
        const std::string& string = container.as_string();
        budget.bytes(saturating_mul(string.size(), is_ascii(string) ? 1 : 1 + sizeof(std::size_t)));
        budget.scan(string.size());
        std::string part;
        const auto pick = [&](std::size_t size, const auto& append) {
            const SliceRange range = slice_range(start, stop, step, size);
            std::int64_t index = range.start;
            for (std::size_t i = 0; i < range.count; ++i) {
                append(static_cast<std::size_t>(index));
                if (i + 1 < range.count) index += range.step;
            }
        };
        if (is_ascii(string)) {
            pick(string.size(), [&](std::size_t i) { part += string[i]; });
        } else {
            const std::vector<std::size_t> offsets = character_offsets(string);
            pick(offsets.size() - 1,
                 [&](std::size_t i) { part.append(string, offsets[i], offsets[i + 1] - offsets[i]); });
        }
        return derived(container, std::move(part));
    }
    const auto* sequence = container.object<SequenceObject>();
    if (sequence == nullptr || sequence->kind == SequenceKind::generator ||
        sequence->kind == SequenceKind::view) {
        fail_input("a value of type ", type_name(container), " cannot be sliced");
    }
    const SliceRange range = slice_range(start, stop, step, sequence->items.size());
    budget.bytes(saturating_mul(range.count, sizeof(Value)));
    budget.step(range.count);
    std::vector<Value> items;
    items.reserve(range.count);
    std::int64_t index = range.start;
    for (std::size_t i = 0; i < range.count; ++i) {
        items.push_back(sequence->items[static_cast<std::size_t>(index)]);
        if (i + 1 < range.count) index += range.step;
    }
    return make_sequence(sequence->kind, std::move(items));
}

}  // namespace tokenizer::jinja::detail
}  // namespace zse::inline v1
