// SPDX-License-Identifier: Apache-2.0
// Text to ids and back over a vocabulary small enough to check by hand.
#include <support/tiny_vocabulary.hpp>
#include <zse/tokenizer/tokenizer.hpp>

#include <gtest/gtest.h>

#include <chrono>
#include <random>
#include <string>
#include <thread>
#include <vector>

namespace zse {
namespace {

using test::TinyVocabulary;
using tokenizer::EncodeOptions;
using tokenizer::Tokenizer;
using Ids = std::vector<std::int32_t>;

/// The tokens' texts with a bar between, which reads better in a failure than ids.
std::string pieces(const Tokenizer& tokenizer, std::string_view text, EncodeOptions options = {}) {
    std::string joined;
    for (const std::int32_t id : tokenizer.encode(text, options)) {
        joined += joined.empty() ? "" : "|";
        joined += tokenizer.token_bytes(id);
    }
    return joined;
}

std::string random_text(std::mt19937& random) {
    std::string text;
    for (std::size_t n = random() % 30; n > 0; --n) {
        switch (random() % 6) {
            case 0: text += static_cast<char>(random() % 128); break;
            case 1: text += " world"; break;
            case 2: tokenizer::append_utf8(text, static_cast<std::uint32_t>(0x80 + random() % 0xD780)); break;
            case 3:
                tokenizer::append_utf8(text, static_cast<std::uint32_t>(0xE000 + random() % 0x2000));
                break;
            case 4: text += "\xF0\x9F\x9A\x80"; break;
            default: text += "  \n"; break;
        }
    }
    return text;
}

TEST(Tokenizer, MergesWithinWords) {
    TinyVocabulary tiny;
    const Tokenizer tokenizer(tiny.data());
    EXPECT_EQ(pieces(tokenizer, "hello world"), "hello| world");
    EXPECT_EQ(pieces(tokenizer, "hell world's"), "hell| world|'s");
    EXPECT_EQ(pieces(tokenizer, "abc"), "ab|c");  // "a b" ranks before "b c"
    EXPECT_EQ(pieces(tokenizer, "aaaaa"), "aaaa|a");
    EXPECT_EQ(pieces(tokenizer, "a    b"), "a|  | | |b");  // the last space belongs to the word
    EXPECT_EQ(pieces(tokenizer, "\xC3\xA9"), "\xC3\xA9");
    EXPECT_EQ(pieces(tokenizer, ""), "");
}

TEST(Tokenizer, DigitsStandAloneWhereTheFamilySaysSo) {
    TinyVocabulary together("gpt-2");
    TinyVocabulary alone("smollm");
    EXPECT_EQ(pieces(Tokenizer(together.data()), "1212"), "12|12");
    EXPECT_EQ(pieces(Tokenizer(alone.data()), "1212"), "1|2|1|2");
}

TEST(Tokenizer, WholeWordsComeFirstWhereTheFamilySaysSo) {
    TinyVocabulary merged("gpt-2");
    merged.add_token("zebra", 1);  // a token to which no merge leads
    EXPECT_EQ(pieces(Tokenizer(merged.data()), "zebra"), "z|e|b|r|a");
    TinyVocabulary whole("llama-bpe");
    whole.add_token("zebra", 1);
    whole.add_token("horse", 3);
    whole.data().add_bos = false;
    EXPECT_EQ(pieces(Tokenizer(whole.data()), "zebra"), "zebra");
    EXPECT_EQ(pieces(Tokenizer(whole.data()), "horse", {.parse_special = false}), "h|or|s|e");
}

TEST(Tokenizer, SpecialTokensInText) {
    TinyVocabulary tiny;
    const Tokenizer tokenizer(tiny.data());
    const auto start = static_cast<std::int32_t>(tiny.start);
    const auto tool = static_cast<std::int32_t>(tiny.tool);
    const auto long_tool = static_cast<std::int32_t>(tiny.long_tool);
    EXPECT_EQ(tokenizer.encode("<|im_start|>hello"), (Ids{start, *tokenizer.find("hello")}));
    EXPECT_EQ(tokenizer.encode("<|im_start|>", {.parse_special = false}).size(), 12u);
    EXPECT_EQ(tokenizer.encode("<unk>"), Ids{static_cast<std::int32_t>(tiny.unknown)});
    EXPECT_EQ(tokenizer.encode("<unk>", {.parse_special = false}).size(), 5u);
    EXPECT_EQ(tokenizer.encode("<unused0>").size(), 9u);
    EXPECT_EQ(tokenizer.encode("</s>").size(), 4u);
    for (const bool parse : {true, false}) {
        const EncodeOptions options{.parse_special = parse};
        EXPECT_EQ(tokenizer.encode("<tool><tool>", options), (Ids{tool, tool}));
        EXPECT_EQ(tokenizer.encode("<tool><tool>x", options), Ids{long_tool});
        // The longer one wins although a shorter one begins before it.
        EXPECT_EQ(tokenizer.encode("<tool><tool><tool>x", options), (Ids{tool, long_tool}));
        EXPECT_EQ(tokenizer.encode("a<tool>a", options), (Ids{'a', tool, 'a'}));
    }
    EXPECT_EQ(pieces(tokenizer, "<|im_start<tool>|>"), "<|||i|m|_|s|t|a|r|t|<tool>|||>");
}

TEST(Tokenizer, LongerSpecialTokensWinOverEarlierOnes) {
    TinyVocabulary tiny;
    const auto early = static_cast<std::int32_t>(tiny.add_token("<x", 3));
    const auto late = static_cast<std::int32_t>(tiny.add_token("x>!", 3));
    const Tokenizer tokenizer(tiny.data());
    EXPECT_EQ(tokenizer.encode("<x>!<x"), (Ids{'<', late, early}));
}

TEST(Tokenizer, BeginAndEndAsTheFileSays) {
    TinyVocabulary tiny;
    const auto start = static_cast<std::int32_t>(tiny.start);
    const auto end = static_cast<std::int32_t>(tiny.end);
    EXPECT_EQ(Tokenizer(tiny.data()).encode("a"), Ids{'a'});
    tiny.data().add_bos = true;
    EXPECT_EQ(Tokenizer(tiny.data()).encode("a"), (Ids{start, 'a'}));
    EXPECT_EQ(Tokenizer(tiny.data()).encode(""), Ids{start});
    EXPECT_EQ(Tokenizer(tiny.data()).encode("a", {.add_special = false}), Ids{'a'});
    tiny.data().add_eos = true;
    EXPECT_EQ(Tokenizer(tiny.data()).encode("a"), (Ids{start, 'a', end}));

    TinyVocabulary llama("llama-bpe");  // the family begins with BOS unless the file objects
    EXPECT_EQ(Tokenizer(llama.data()).encode("a"), (Ids{start, 'a'}));
    llama.data().add_bos = false;
    EXPECT_EQ(Tokenizer(llama.data()).encode("a"), Ids{'a'});
    llama.data().add_bos.reset();
    llama.data().bos.reset();
    EXPECT_EQ(Tokenizer(llama.data()).encode("a"), Ids{'a'});
}

TEST(Tokenizer, BytesWithoutATokenAreLeftOut) {
    TinyVocabulary tiny;
    tiny.data().tokens[1] = "replaced";
    EXPECT_EQ(pieces(Tokenizer(tiny.data()), "l\x01l"), "l|l");
}

TEST(Tokenizer, RoundTrips) {
    std::mt19937 random(11);
    for (const auto& entry : tokenizer::named_pre_tokenizers) {
        TinyVocabulary tiny(entry.name);
        const Tokenizer tokenizer(tiny.data());
        for (int i = 0; i < 60; ++i) {
            const std::string text = random_text(random);
            const EncodeOptions plain{.add_special = false, .parse_special = false};
            ASSERT_EQ(tokenizer.decode(tokenizer.encode(text, plain)), text) << entry.name;
            ASSERT_EQ(tokenizer.decode(tokenizer.encode(text, {.add_special = false}), true), text)
                << entry.name;
        }
    }
}

TEST(Tokenizer, TextThatIsNotUtf8IsRefusedWithTheByte) {
    TinyVocabulary tiny;
    const Tokenizer tokenizer(tiny.data());
    for (const auto& [text, offset] : {std::pair<std::string, int>{"ab\xFFz", 2},
                                       {"\xC3", 0},
                                       {"ok\xED\xA0\x80", 2},
                                       {"\xC3\xA9\xF4\x90\x80\x80", 2}}) {
        try {
            (void)tokenizer.encode(text);
            FAIL() << "accepted";
        } catch (const Error& error) {
            EXPECT_EQ(error.code(), ErrorCode::invalid_input);
            EXPECT_NE(std::string(error.what()).find(zse::text("at byte ", offset, ";")), std::string::npos)
                << error.what();
        }
    }
}

TEST(Tokenizer, OtherModelsAreRefused) {
    for (const char* model : {"llama", "bert", "t5", "", "gpt2\n"}) {
        TinyVocabulary tiny;
        tiny.data().model = model;
        try {
            const Tokenizer tokenizer(tiny.data());
            FAIL() << "accepted " << model;
        } catch (const Error& error) {
            EXPECT_EQ(error.code(), ErrorCode::unsupported);
            EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
        }
    }
}

TEST(Tokenizer, AMissingBeginOrEndIsRefused) {
    TinyVocabulary bos;
    bos.data().add_bos = true;
    bos.data().bos.reset();
    EXPECT_THROW(Tokenizer{bos.data()}, Error);
    TinyVocabulary eos;
    eos.data().add_eos = true;
    eos.data().eos.reset();
    EXPECT_THROW(Tokenizer{eos.data()}, Error);
}

TEST(Tokenizer, MegabytesOfOneWordOrOneSpecialToken) {
    TinyVocabulary tiny;
    for (std::size_t n = 1; n <= 60; ++n) tiny.add_token(std::string(n, '#'), n == 1 ? 5 : 4);
    tiny.data().tokens['#'] = "hash";  // its place is taken by the user-defined tokens above
    const Tokenizer tokenizer(tiny.data());
    for (const std::string unit : {"a", "hello", "#", " ", "<tool>", "\xF0\x9F\x9A\x80", "<|im_start|"}) {
        std::string text;
        while (text.size() < 1'000'000) text += unit;
        const auto start = std::chrono::steady_clock::now();
        const Ids ids = tokenizer.encode(text);
        // Quadratic time would be hours; it takes about a second, and machines are busy.
        EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(40)) << unit;
        std::size_t bytes = 0;
        for (const std::int32_t id : ids) bytes += tokenizer.token_bytes(id).size();
        EXPECT_EQ(bytes, text.size()) << unit;
    }
}

TEST(Tokenizer, SeveralThreadsShareOne) {
    TinyVocabulary tiny("qwen2");
    const Tokenizer tokenizer(tiny.data());
    std::mt19937 random(5);
    std::vector<std::string> texts;
    std::vector<Ids> expected;
    for (int i = 0; i < 100; ++i) {
        texts.push_back(random_text(random));
        expected.push_back(tokenizer.encode(texts.back()));
    }
    std::vector<int> equal(4);
    std::vector<std::thread> threads;
    for (std::size_t t = 0; t < equal.size(); ++t) {
        threads.emplace_back([&, t] {
            for (std::size_t i = 0; i < texts.size(); ++i)
                equal[t] += tokenizer.encode(texts[i]) == expected[i];
        });
    }
    for (auto& thread : threads) thread.join();
    EXPECT_EQ(equal, std::vector<int>(4, 100));
}

}  // namespace
}  // namespace zse
