// SPDX-License-Identifier: Apache-2.0
// One metadata value of a GGUF file: a typed view into the file's bytes, converted only when asked.
#pragma once

#include <zse/core/bytes.hpp>
#include <zse/io/printable.hpp>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace zse::inline v1 {
namespace io {

static_assert(std::endian::native == std::endian::little,
              "zse: GGUF values are read as they lie in the file");
static_assert(sizeof(std::size_t) >= sizeof(Bytes),
              "zse: files are mapped whole, which needs 64-bit addresses");

/// Type ids of metadata values as they stand in a file.
enum class ValueType : std::uint32_t {
    u8 = 0,
    i8 = 1,
    u16 = 2,
    i16 = 3,
    u32 = 4,
    i32 = 5,
    f32 = 6,
    boolean = 7,
    string = 8,
    array = 9,
    u64 = 10,
    i64 = 11,
    f64 = 12,
};

/// The type as a word: "u32", "string".
constexpr std::string_view name(ValueType type) noexcept {
    switch (type) {
        case ValueType::u8: return "u8";
        case ValueType::i8: return "i8";
        case ValueType::u16: return "u16";
        case ValueType::i16: return "i16";
        case ValueType::u32: return "u32";
        case ValueType::i32: return "i32";
        case ValueType::f32: return "f32";
        case ValueType::boolean: return "bool";
        case ValueType::string: return "string";
        case ValueType::array: return "array";
        case ValueType::u64: return "u64";
        case ValueType::i64: return "i64";
        case ValueType::f64: return "f64";
    }
    return "unknown";
}

/// Bytes of one value; 0 for strings, arrays and what is no type.
constexpr std::size_t fixed_size(ValueType type) noexcept {
    switch (type) {
        case ValueType::u8:
        case ValueType::i8:
        case ValueType::boolean: return 1;
        case ValueType::u16:
        case ValueType::i16: return 2;
        case ValueType::u32:
        case ValueType::i32:
        case ValueType::f32: return 4;
        case ValueType::u64:
        case ValueType::i64:
        case ValueType::f64: return 8;
        case ValueType::string:
        case ValueType::array: return 0;
    }
    return 0;
}

namespace detail {

/// Reads a T at an address of any alignment; the caller has checked that sizeof(T) bytes are there.
template <class T>
T load(const std::byte* at) noexcept {
    T value;
    std::memcpy(&value, at, sizeof value);
    return value;
}

inline std::string_view characters(const std::byte* at, std::size_t count) noexcept {
    return {reinterpret_cast<const char*>(at), count};
}

/// The integer at `at` as a To, where `type` is an integer type and To can hold it.
template <class To>
std::optional<To> load_integer(ValueType type, const std::byte* at) noexcept {
    const auto checked = [](auto value) -> std::optional<To> {
        if (!std::in_range<To>(value)) return std::nullopt;
        return static_cast<To>(value);
    };
    switch (type) {
        case ValueType::u8: return checked(load<std::uint8_t>(at));
        case ValueType::i8: return checked(load<std::int8_t>(at));
        case ValueType::u16: return checked(load<std::uint16_t>(at));
        case ValueType::i16: return checked(load<std::int16_t>(at));
        case ValueType::u32: return checked(load<std::uint32_t>(at));
        case ValueType::i32: return checked(load<std::int32_t>(at));
        case ValueType::u64: return checked(load<std::uint64_t>(at));
        case ValueType::i64: return checked(load<std::int64_t>(at));
        default: return std::nullopt;
    }
}

inline std::optional<double> load_float(ValueType type, const std::byte* at) noexcept {
    switch (type) {
        case ValueType::f32: return static_cast<double>(load<float>(at));
        case ValueType::f64: return load<double>(at);
        default: return std::nullopt;
    }
}

inline std::optional<bool> load_bool(ValueType type, const std::byte* at) noexcept {
    if (type != ValueType::boolean) return std::nullopt;
    return load<std::uint8_t>(at) != 0;
}

}  // namespace detail

/// A scalar, a string or a one-dimensional array, as a view into the file: it lives as long as the Gguf
/// (or the memory) that it came from. Conversions are exact or give nothing: an integer of any width
/// becomes a wider or narrower one where the value fits, f32 becomes double, and nothing else converts.
class Value {
public:
    Value() = default;
    /// `bytes` is the payload, already checked to hold `count` well-formed elements: the elements for
    /// numbers, the characters for one string, length-prefixed strings for an array of them.
    Value(ValueType element, bool is_array, std::uint64_t count, std::span<const std::byte> bytes) noexcept
        : bytes_(bytes), count_(count), element_(element), is_array_(is_array) {}

    /// The type as it stands in the file: `array` for arrays.
    [[nodiscard]] ValueType type() const noexcept { return is_array_ ? ValueType::array : element_; }
    /// The type of an array's elements; of a scalar, its own type.
    [[nodiscard]] ValueType element_type() const noexcept { return element_; }
    [[nodiscard]] bool is_array() const noexcept { return is_array_; }
    /// Elements of an array; 1 for scalars.
    [[nodiscard]] std::uint64_t size() const noexcept { return count_; }
    /// The payload as it lies in the file.
    [[nodiscard]] std::span<const std::byte> bytes() const noexcept { return bytes_; }

    [[nodiscard]] std::optional<std::uint64_t> to_unsigned() const noexcept {
        return is_array_ ? std::nullopt : detail::load_integer<std::uint64_t>(element_, bytes_.data());
    }
    [[nodiscard]] std::optional<std::int64_t> to_signed() const noexcept {
        return is_array_ ? std::nullopt : detail::load_integer<std::int64_t>(element_, bytes_.data());
    }
    [[nodiscard]] std::optional<double> to_float() const noexcept {
        return is_array_ ? std::nullopt : detail::load_float(element_, bytes_.data());
    }
    [[nodiscard]] std::optional<bool> to_bool() const noexcept {
        return is_array_ ? std::nullopt : detail::load_bool(element_, bytes_.data());
    }
    [[nodiscard]] std::optional<std::string_view> to_string() const noexcept {
        if (is_array_ || element_ != ValueType::string) return std::nullopt;
        return detail::characters(bytes_.data(), bytes_.size());
    }

    /// Calls use(std::string_view) for each string of an array of strings, in order, without copying;
    /// false (and no call) where the value is none. An empty array has any element type here and below:
    /// files leave the type of "nothing" to chance.
    template <class Use>
    bool each_string(Use use) const {
        if (!is_array_ || (count_ > 0 && element_ != ValueType::string)) return false;
        const std::byte* at = bytes_.data();
        for (std::uint64_t i = 0; i < count_; ++i) {
            const auto length = static_cast<std::size_t>(detail::load<std::uint64_t>(at));
            use(detail::characters(at + sizeof(std::uint64_t), length));
            at += sizeof(std::uint64_t) + length;
        }
        return true;
    }

    /// Views of all strings of an array: 16 bytes each, the characters stay in the file.
    [[nodiscard]] std::optional<std::vector<std::string_view>> to_strings() const {
        std::vector<std::string_view> strings;
        if (is_array_ && element_ == ValueType::string) strings.reserve(static_cast<std::size_t>(count_));
        if (!each_string([&strings](std::string_view string) { strings.push_back(string); })) {
            return std::nullopt;
        }
        return strings;
    }
    [[nodiscard]] std::optional<std::vector<double>> to_floats() const {
        return elements<double>(
            [](ValueType type, const std::byte* at) { return detail::load_float(type, at); });
    }
    /// Integers of any width; nothing where one of them exceeds 63 bits.
    [[nodiscard]] std::optional<std::vector<std::int64_t>> to_ints() const {
        return elements<std::int64_t>(
            [](ValueType type, const std::byte* at) { return detail::load_integer<std::int64_t>(type, at); });
    }
    [[nodiscard]] std::optional<std::vector<bool>> to_bools() const {
        return elements<bool>(
            [](ValueType type, const std::byte* at) { return detail::load_bool(type, at); });
    }

    /// What the value is, for a message: "u32 9", "i8 -1", "string", "array of 3 f32".
    [[nodiscard]] std::string describe() const {
        if (is_array_) return "array of " + std::to_string(count_) + " " + std::string(name(element_));
        std::string shown(name(element_));
        if (const auto number = to_unsigned()) {
            shown += " " + std::to_string(*number);
        } else if (const auto negative = to_signed()) {
            shown += " " + std::to_string(*negative);
        }
        return shown;
    }

private:
    template <class To, class Load>
    [[nodiscard]] std::optional<std::vector<To>> elements(Load load_one) const {
        if (!is_array_) return std::nullopt;
        std::vector<To> values;
        if (count_ == 0) return values;
        const std::size_t stride = fixed_size(element_);
        if (stride == 0) return std::nullopt;
        if (!load_one(element_, bytes_.data())) return std::nullopt;  // before memory is taken for all
        values.reserve(static_cast<std::size_t>(count_));
        for (std::size_t at = 0; at < bytes_.size(); at += stride) {
            const std::optional<To> value = load_one(element_, bytes_.data() + at);
            if (!value) return std::nullopt;
            values.push_back(*value);
        }
        return values;
    }

    std::span<const std::byte> bytes_;
    std::uint64_t count_ = 0;
    ValueType element_ = ValueType::u8;
    bool is_array_ = true;
};

}  // namespace io
}  // namespace zse::inline v1
