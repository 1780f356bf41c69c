// SPDX-License-Identifier: Apache-2.0
// The one error type, and the result type of functions that run inside a step and may not throw.
#pragma once

#include <zse/core/version.hpp>

#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

namespace zse::inline v1 {

/// What kind of thing went wrong. Exit codes and HTTP statuses derive from it, and from nothing else.
enum class ErrorCode {
    usage,             ///< the caller's options contradict each other or make no sense
    not_found,         ///< no such file, model or policy
    unreadable,        ///< it exists, but cannot be read (permission, directory, I/O error)
    corrupt,           ///< its bytes break the rules of its own format
    unsupported,       ///< well-formed, but zse does not implement it
    invalid_input,     ///< a request's content is wrong (not UTF-8, unknown token, bad template)
    context_exceeded,  ///< more tokens than the context holds
    out_of_memory,     ///< a tier has fewer free bytes than asked for
    internal,          ///< a defect of zse
};

/// The code as a word, for logs and JSON.
constexpr std::string_view name(ErrorCode code) noexcept {
    switch (code) {
        case ErrorCode::usage: return "usage";
        case ErrorCode::not_found: return "not_found";
        case ErrorCode::unreadable: return "unreadable";
        case ErrorCode::corrupt: return "corrupt";
        case ErrorCode::unsupported: return "unsupported";
        case ErrorCode::invalid_input: return "invalid_input";
        case ErrorCode::context_exceeded: return "context_exceeded";
        case ErrorCode::out_of_memory: return "out_of_memory";
        case ErrorCode::internal: return "internal";
    }
    return "internal";
}

/// Exit status of a program that ends with this error: 2 for wrong usage, else 1.
constexpr int exit_status(ErrorCode code) noexcept {
    return code == ErrorCode::usage ? 2 : 1;
}

/// HTTP status of a request that ends with this error.
constexpr int http_status(ErrorCode code) noexcept {
    switch (code) {
        case ErrorCode::usage:
        case ErrorCode::invalid_input:
        case ErrorCode::context_exceeded: return 400;
        case ErrorCode::not_found: return 404;
        case ErrorCode::out_of_memory: return 503;
        case ErrorCode::unsupported: return 501;
        default: return 500;
    }
}

/// A place in the source. Own type: clang 14 has no SourceLocation.
struct SourceLocation {
    const char* file;
    int line;

    static constexpr SourceLocation here(const char* file = __builtin_FILE(),
                                         int line = __builtin_LINE()) noexcept {
        return {file, line};
    }
};

/// A code, one sentence (what was expected, what was found, what to do), and where it arose.
class Error : public std::runtime_error {
public:
    Error(ErrorCode code, const std::string& sentence, SourceLocation where = SourceLocation::here())
        : std::runtime_error(sentence), code_(code), where_(where) {}

    [[nodiscard]] ErrorCode code() const noexcept { return code_; }
    [[nodiscard]] const SourceLocation& where() const noexcept { return where_; }

private:
    ErrorCode code_;
    SourceLocation where_;
};

/// A value or an Error. What runs inside a step returns it; the API turns the error into an exception.
template <class T>
class Result {
public:
    Result(T value) : state_(std::move(value)) {}      // NOLINT(google-explicit-constructor)
    Result(Error error) : state_(std::move(error)) {}  // NOLINT(google-explicit-constructor)

    [[nodiscard]] bool ok() const noexcept { return state_.index() == 0; }
    explicit operator bool() const noexcept { return ok(); }

    [[nodiscard]] const Error& error() const { return std::get<1>(state_); }

    /// The value; throws the Error where there is none.
    T& value() & { return rethrow_if_error(), std::get<0>(state_); }
    T&& value() && { return rethrow_if_error(), std::get<0>(std::move(state_)); }
    const T& value() const& { return rethrow_if_error(), std::get<0>(state_); }

private:
    void rethrow_if_error() const {
        if (!ok()) throw error();
    }

    std::variant<T, Error> state_;
};

/// Joins text and numbers to one string: text("expected ", 3, " heads").
template <class... Parts>
std::string text(const Parts&... parts) {
    std::string joined;
    const auto append = [&joined](const auto& part) {
        if constexpr (requires { std::to_string(part); }) {
            joined += std::to_string(part);
        } else {
            joined += part;
        }
    };
    (append(parts), ...);
    return joined;
}

}  // namespace zse::inline v1
