// SPDX-License-Identifier: Apache-2.0
// UTF-8 steps against a decoder written from the definition, over all sequences that can differ.
#include <zse/tokenizer/byte_level.hpp>
#include <zse/tokenizer/utf8.hpp>

#include <gtest/gtest.h>

#include <set>
#include <string>

namespace zse {
namespace {

using tokenizer::find_invalid_utf8;
using tokenizer::utf8_step;
using Kind = tokenizer::Utf8Step::Kind;

/// Every scalar value, encoded by arithmetic alone.
std::string encoded(std::uint32_t point) {
    if (point < 0x80) return {static_cast<char>(point)};
    const std::size_t tail = point < 0x800 ? 1 : point < 0x10000 ? 2 : 3;
    std::string text(tail + 1, '\0');
    for (std::size_t i = tail; i > 0; --i, point >>= 6) text[i] = static_cast<char>(0x80 | (point & 0x3F));
    text[0] = static_cast<char>((0xFF00u >> (tail + 1) & 0xFFu) | point);
    return text;
}

TEST(Utf8, AcceptsEachScalarValueAndHoldsEachPrefixOfIt) {
    for (std::uint32_t point = 0; point < 0x110000; ++point) {
        if (point >= 0xD800 && point < 0xE000) continue;
        const std::string text = encoded(point);
        ASSERT_EQ(find_invalid_utf8(text), std::string::npos) << point;
        ASSERT_EQ(utf8_step(text).length, text.size()) << point;
        for (std::size_t cut = 1; cut < text.size(); ++cut) {
            const auto step = utf8_step(std::string_view(text).substr(0, cut));
            ASSERT_TRUE(step.kind == Kind::partial && step.length == cut) << point;
        }
    }
}

TEST(Utf8, RefusesExactlyTheSequencesThatEncodeNoScalarValue) {
    // All pairs and triples of bytes that could begin a character; a fourth byte adds no new case.
    std::set<std::string> beginnings;
    for (std::uint32_t point = 0x80; point < 0x110000; ++point) {
        if (point >= 0xD800 && point < 0xE000) continue;
        const std::string text = encoded(point);
        beginnings.insert(text.substr(0, 2));
        beginnings.insert(text.substr(0, 3));
    }
    for (unsigned a = 0x80; a < 0x100; ++a) {
        for (unsigned b = 0; b < 0x100; ++b) {
            const std::string pair{static_cast<char>(a), static_cast<char>(b)};
            ASSERT_EQ(utf8_step(pair).kind != Kind::broken, beginnings.contains(pair)) << a << ' ' << b;
            if (!beginnings.contains(pair) || a < 0xE0) continue;
            for (unsigned c = 0; c < 0x100; ++c) {
                const std::string triple = pair + static_cast<char>(c);
                ASSERT_EQ(utf8_step(triple).kind != Kind::broken, beginnings.contains(triple));
            }
        }
    }
}

TEST(Utf8, NamesTheFirstBadByte) {
    EXPECT_EQ(find_invalid_utf8("abc\xFF"), 3u);
    EXPECT_EQ(find_invalid_utf8("\xC3\xA9\xC3"), 2u);
    EXPECT_EQ(find_invalid_utf8("\xED\xA0\x80"), 0u);      // a surrogate
    EXPECT_EQ(find_invalid_utf8("a\xC0\x80"), 1u);         // overlong
    EXPECT_EQ(find_invalid_utf8("\xF4\x90\x80\x80"), 0u);  // above U+10FFFF
    EXPECT_EQ(find_invalid_utf8(std::string_view("a\0b", 3)), std::string_view::npos);
}

TEST(ByteLevel, SpellsEachByteDifferentlyAndReadsItBack) {
    std::set<std::string> seen;
    for (unsigned byte = 0; byte < 256; ++byte) {
        const std::string one{static_cast<char>(byte)};
        std::string spelled;
        tokenizer::append_byte_level(spelled, one);
        EXPECT_TRUE(seen.insert(spelled).second);
        std::string back;
        EXPECT_TRUE(tokenizer::append_spelled_bytes(back, spelled));
        EXPECT_EQ(back, one);
    }
    EXPECT_TRUE(seen.contains("\xC4\xA0"));  // a space is U+0120
    EXPECT_TRUE(seen.contains("\xC4\x8A"));  // a line feed is U+010A
    std::string out;
    for (const char* text : {" ", "\xC2\xAD", "\xC5\x84", "\xE2\x82\xAC", "\xC4", "\xFF", "\xC4\x20"}) {
        EXPECT_FALSE(tokenizer::append_spelled_bytes(out, text)) << text;
    }
}

}  // namespace
}  // namespace zse
