// SPDX-License-Identifier: Apache-2.0
// Expects a zse::Error with its code, the words that its sentence has to hold, and the form of a sentence.
#pragma once

#include <zse/core/error.hpp>

#include <gtest/gtest.h>

#include <initializer_list>
#include <string>
#include <string_view>

namespace support {

/// Runs `action` and expects it to throw an Error of that code whose message holds each of `words` and is one
/// printable line.
template <class Action>
void expect_error(Action action, zse::ErrorCode code, std::initializer_list<std::string_view> words) {
    try {
        action();
        ADD_FAILURE() << "no error; expected " << zse::name(code);
    } catch (const zse::Error& error) {
        const std::string_view message = error.what();
        EXPECT_EQ(zse::name(error.code()), zse::name(code)) << message;
        for (const std::string_view word : words) {
            EXPECT_NE(message.find(word), std::string_view::npos)
                << "'" << word << "' is not in: " << message;
        }
        for (const char character : message) {
            EXPECT_TRUE(character >= 0x20 && character < 0x7f) << "not one printable line: " << message;
        }
    }
}

}  // namespace support
