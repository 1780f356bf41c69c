// SPDX-License-Identifier: Apache-2.0
// Streaming gives the same text as decoding at once, in pieces that are valid UTF-8 each.
#include <support/tiny_vocabulary.hpp>
#include <zse/tokenizer/tokenizer.hpp>

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <string_view>
#include <vector>

namespace zse {
namespace {

using tokenizer::find_invalid_utf8;
using tokenizer::Tokenizer;
using Ids = std::vector<std::int32_t>;

/// Maximal subparts by the standard's definition, on the whole text at once.
std::string repaired(std::string_view bytes) {
    std::string text;
    while (!bytes.empty()) {
        const auto step = tokenizer::utf8_step(bytes);
        text += step.kind == tokenizer::Utf8Step::Kind::whole ? bytes.substr(0, step.length)
                                                              : tokenizer::replacement_character;
        bytes.remove_prefix(step.length);
    }
    return text;
}

std::string streamed(const Tokenizer& tokenizer, const Ids& ids, bool show_special) {
    auto decoder = tokenizer.stream_decoder(show_special);
    std::string text;
    for (const std::int32_t id : ids) {
        const std::string_view piece = decoder.push(id);
        EXPECT_EQ(find_invalid_utf8(piece), std::string_view::npos);
        text += piece;
    }
    return text += decoder.flush();
}

TEST(StreamDecoder, HoldsACharacterBackUntilItIsWhole) {
    test::TinyVocabulary tiny;
    const Tokenizer tokenizer(tiny.data());
    auto decoder = tokenizer.stream_decoder();
    EXPECT_EQ(decoder.push('a'), "a");
    EXPECT_EQ(decoder.push(0xF0), "");
    EXPECT_EQ(decoder.push(0x9F), "");
    EXPECT_EQ(decoder.push(0x9A), "");
    EXPECT_EQ(decoder.push(0x80), "\xF0\x9F\x9A\x80");
    EXPECT_EQ(decoder.push(0xC3), "");
    EXPECT_EQ(decoder.push('b'),
              "\xEF\xBF\xBD"
              "b");
    EXPECT_EQ(decoder.push(0xE2), "");
    EXPECT_EQ(decoder.push(0xC3), "\xEF\xBF\xBD");
    EXPECT_EQ(decoder.push(0xA9), "\xC3\xA9");
    EXPECT_EQ(decoder.push(0xE2), "");
    EXPECT_EQ(decoder.flush(), "\xEF\xBF\xBD");
    EXPECT_EQ(decoder.flush(), "");
    EXPECT_EQ(decoder.push('c'), "c");
}

TEST(StreamDecoder, AnyTokensGiveTheRepairedBytes) {
    test::TinyVocabulary tiny;
    const Tokenizer tokenizer(tiny.data());
    std::mt19937 random(3);
    // Bytes at the borders of the ranges in UTF-8's table, where mistakes live.
    const std::vector<std::int32_t> borders{0x00, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF,
                                            0xC0, 0xC1, 0xC2, 0xDF, 0xE0, 0xE1, 0xED, 0xEE,
                                            0xEF, 0xF0, 0xF1, 0xF3, 0xF4, 0xF5, 0xFF};
    const auto size = static_cast<std::uint32_t>(tokenizer.vocabulary_size());
    std::size_t replaced = 0;
    for (int round = 0; round < 20'000; ++round) {
        Ids ids;
        std::string all;
        std::string shown;
        for (std::size_t n = random() % 12; n > 0; --n) {
            const bool any = random() % 4 == 0;
            ids.push_back(any ? static_cast<std::int32_t>(random() % size)
                              : borders[random() % borders.size()]);
            const auto type = tokenizer.token_type(ids.back());
            shown += tokenizer.token_bytes(ids.back());
            if (type == tokenizer::TokenType::control || type == tokenizer::TokenType::unknown) continue;
            all += tokenizer.token_bytes(ids.back());
        }
        ASSERT_EQ(tokenizer.decode(ids), repaired(all));
        ASSERT_EQ(tokenizer.decode(ids, true), repaired(shown));
        ASSERT_EQ(streamed(tokenizer, ids, false), tokenizer.decode(ids));
        ASSERT_EQ(streamed(tokenizer, ids, true), tokenizer.decode(ids, true));
        replaced += repaired(all) != all;
    }
    EXPECT_GT(replaced, 1000u);
}

TEST(StreamDecoder, HiddenTokensDoNotBreakACharacter) {
    test::TinyVocabulary tiny;
    const Tokenizer tokenizer(tiny.data());
    const auto end = static_cast<std::int32_t>(tiny.end);
    EXPECT_EQ(tokenizer.decode(Ids{0xC3, end, 0xA9}), "\xC3\xA9");
    EXPECT_EQ(tokenizer.decode(Ids{'a', end}, true), "a<|im_end|>");
    EXPECT_EQ(tokenizer.decode(Ids{static_cast<std::int32_t>(tiny.tool)}), "<tool>");
    EXPECT_EQ(tokenizer.decode(Ids{static_cast<std::int32_t>(tiny.unknown)}), "");
}

TEST(StreamDecoder, AnUnknownIdIsRefusedAndChangesNothing) {
    test::TinyVocabulary tiny;
    const Tokenizer tokenizer(tiny.data());
    auto decoder = tokenizer.stream_decoder();
    EXPECT_EQ(decoder.push(0xC3), "");
    EXPECT_THROW((void)decoder.push(-1), Error);
    EXPECT_THROW((void)decoder.push(1 << 20), Error);
    EXPECT_EQ(decoder.push(0xA9), "\xC3\xA9");
}

}  // namespace
}  // namespace zse
