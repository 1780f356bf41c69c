// SPDX-License-Identifier: Apache-2.0
// Errors: exit status and HTTP status of each code, where an error arose, results, and joined text.
#include <zse/core/error.hpp>

#include <gtest/gtest.h>

#include <array>
#include <memory>
#include <set>
#include <string>

namespace {

using namespace zse;

struct Expected {
    ErrorCode code;
    std::string_view name;
    int exit;
    int http;
};

constexpr std::array<Expected, 9> expected{{{ErrorCode::usage, "usage", 2, 400},
                                            {ErrorCode::not_found, "not_found", 1, 404},
                                            {ErrorCode::unreadable, "unreadable", 1, 500},
                                            {ErrorCode::corrupt, "corrupt", 1, 500},
                                            {ErrorCode::unsupported, "unsupported", 1, 501},
                                            {ErrorCode::invalid_input, "invalid_input", 1, 400},
                                            {ErrorCode::context_exceeded, "context_exceeded", 1, 400},
                                            {ErrorCode::out_of_memory, "out_of_memory", 1, 503},
                                            {ErrorCode::internal, "internal", 1, 500}}};

TEST(ErrorCode, EachHasItsNameExitStatusAndHttpStatus) {
    std::set<std::string_view> names;
    for (const Expected& e : expected) {
        EXPECT_EQ(name(e.code), e.name);
        EXPECT_EQ(exit_status(e.code), e.exit) << e.name;
        EXPECT_EQ(http_status(e.code), e.http) << e.name;
        names.insert(name(e.code));
    }
    EXPECT_EQ(names.size(), expected.size());
}

TEST(Error, HoldsCodeSentenceAndPlace) {
    const int line = __LINE__ + 1;
    const Error error(ErrorCode::corrupt, "the file ends early");
    EXPECT_EQ(error.code(), ErrorCode::corrupt);
    EXPECT_STREQ(error.what(), "the file ends early");
    EXPECT_EQ(error.where().line, line);
    EXPECT_NE(std::string(error.where().file).find("error_test.cpp"), std::string::npos);
}

TEST(Result, HoldsAValue) {
    Result<std::string> result(std::string("seven"));
    EXPECT_TRUE(result.ok());
    EXPECT_TRUE(static_cast<bool>(result));
    EXPECT_EQ(result.value(), "seven");
    result.value() += "teen";
    EXPECT_EQ(std::as_const(result).value(), "seventeen");
    EXPECT_EQ(std::move(result).value(), "seventeen");
}

TEST(Result, MovesAValueThatCannotBeCopied) {
    Result<std::unique_ptr<int>> result(std::make_unique<int>(7));
    const std::unique_ptr<int> taken = std::move(result).value();
    EXPECT_EQ(*taken, 7);
}

TEST(Result, ThrowsItsErrorWhereThereIsNoValue) {
    Result<int> result(Error(ErrorCode::out_of_memory, "no room"));
    EXPECT_FALSE(result.ok());
    EXPECT_FALSE(static_cast<bool>(result));
    EXPECT_EQ(result.error().code(), ErrorCode::out_of_memory);
    EXPECT_THROW(static_cast<void>(result.value()), Error);
    EXPECT_THROW(static_cast<void>(std::as_const(result).value()), Error);
    try {
        static_cast<void>(std::move(result).value());
        ADD_FAILURE() << "no error";
    } catch (const Error& error) {
        EXPECT_EQ(error.code(), ErrorCode::out_of_memory);
        EXPECT_STREQ(error.what(), "no room");
    }
}

TEST(Text, JoinsWordsAndNumbers) {
    EXPECT_EQ(text("expected ", 3, std::string(" heads"), std::string_view(", not "), -4, "/",
                   18446744073709551615ull),
              "expected 3 heads, not -4/18446744073709551615");
}

}  // namespace
