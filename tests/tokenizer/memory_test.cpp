// SPDX-License-Identifier: Apache-2.0
// A tokenizer's tables lie in the memory that it is given: as much as its footprint says, and next to nothing of that
// is left over.
#include <support/tiny_vocabulary.hpp>
#include <zse/io/gguf.hpp>
#include <zse/tokenizer/from_gguf.hpp>
#include <zse/tokenizer/tokenizer.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <filesystem>
#include <memory_resource>
#include <new>
#include <string>
#include <vector>

namespace zse {
namespace {

using test::TinyVocabulary;
using tokenizer::Tokenizer;
using tokenizer::VocabularyData;

/// Memory that counts what is taken from it, and lets nothing else take any.
class Counting : public std::pmr::memory_resource {
public:
    std::size_t bytes = 0;  ///< taken and not given back
    std::size_t most = 0;

private:
    void* do_allocate(std::size_t size, std::size_t alignment) override {
        void* taken = std::pmr::new_delete_resource()->allocate(size, alignment);
        bytes += size;
        most = std::max(most, bytes);
        return taken;
    }
    void do_deallocate(void* pointer, std::size_t size, std::size_t alignment) override {
        bytes -= size;
        std::pmr::new_delete_resource()->deallocate(pointer, size, alignment);
    }
    [[nodiscard]] bool do_is_equal(const memory_resource& other) const noexcept override {
        return this == &other;
    }
};

/// Whether a tokenizer fits into so many bytes, which begin where an allocation of the system begins.
bool fits(const VocabularyData& data, std::size_t bytes) {
    std::vector<std::max_align_t> room(bytes / sizeof(std::max_align_t) + 1);
    std::pmr::monotonic_buffer_resource memory(room.data(), bytes, std::pmr::null_memory_resource());
    try {
        const Tokenizer tokenizer(data, &memory);
        EXPECT_EQ(tokenizer.vocabulary_size(), data.tokens.size());
        for (std::size_t id = 0; id < data.tokens.size(); ++id) {
            EXPECT_EQ(tokenizer.token_text(static_cast<std::int32_t>(id)), data.tokens[id]);
        }
        return true;
    } catch (const std::bad_alloc&) {
        return false;
    }
}

/// The fewest bytes into which a tokenizer fits.
std::size_t least(const VocabularyData& data) {
    std::size_t too_few = 0;
    std::size_t enough = Tokenizer::footprint(data);
    while (enough - too_few > 1) {
        const std::size_t middle = too_few + (enough - too_few) / 2;
        (fits(data, middle) ? enough : too_few) = middle;
    }
    return enough;
}

/// Expects the footprint to be enough, and, but for the little that alignment may take, needed.
void expect_footprint(const VocabularyData& data, const std::string& what) {
    const std::size_t footprint = Tokenizer::footprint(data);
    ASSERT_TRUE(fits(data, footprint)) << what;
    const std::size_t needed = least(data);
    EXPECT_LE(footprint - needed, 9 * alignof(std::max_align_t))
        << what << ": " << footprint << " for " << needed;
    EXPECT_TRUE(fits(data, needed)) << what;
    EXPECT_FALSE(fits(data, needed - 1)) << what;
    EXPECT_FALSE(fits(data, 0)) << what;
    Counting counting;
    {
        const Tokenizer tokenizer(data, &counting);
        EXPECT_EQ(counting.bytes, counting.most) << what << ": nothing is taken for a while only";
        EXPECT_LE(counting.bytes, needed) << what;
        EXPECT_GE(counting.bytes + 9 * alignof(std::max_align_t), needed) << what;
        // What it says of itself leaves out the special tokens alone.
        EXPECT_LE(tokenizer.bytes_held(), counting.bytes) << what;
    }
    EXPECT_EQ(counting.bytes, 0u) << what;
}

TEST(TokenizerMemory, FootprintsAreEnoughAndNeededOfSmallVocabularies) {
    TinyVocabulary tiny;
    expect_footprint(tiny.data(), "tiny");
    VocabularyData one;
    one.tokens = {"a"};
    expect_footprint(one, "one token, no types, no merges");
    // A text of 16 to 29 bytes, for which strings take more than they are asked for.
    for (std::size_t length = 14; length < 34; ++length) {
        const std::string text(length, 'x');
        one.tokens = {text};
        expect_footprint(one, "one token of " + std::to_string(length));
    }
}

TEST(TokenizerMemory, FootprintsAreEnoughAndNeededOfOddVocabularies) {
    TinyVocabulary special;
    for (int i = 0; i < 3000; ++i) special.add_token("<|" + std::to_string(i * 7919) + "|>", i % 3 + 2);
    expect_footprint(special.data(), "many special tokens");

    TinyVocabulary all_special;
    for (std::int64_t& type : all_special.data().token_types) type = 4;
    all_special.data().merges.clear();
    all_special.data().token_types.front() = 1;
    expect_footprint(all_special.data(), "nothing but special tokens, no merges");

    TinyVocabulary lengthy;
    for (std::size_t i = 1; i < 40; ++i)
        lengthy.add_token(std::string(500 * i, static_cast<char>('a' + i % 26)), 1);
    lengthy.add_token(std::string(100'000, '#'), 4);
    lengthy.add_token("", 1);
    lengthy.add_token("", 3);
    lengthy.add_token("<0x0A>", 6);
    lengthy.add_token("\xE2\x84\xA2 leaves the alphabet", 1);
    expect_footprint(lengthy.data(), "long and empty tokens");

    TinyVocabulary repeated;
    const std::vector<std::string_view> merges = repeated.data().merges;
    for (int i = 0; i < 20; ++i) {
        repeated.data().merges.insert(repeated.data().merges.end(), merges.begin(), merges.end());
    }
    expect_footprint(repeated.data(), "each merge 21 times");
}

TEST(TokenizerMemory, FootprintsAreEnoughForTablesOfAnySize) {
    // Tables double: counts around the powers of two at which they do.
    TinyVocabulary tiny;
    for (std::size_t i = tiny.data().tokens.size(); i < 1500; ++i) {
        tiny.add_token("t" + std::to_string(i), i % 5 == 0 ? 3 : 1);
        if (i % 29 == 0 || (i > 670 && i < 695) || (i > 1355 && i < 1375)) {
            EXPECT_TRUE(fits(tiny.data(), Tokenizer::footprint(tiny.data()))) << i;
        }
    }
    TinyVocabulary merging;
    for (std::size_t length = 4; length < 64; ++length) {
        merging.add_merge(std::string(length, 'a'), "a");
        EXPECT_TRUE(fits(merging.data(), Tokenizer::footprint(merging.data()))) << length;
    }
}

TEST(TokenizerMemory, ARefusedVocabularyGivesAllBack) {
    TinyVocabulary twice;
    twice.add_token("A", 1);
    TinyVocabulary unjoined;
    unjoined.data().merges.push_back("h w");
    for (TinyVocabulary* damaged : {&twice, &unjoined}) {
        Counting counting;
        EXPECT_THROW(Tokenizer(damaged->data(), &counting), Error);
        EXPECT_GT(counting.most, 0u);
        EXPECT_EQ(counting.bytes, 0u);
    }
}

std::filesystem::path model_path() {
    if (const char* path = std::getenv("ZSE_MODEL")) return path;
    const char* home = std::getenv("HOME");
    return std::filesystem::path(home == nullptr ? "" : home) /
           ".cache/zse/models/SmolLM2-135M-Instruct.Q4_1.gguf";
}

TEST(TokenizerMemory, TheDemoModelUsesNearlyAllOfItsFootprint) {
    const auto file = io::Gguf::open(model_path());
    const VocabularyData data = tokenizer::data_from_gguf(file);
    ASSERT_EQ(data.tokens.size(), 49152u);
    const std::size_t footprint = Tokenizer::footprint(data);
    ASSERT_TRUE(fits(data, footprint));
    Counting counting;
    const Tokenizer tokenizer(data, &counting);
    EXPECT_LE(counting.bytes, footprint);
    EXPECT_GE(static_cast<double>(counting.bytes), 0.95 * static_cast<double>(footprint));
    // Without special tokens, of which it has few.
    EXPECT_GE(static_cast<double>(tokenizer.bytes_held()), 0.95 * static_cast<double>(footprint));
    EXPECT_FALSE(fits(data, footprint - 9 * alignof(std::max_align_t) - 1))
        << "what alignment may take, and a byte";
    EXPECT_FALSE(fits(data, footprint / 2));
}

}  // namespace
}  // namespace zse
