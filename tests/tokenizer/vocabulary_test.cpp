// SPDX-License-Identifier: Apache-2.0
// Vocabularies: what is kept of each token, which tokens end a generation, and what is refused.
#include <support/tiny_vocabulary.hpp>
#include <zse/tokenizer/vocabulary.hpp>

#include <gtest/gtest.h>

#include <functional>
#include <string>

namespace zse {
namespace {

using test::TinyVocabulary;
using tokenizer::TokenType;
using tokenizer::Vocabulary;

std::int32_t id(std::uint32_t token) {
    return static_cast<std::int32_t>(token);
}

TEST(Vocabulary, KeepsTextBytesAndTypeOfEachToken) {
    TinyVocabulary tiny;
    const std::uint32_t hex = tiny.add_token("<0x0A>", 6);
    const std::uint32_t odd = tiny.add_token("\xE2\x84\xA2", 1);  // a trade mark sign is not in the alphabet
    const std::uint32_t lower = tiny.add_token("<0x0b>", 6);
    const std::uint32_t empty = tiny.add_token("", 1);
    const Vocabulary vocabulary(tiny.data());
    ASSERT_EQ(vocabulary.size(), tiny.data().tokens.size());
    for (std::uint32_t i = 0; i < vocabulary.size(); ++i) {
        EXPECT_EQ(vocabulary.text(id(i)), tiny.data().tokens[i]);
        EXPECT_EQ(static_cast<std::int64_t>(vocabulary.type(id(i))), tiny.data().token_types[i]);
        if (i != empty) {
            EXPECT_EQ(vocabulary.find(tiny.data().tokens[i]), id(i));
        }
    }
    for (unsigned byte = 0; byte < 256; ++byte) {
        EXPECT_EQ(vocabulary.byte_id(static_cast<std::uint8_t>(byte)), id(byte));
        EXPECT_EQ(vocabulary.bytes(id(byte)), std::string(1, static_cast<char>(byte)));
    }
    EXPECT_EQ(vocabulary.bytes(id(hex)), "\n");
    EXPECT_EQ(vocabulary.bytes(id(odd)), "\xE2\x84\xA2");
    EXPECT_EQ(vocabulary.bytes(id(lower)), "<0x0b>");
    EXPECT_EQ(vocabulary.bytes(id(empty)), "");
    EXPECT_EQ(vocabulary.find(""), std::nullopt);
    EXPECT_EQ(vocabulary.find("nothing"), std::nullopt);
    EXPECT_EQ(vocabulary.find_bytes(" world"), vocabulary.find("\xC4\xA0world"));
    EXPECT_EQ(vocabulary.find_bytes("<tool>"), -1);  // a special token is no ordinary word
    EXPECT_GT(vocabulary.bytes_held(), 1000u);
}

TEST(Vocabulary, LackOfAByteIsKnown) {
    TinyVocabulary tiny;
    tiny.data().tokens[7] = "something else";
    EXPECT_EQ(Vocabulary(tiny.data()).byte_id(7), -1);
}

TEST(Vocabulary, GenerationsEndWithTheFilesIdsAndKnownControlTokens) {
    TinyVocabulary tiny;
    const std::uint32_t turn = tiny.add_token("<end_of_turn>", 4);
    const std::uint32_t end = tiny.add_token("<|end|>", 3);
    const std::uint32_t other = tiny.add_token("<|other|>", 3);
    tiny.data().eom = other;
    tiny.data().eot = std::uint32_t{'a'};
    const Vocabulary vocabulary(tiny.data());
    for (std::uint32_t i = 0; i < vocabulary.size(); ++i) {
        const bool ends =
            i == tiny.end_of_text || i == tiny.end || i == turn || i == end || i == other || i == 'a';
        // "</s>" is normal in this vocabulary: text that somebody may write.
        EXPECT_EQ(vocabulary.is_end_of_generation(id(i)), ends) << tiny.data().tokens[i];
    }
    // Otherwise a stranger's text could end a turn.
    EXPECT_EQ(vocabulary.type(id(turn)), TokenType::control);
}

TEST(Vocabulary, MessageEndIsInnerWhereTurnsReturnOrCall) {
    TinyVocabulary tiny;
    const std::uint32_t end = tiny.add_token("<|end|>", 3);
    tiny.add_token("<|return|>", 3);
    EXPECT_TRUE(Vocabulary(tiny.data()).is_end_of_generation(id(end)));
    tiny.add_token("<|call|>", 3);
    EXPECT_FALSE(Vocabulary(tiny.data()).is_end_of_generation(id(end)));
}

TEST(Vocabulary, WithoutTypesNamesDecide) {
    TinyVocabulary tiny;
    tiny.data().token_types.clear();
    const Vocabulary vocabulary(tiny.data());
    EXPECT_TRUE(vocabulary.is_end_of_generation(id(tiny.end)));
    EXPECT_TRUE(vocabulary.is_end_of_generation(id(tiny.plain_end)));
    EXPECT_EQ(vocabulary.type(id(tiny.end)), TokenType::normal);
}

TEST(Vocabulary, ContradictionsAreRefused) {
    struct Case {
        const char* what;
        std::function<void(TinyVocabulary&)> damage;
        const char* said;
    };
    const Case cases[] = {
        {"no tokens", [](auto& t) { t.data().tokens.clear(); }, "found 0"},
        {"a type missing", [](auto& t) { t.data().token_types.pop_back(); }, "one type for each"},
        {"a type too many", [](auto& t) { t.data().token_types.push_back(1); }, "one type for each"},
        {"negative type", [](auto& t) { t.data().token_types[3] = -1; }, "for token 3"},
        {"type 7", [](auto& t) { t.data().token_types[4] = 7; }, "found 7 for token 4"},
        {"huge type", [](auto& t) { t.data().token_types[4] = std::int64_t{1} << 40; }, "for token 4"},
        {"duplicate", [](auto& t) { t.add_token("A", 1); }, "spelled as token 65"},
        {"duplicate across types", [](auto& t) { t.add_token("A", 3); }, "spelled as token 65"},
        {"duplicate special", [](auto& t) { t.add_token("<tool>", 1); }, "spelled as token"},
        {"bos", [](auto& t) { t.data().bos = t.data().tokens.size(); }, "bos token's id below"},
        {"eos", [](auto& t) { t.data().eos = ~std::uint64_t{0}; }, "eos token's id below"},
        {"eot", [](auto& t) { t.data().eot = std::uint64_t{1} << 32; }, "eot token's id below"},
        {"eom", [](auto& t) { t.data().eom = 99999; }, "eom token's id below"},
        {"unknown", [](auto& t) { t.data().unknown = 99999; }, "unknown token's id below"},
        {"padding", [](auto& t) { t.data().padding = 99999; }, "padding token's id below"},
    };
    for (const Case& test : cases) {
        TinyVocabulary tiny;
        EXPECT_NO_THROW(Vocabulary{tiny.data()});
        test.damage(tiny);
        try {
            const Vocabulary vocabulary(tiny.data());
            FAIL() << "accepted: " << test.what;
        } catch (const Error& error) {
            EXPECT_EQ(error.code(), ErrorCode::corrupt) << test.what;
            EXPECT_NE(std::string(error.what()).find(test.said), std::string::npos) << error.what();
        }
    }
}

TEST(Vocabulary, IdsOutOfRangeAreRefused) {
    TinyVocabulary tiny;
    const Vocabulary vocabulary(tiny.data());
    for (const std::int32_t bad :
         {-1, id(static_cast<std::uint32_t>(vocabulary.size())), INT32_MAX, INT32_MIN}) {
        EXPECT_THROW((void)vocabulary.bytes(bad), Error);
        EXPECT_THROW((void)vocabulary.text(bad), Error);
        EXPECT_THROW((void)vocabulary.type(bad), Error);
        EXPECT_THROW((void)vocabulary.is_end_of_generation(bad), Error);
    }
}

}  // namespace
}  // namespace zse
