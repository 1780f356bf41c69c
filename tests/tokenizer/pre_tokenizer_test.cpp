// SPDX-License-Identifier: Apache-2.0
// Splitting into words: against an independent implementation, and on text made to hurt.
#include <zse/tokenizer/pre_tokenizer.hpp>
#include <zse/tokenizer/utf8.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace zse {
namespace {

using tokenizer::PreTokenizer;

std::vector<std::size_t> lengths(const PreTokenizer& pre, std::string_view text) {
    tokenizer::SplitWorkspace workspace;
    std::vector<std::uint32_t> ends;
    pre.split(text, ends, workspace);
    std::vector<std::size_t> result;
    std::size_t begin = 0;
    for (const std::uint32_t end : ends) {
        result.push_back(end - begin);
        begin = end;
    }
    EXPECT_EQ(begin, text.size());
    return result;
}

TEST(PreTokenizer, SplitsAsThePublishedTokenizersDo) {
    std::ifstream file(ZSE_TEST_DATA "/pre_tokenizers.json");
    const auto made = nlohmann::json::parse(file);
    const auto texts = made.at("texts").get<std::vector<std::string>>();
    ASSERT_GE(texts.size(), 50u);
    ASSERT_GE(made.at("lengths").size(), 10u);
    for (const auto& [name, rows] : made.at("lengths").items()) {
        const PreTokenizer pre(name);
        ASSERT_EQ(rows.size(), texts.size());
        for (std::size_t i = 0; i < texts.size(); ++i) {
            EXPECT_EQ(lengths(pre, texts[i]), rows[i].get<std::vector<std::size_t>>())
                << name << ": " << texts[i];
        }
    }
}

TEST(PreTokenizer, UnknownNameIsRefusedWithTheKnownOnes) {
    try {
        const PreTokenizer pre("no\nsuch");
        FAIL() << "accepted";
    } catch (const Error& error) {
        EXPECT_EQ(error.code(), ErrorCode::unsupported);
        const std::string sentence = error.what();
        EXPECT_NE(sentence.find("'no?such'"), std::string::npos) << sentence;
        for (const char* name : {"smollm", "llama-bpe", "qwen2", "tekken"}) {
            EXPECT_NE(sentence.find(name), std::string::npos) << name;
        }
    }
    EXPECT_EQ(&PreTokenizer("").family(), &PreTokenizer("default").family());
}

TEST(PreTokenizer, EachFamilyCompilesAndCoversTheText) {
    std::string text = "Hello w\xC3\xB6rld 12345, it's\n\n\t  x \xE4\xBD\xA0\xE5\xA5\xBD  ";
    for (const auto& entry : tokenizer::named_pre_tokenizers) {
        const PreTokenizer pre(entry.name);
        EXPECT_TRUE(lengths(pre, "").empty());
        for (const std::size_t length : lengths(pre, text)) EXPECT_GT(length, 0u) << entry.name;
    }
}

/// A long run that backtracking could make quadratic, at the end of which the hope of a match is gone.
TEST(PreTokenizer, MegabytesOfHostileTextTakeLinearTime) {
    constexpr std::size_t megabyte = 1'000'000;
    const auto repeated = [](std::string_view unit, std::string_view last) {
        std::string text;
        while (text.size() < megabyte) text += unit;
        return text += last;
    };
    const std::vector<std::string> texts{
        repeated(" ", "x"),        repeated("\n", " x"),      repeated(" \n", "x"), repeated("A", "1"),
        repeated("Aa", "1"),       repeated("1", "x"),        repeated("'", "s"),   repeated("!", "\n"),
        repeated("\xC3\x89", " "), repeated("\xCC\x81", "1"), repeated("a ", "")};
    std::vector<const tokenizer::PreTokenizerFamily*> done;
    for (const auto& entry : tokenizer::named_pre_tokenizers) {
        if (std::find(done.begin(), done.end(), entry.family) != done.end()) continue;
        done.push_back(entry.family);
        const PreTokenizer pre(entry.name);
        for (const std::string& text : texts) {
            const auto start = std::chrono::steady_clock::now();
            EXPECT_FALSE(lengths(pre, text).empty());
            // Quadratic time would be minutes; linear time is some 50 ms, and machines are busy.
            EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(10))
                << entry.name << ": " << text.substr(0, 8) << "... " << text.back();
        }
    }
}

TEST(PreTokenizer, MongolianVowelSeparatorIsNoSpace) {
    // PCRE2's own \s takes U+180E for one; in GPT-2's expression it would then end the word before it.
    EXPECT_EQ(lengths(PreTokenizer("gpt-2"), "a\xE1\xA0\x8E!"), (std::vector<std::size_t>{1, 4}));
    EXPECT_EQ(lengths(PreTokenizer("gpt-2"), "a\xC2\x85!"), (std::vector<std::size_t>{1, 2, 1}));
}

}  // namespace
}  // namespace zse
