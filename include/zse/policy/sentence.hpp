// SPDX-License-Identifier: Apache-2.0
// Text as a template argument: how a refusal carries the value that was refused into the compiler's message.
#pragma once

#include <zse/core/version.hpp>

#include <array>
#include <cstddef>
#include <string_view>

namespace zse::inline v1 {
namespace policy {

/// A string of N - 1 characters that is a structural type, so that it can be a template argument.
template <std::size_t N>
struct Sentence {
    char characters[N]{};

    constexpr Sentence() = default;
    constexpr Sentence(const char (&literal)[N]) {  // NOLINT(google-explicit-constructor)
        for (std::size_t i = 0; i < N; ++i) characters[i] = literal[i];
    }
    [[nodiscard]] constexpr std::string_view view() const { return {characters, N - 1}; }
    static constexpr std::size_t size() { return N - 1; }
};

template <std::size_t A, std::size_t B>
constexpr auto operator+(const Sentence<A>& left, const Sentence<B>& right) {
    Sentence<A + B - 1> joined;
    for (std::size_t i = 0; i + 1 < A; ++i) joined.characters[i] = left.characters[i];
    for (std::size_t i = 0; i < B; ++i) joined.characters[A - 1 + i] = right.characters[i];
    return joined;
}

template <std::size_t A, std::size_t B>
constexpr auto operator+(const Sentence<A>& left, const char (&right)[B]) {
    return left + Sentence<B>(right);
}

template <std::size_t A, std::size_t B>
constexpr auto operator+(const char (&left)[A], const Sentence<B>& right) {
    return Sentence<A>(left) + right;
}

namespace detail {
constexpr std::size_t decimal_digits(std::size_t value) {
    std::size_t digits = 1;
    while (value >= 10) value /= 10, ++digits;
    return digits;
}
}  // namespace detail

/// The decimal digits of Value.
template <std::size_t Value>
constexpr auto decimal() {
    Sentence<detail::decimal_digits(Value) + 1> digits;
    std::size_t rest = Value;
    for (std::size_t i = detail::decimal_digits(Value); i-- > 0; rest /= 10) {
        digits.characters[i] = static_cast<char>('0' + rest % 10);
    }
    return digits;
}

/// Stops compilation unless Accepted; the compiler prints S, which says what was refused, why, and the way
/// out.
template <Sentence S, bool Accepted>
constexpr bool require() {
    static_assert(Accepted, "zse refuses this; the sentence S of require() says what, why, and the way out");
    return true;
}

}  // namespace policy
}  // namespace zse::inline v1
