// SPDX-License-Identifier: Apache-2.0
// What a template may cost: a template comes out of a model file, so nothing that it asks for is unbounded.
#pragma once

#include <zse/core/bytes.hpp>
#include <zse/core/error.hpp>
#include <zse/io/printable.hpp>

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

namespace zse::inline v1 {
namespace tokenizer::jinja {

/// Limits of one template and of one rendering of it. Exceeding one is an Error with code invalid_input.
struct Limits {
    Bytes source = MiB(1);    ///< bytes of the template
    Bytes output = MiB(64);   ///< bytes of the rendered text
    Bytes values = MiB(512);  ///< bytes of all strings, lists and dicts that one rendering makes, summed
    std::uint64_t steps = 100'000'000;  ///< statements, operations and elements visited
    std::size_t range = 100'000;        ///< elements of one range(), as in Python's sandbox
    std::size_t depth = 500;            ///< nested statements, expressions and macro calls while rendering
};

/// Nesting of statements and expressions in the source. A level costs the parser a few stack frames.
inline constexpr std::size_t max_source_depth = 100;
/// Nesting of lists and dicts in a value: bounds printing, comparing and destroying it.
inline constexpr std::size_t max_value_depth = 100;

namespace detail {

template <class... Parts>
[[noreturn]] void fail(ErrorCode code, const Parts&... parts) {
    throw Error(code, text(parts...));
}

/// A mistake of the template or of its input, found while rendering.
template <class... Parts>
[[noreturn]] void fail_input(const Parts&... parts) {
    fail(ErrorCode::invalid_input, parts...);
}

/// A feature of Jinja or of Python that zse leaves out.
template <class... Parts>
[[noreturn]] void fail_unsupported(const Parts&... parts) {
    fail(ErrorCode::unsupported, parts...);
}

/// A name out of a template, fit for a message: short, and on one line.
inline std::string in_quotes(std::string_view name) {
    return "'" + io::printable(name, 64) + "'";
}

/// What is left of the limits of one rendering.
class Budget {
public:
    explicit Budget(const Limits& limits) : limits_(limits), steps_(limits.steps), bytes_(limits.values) {}

    [[nodiscard]] const Limits& limits() const noexcept { return limits_; }

    void step(std::uint64_t count = 1) {
        if (count > steps_) {
            steps_ = 0;
            fail_input("the template takes more than ", limits_.steps,
                       " steps; it loops too long for this input");
        }
        steps_ -= count;
    }

    /// Counts a walk over `size` bytes, 64 of which pass for a step.
    void scan(std::size_t size) { step(size / 64 + 1); }

    /// Counts bytes before they are allocated.
    void bytes(Bytes count) {
        if (count > bytes_) {
            bytes_ = 0;
            fail_input("the template makes more than ", limits_.values,
                       " bytes of values; it builds too much for this input");
        }
        bytes_ -= count;
    }

    class Level {
    public:
        explicit Level(Budget& budget) : budget_(budget) {
            if (budget_.depth_ == budget_.limits_.depth) {
                fail_input("the template nests deeper than ", budget_.limits_.depth,
                           " levels; a macro may call itself without an end");
            }
            ++budget_.depth_;
        }
        Level(const Level&) = delete;
        Level& operator=(const Level&) = delete;
        ~Level() { --budget_.depth_; }

    private:
        Budget& budget_;
    };

private:
    Limits limits_;
    std::uint64_t steps_;
    Bytes bytes_;
    std::size_t depth_ = 0;
};

/// A string that pays for its bytes as it grows.
class TextBuilder {
public:
    explicit TextBuilder(Budget& budget) : budget_(budget) {}

    TextBuilder& append(std::string_view part) {
        budget_.bytes(part.size());
        text_.append(part);
        return *this;
    }
    TextBuilder& append(std::size_t count, char c) {
        budget_.bytes(count);
        text_.append(count, c);
        return *this;
    }
    [[nodiscard]] const std::string& view() const noexcept { return text_; }
    [[nodiscard]] std::string take() { return std::move(text_); }
    [[nodiscard]] Budget& budget() noexcept { return budget_; }

private:
    Budget& budget_;
    std::string text_;
};

}  // namespace detail
}  // namespace tokenizer::jinja
}  // namespace zse::inline v1
