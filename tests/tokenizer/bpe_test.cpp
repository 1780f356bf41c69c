// SPDX-License-Identifier: Apache-2.0
// Merging with a heap against merging by the definition, and the work it does on hostile words.
#include <support/tiny_vocabulary.hpp>
#include <zse/tokenizer/bpe.hpp>

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

namespace zse {
namespace {

using tokenizer::Merges;
using tokenizer::Vocabulary;
using tokenizer::WordMerger;
using Ids = std::vector<std::int32_t>;

/// By the definition: look at all pairs, join the leftmost of the lowest rank, start again.
Ids merged_by_definition(const Merges& merges, Ids word) {
    for (;;) {
        std::uint64_t best = ~std::uint64_t{0};
        std::size_t at = 0;
        for (std::size_t i = 0; i + 1 < word.size(); ++i) {
            const std::uint64_t* found = merges.find(word[i], word[i + 1]);
            if (found != nullptr && *found < best) {
                best = *found;
                at = i;
            }
        }
        if (best == ~std::uint64_t{0}) return word;
        word[at] = static_cast<std::int32_t>(best & 0xffffffffu);
        word.erase(word.begin() + static_cast<std::ptrdiff_t>(at) + 1);
    }
}

Ids bytes_of(std::string_view word) {
    Ids ids;
    for (const char c : word) ids.push_back(static_cast<std::uint8_t>(c));
    return ids;
}

Ids merged(const Merges& merges, const Ids& word) {
    Ids ids;
    WordMerger(merges).merge(word, ids);
    return ids;
}

/// Three letters and random merges over them, so that candidates often become outdated.
class RandomMerges {
public:
    explicit RandomMerges(unsigned seed) {
        std::mt19937 random(seed);
        std::vector<std::string> parts{"a", "b", "c"};
        while (parts.size() < 40) {
            const std::string& left = parts[random() % parts.size()];
            const std::string& right = parts[random() % parts.size()];
            if (left.size() + right.size() > 9) continue;
            tiny_.add_merge(left, right);
            parts.push_back(left + right);
        }
    }
    tokenizer::VocabularyData& data() { return tiny_.data(); }

private:
    test::TinyVocabulary tiny_;
};

TEST(Bpe, HeapFindsWhatTheDefinitionFinds) {
    std::mt19937 random(7);
    std::size_t joined = 0;
    for (unsigned seed = 0; seed < 40; ++seed) {
        RandomMerges made(seed);
        const Vocabulary vocabulary(made.data());
        const Merges merges(vocabulary, made.data().merges);
        for (int i = 0; i < 100; ++i) {
            std::string word;
            for (std::size_t n = random() % 40; n > 0; --n) word += static_cast<char>('a' + random() % 3);
            const Ids expected = merged_by_definition(merges, bytes_of(word));
            ASSERT_EQ(merged(merges, bytes_of(word)), expected) << seed << ' ' << word;
            joined += word.size() - expected.size();
        }
    }
    EXPECT_GT(joined, 20'000u);
}

TEST(Bpe, WorkIsLinearInCandidatesForAnyWord) {
    for (unsigned seed = 0; seed < 4; ++seed) {
        RandomMerges made(seed);
        const Vocabulary vocabulary(made.data());
        const Merges merges(vocabulary, made.data().merges);
        WordMerger merger(merges);
        std::mt19937 random(seed);
        for (const bool one_letter : {true, false}) {
            Ids word(1'000'000);
            for (auto& id : word) id = 'a' + (one_letter ? 0 : static_cast<std::int32_t>(random() % 3));
            Ids ids;
            merger.merge(word, ids);
            EXPECT_LT(ids.size(), word.size());
            EXPECT_LE(merger.steps(), 3 * word.size());  // n - 1 at first, two more for each of n - 1 merges
            std::size_t letters = 0;
            for (const std::int32_t id : ids) letters += vocabulary.bytes(id).size();
            EXPECT_EQ(letters, word.size());
        }
    }
}

TEST(Bpe, SymbolsWithoutATokenSeparateAndLeaveNothing) {
    test::TinyVocabulary tiny;
    const Vocabulary vocabulary(tiny.data());
    const Merges merges(vocabulary, tiny.data().merges);
    EXPECT_EQ(merged(merges, {'l', -1, 'l', -1, -1, 'l', 'l'}), (Ids{'l', 'l', 257}));
    EXPECT_TRUE(merged(merges, {}).empty());
    EXPECT_TRUE(merged(merges, {-1}).empty());
}

TEST(Bpe, MalformedMergesAreRefused) {
    for (const char* line : {"", "h", "he", " h", "h ", "hZZ e", "h ZZe", "z z", "h e e"}) {
        test::TinyVocabulary tiny;
        tiny.data().merges.push_back(line);
        const Vocabulary vocabulary(tiny.data());
        try {
            const Merges merges(vocabulary, tiny.data().merges);
            FAIL() << "accepted '" << line << "'";
        } catch (const Error& error) {
            EXPECT_EQ(error.code(), ErrorCode::corrupt);
            const std::string rank = std::to_string(tiny.data().merges.size() - 1);
            EXPECT_NE(std::string(error.what()).find("merge " + rank), std::string::npos) << error.what();
        }
    }
}

TEST(Bpe, TheFirstOfTwoEqualMergesCounts) {
    test::TinyVocabulary tiny;
    const std::size_t before = tiny.data().merges.size();
    tiny.data().merges.push_back(tiny.data().merges.front());
    const Vocabulary vocabulary(tiny.data());
    const Merges merges(vocabulary, tiny.data().merges);
    EXPECT_EQ(merges.size(), before);
    EXPECT_EQ(*merges.find('h', 'e') >> 32, 0u);
}

}  // namespace
}  // namespace zse
