// SPDX-License-Identifier: Apache-2.0
// Stop strings: the same answer for all ways to split a text, nothing withheld longer than needed, bad
// strings.
// rows: 76
#include <zse/sampling/stop.hpp>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <vector>

namespace {

using testing::HasSubstr;
using zse::sampling::StopMatcher;
using Strings = std::vector<std::string>;

struct Outcome {
    std::string passed;
    std::optional<std::size_t> which;
    friend bool operator==(const Outcome&, const Outcome&) = default;
};

void PrintTo(const Outcome& outcome, std::ostream* out) {
    *out << '"' << outcome.passed << "\" " << (outcome.which ? static_cast<int>(*outcome.which) : -1);
}

Outcome run(StopMatcher& matcher, const std::vector<std::string_view>& pieces) {
    std::string passed;
    for (const std::string_view piece : pieces) passed += matcher.push(piece);
    passed += matcher.finish();
    return {passed, matcher.which()};
}

/// The contract, byte by byte and slowly: the first end of any string; the longest of those that end there.
Outcome reference(const Strings& strings, const std::string& text) {
    for (std::size_t end = 1; end <= text.size(); ++end) {
        std::optional<std::size_t> best;
        for (std::size_t s = 0; s < strings.size(); ++s) {
            const std::size_t size = strings[s].size();
            if (size > end || text.compare(end - size, size, strings[s]) != 0) continue;
            if (!best || size > strings[*best].size()) best = s;
        }
        if (best) return {text.substr(0, end - strings[*best].size()), best};
    }
    return {text, std::nullopt};
}

/// All ways to cut `text` (at most 12 bytes) into pieces.
void expect_same_at_all_splits(const Strings& strings, const std::string& text) {
    ASSERT_LE(text.size(), 12u);
    const Outcome expected = reference(strings, text);
    StopMatcher matcher(strings);
    for (unsigned cuts = 0; cuts < 1u << (text.size() - 1); ++cuts) {
        std::vector<std::string_view> pieces;
        std::size_t start = 0;
        for (std::size_t i = 1; i <= text.size(); ++i) {
            if (i != text.size() && ((cuts >> (i - 1)) & 1u) == 0) continue;
            pieces.push_back(std::string_view(text).substr(start, i - start));
            start = i;
        }
        matcher.reset();
        ASSERT_EQ(run(matcher, pieces), expected) << text << " cut as " << cuts;
    }
}

TEST(StopMatcher, GivesTheSameAnswerAtAllSplits) {
    expect_same_at_all_splits({"</s>"}, "Hello </s>x");
    expect_same_at_all_splits({"</s>"}, "a <</<</s>");
    expect_same_at_all_splits({"User:", "\n\n"}, "Hi\n\nUser:");
    expect_same_at_all_splits({"User:", "\n\n"}, "Hi\nUser:");
    expect_same_at_all_splits({"aab"}, "aaaaaaab");
    expect_same_at_all_splits({"abab", "babb"}, "aabababb");
    expect_same_at_all_splits({"abcd", "bc"}, "xabcdx");
    expect_same_at_all_splits({"c", "bc", "abc"}, "xxabcx");
    expect_same_at_all_splits({"stop"}, "no match sto");
    expect_same_at_all_splits({"stop"}, "stop");
    expect_same_at_all_splits({"\xc3\xa9"}, "caf\xc3\xa8 caf\xc3\xa9!");
    expect_same_at_all_splits({}, "nothing");
}

TEST(StopMatcher, EqualsASlowSearchOverRandomTexts) {
    std::mt19937 random(3);
    const auto word = [&](std::size_t most) {
        std::string letters(1 + random() % most, ' ');
        for (char& letter : letters) letter = static_cast<char>('a' + random() % 2);
        return letters;
    };
    int matches = 0;
    for (int round = 0; round < 3000; ++round) {
        Strings strings(1 + random() % 4);
        for (std::string& string : strings) string = word(9);
        const std::string text = word(60);
        std::vector<std::string_view> pieces;
        for (std::size_t at = 0; at < text.size();) {
            const std::size_t size = random() % 6;
            pieces.push_back(std::string_view(text).substr(at, size));  // empty pieces, too
            at += size;
        }
        StopMatcher matcher(strings);
        const Outcome expected = reference(strings, text);
        ASSERT_EQ(run(matcher, pieces), expected) << text;
        matches += expected.which.has_value();
    }
    EXPECT_GT(matches, 500);
    EXPECT_LT(matches, 2900);
}

TEST(StopMatcher, HoldsBackOnlyWhatMayBecomeAMatch) {
    const Strings strings{"<end>", "enough"};
    StopMatcher matcher(strings);
    EXPECT_EQ(matcher.push("text <e"), "text ");
    EXPECT_EQ(matcher.held(), 2u);
    EXPECT_EQ(matcher.push("n"), "");
    EXPECT_EQ(matcher.push("o"), "<");  // "eno" may still become "enough"
    EXPECT_EQ(matcher.held(), 3u);
    EXPECT_EQ(matcher.push("d"), "enod");
    EXPECT_EQ(matcher.held(), 0u);
    EXPECT_EQ(matcher.push(""), "");
    EXPECT_EQ(matcher.push("<en"), "");
    EXPECT_FALSE(matcher.stopped());
    EXPECT_EQ(matcher.finish(), "<en");
    EXPECT_EQ(matcher.finish(), "");
}

TEST(StopMatcher, AfterAMatchAllIsDroppedUntilReset) {
    const Strings strings{"one", "two"};
    StopMatcher matcher(strings);
    EXPECT_EQ(matcher.push("a two b"), "a ");
    EXPECT_TRUE(matcher.stopped());
    EXPECT_EQ(matcher.which(), 1u);
    EXPECT_EQ(matcher.push("more one"), "");
    EXPECT_EQ(matcher.finish(), "");
    EXPECT_EQ(matcher.which(), 1u);
    matcher.reset();
    EXPECT_FALSE(matcher.stopped());
    EXPECT_EQ(matcher.push("wo is no match"), "wo is no match");
}

TEST(StopMatcher, WithoutStringsTextPassesThrough) {
    StopMatcher matcher;
    EXPECT_EQ(matcher.push("any "), "any ");
    EXPECT_EQ(matcher.push("text"), "text");
    EXPECT_EQ(matcher.finish(), "");
    EXPECT_FALSE(matcher.stopped());
}

std::string refusal(const Strings& strings) {
    try {
        const StopMatcher matcher(strings);
    } catch (const zse::Error& error) {
        EXPECT_EQ(error.code(), zse::ErrorCode::usage);
        return error.what();
    }
    return "accepted";
}

TEST(StopMatcher, RefusesEmptyLongAndTooManyStrings) {
    EXPECT_EQ(refusal({"a", ""}),
              "stop string 2 must have 1 to 1024 bytes, not 0; leave it out or shorten it");
    EXPECT_THAT(refusal({std::string(1025, 'x')}), HasSubstr("not 1025"));
    EXPECT_EQ(refusal(Strings(64, std::string(1024, 'x'))), "accepted");
    EXPECT_THAT(refusal(Strings(65, "x")), HasSubstr("at most 64 stop strings are allowed, not 65"));
}

TEST(StopMatcher, LongNearMissesStayLinear) {
    // 64 strings of 1,023 equal bytes and one other: without failure links, each byte would cost a thousand.
    Strings strings(64, std::string(1023, 'a'));
    for (std::size_t i = 0; i < strings.size(); ++i) strings[i] += static_cast<char>('A' + i % 26);
    StopMatcher matcher(strings);
    const std::string piece(100'000, 'a');
    EXPECT_EQ(matcher.push(piece).size(), 100'000u - 1023u);
    EXPECT_EQ(matcher.push("b").size(), 1024u);
    EXPECT_FALSE(matcher.stopped());
}

}  // namespace
