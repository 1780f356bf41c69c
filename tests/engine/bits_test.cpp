// SPDX-License-Identifier: Apache-2.0
// A row's bits depend on neither batch mates, chunking, paging nor threads: the same logits, bit for bit,
// however asked.
// rows: 48 61
// labels: slow
// timeout: 600
#include <gtest/gtest.h>
#include <support/references.hpp>
#include <support/smollm2.hpp>

#include <cstring>

namespace {

/// A digest of each row of logits: equal bits, equal digest (and 64 bits make chance out of the question).
std::uint64_t digest(std::span<const float> row) {
    std::uint64_t hash = 0xcbf29ce484222325ULL;
    for (const float value : row) {
        std::uint32_t bits = 0;
        std::memcpy(&bits, &value, sizeof bits);
        hash = (hash ^ bits) * 0x100000001b3ULL;
    }
    return hash;
}

using Digests = std::vector<std::uint64_t>;

std::vector<std::vector<std::int32_t>> prompts() {
    std::vector<std::vector<std::int32_t>> list;
    const auto json = support::read_reference_json("smollm2.json");
    for (const auto& prompt : json["prompts"]) list.push_back(prompt["ids"]);
    return list;
}

/// Digests of all rows of each prompt; all prompts and `mates` other sequences are submitted at once.
std::vector<Digests> run(zse::engine::Options options, std::size_t mates) {
    options.limits.output_rows =
        std::max(options.limits.output_rows, std::min(64u, options.limits.step_tokens));
    const auto engine = support::open_smollm2<zse::Engine<>>(options);
    const auto list = prompts();
    std::vector<Digests> digests(list.size());
    const auto submit = [&](std::size_t i) {
        zse::AnyEngine::Request request;
        request.tokens = list[i];
        request.max_tokens = 0;
        request.observe = [&digests, i](std::uint32_t, std::span<const float> row) {
            digests[i].push_back(digest(row));
        };
        engine->submit(std::move(request));
    };
    if (mates == 0) {
        for (std::size_t i = 0; i < list.size(); ++i) {
            submit(i);
            support::run_to_end(*engine);
        }
        return digests;
    }
    for (std::size_t m = 0; m < mates; ++m) {  // mates prompt and generate while the five are computed
        zse::AnyEngine::Request request;
        for (std::size_t t = 0; t < 5 + 11 * m; ++t)
            request.tokens.push_back(static_cast<std::int32_t>(100 + 37 * m + t));
        request.max_tokens = 40;
        request.ignore_end = true;
        engine->submit(std::move(request));
    }
    for (std::size_t i = 0; i < list.size(); ++i) submit(i);
    support::run_to_end(*engine);
    return digests;
}

zse::engine::Options options(std::uint32_t batch, std::uint32_t step_tokens, std::uint32_t threads) {
    zse::engine::Options options;
    options.limits = {.context = 320, .batch = batch, .step_tokens = step_tokens, .threads = threads};
    return options;
}

const std::vector<Digests>& alone() {
    static const std::vector<Digests> digests = run(options(1, 512, 1), 0);
    return digests;
}

TEST(Bits, TheReferenceHasEveryRow) {
    const auto list = prompts();
    ASSERT_EQ(list.size(), 5u);
    for (std::size_t i = 0; i < list.size(); ++i) EXPECT_EQ(alone()[i].size(), list[i].size());
    EXPECT_NE(alone()[0][0], alone()[0][1]);
}
TEST(Bits, TwoThreads) {
    EXPECT_EQ(run(options(1, 512, 2), 0), alone());
}
TEST(Bits, ChunksOfOne) {
    EXPECT_EQ(run(options(1, 1, 2), 0), alone());
}
TEST(Bits, ChunksOfSeven) {
    EXPECT_EQ(run(options(1, 7, 2), 0), alone());
}
TEST(Bits, ChunksOfSixtyFour) {
    EXPECT_EQ(run(options(1, 64, 2), 0), alone());
}
TEST(Bits, ABatchWithEightOthers) {
    EXPECT_EQ(run(options(9, 96, 2), 8), alone());
}
TEST(Bits, ShuffledPages) {
    auto shuffled = options(9, 64, 2);
    shuffled.shuffle_pages = 12345;
    EXPECT_EQ(run(shuffled, 8), alone());
}
TEST(Bits, EveryPageSize) {
    for (const std::uint32_t page : {1u, 8u, 32u}) {
        auto paged = options(1, 512, 2);
        paged.limits.page_tokens = page;
        EXPECT_EQ(run(paged, 0), alone()) << page;
    }
}

TEST(Bits, EveryNarrowerInstructionSetAsWell) {
    for (const zse::kernels::Isa isa : {zse::kernels::Isa::avx2, zse::kernels::Isa::avx512}) {
        if (!zse::kernels::usable(isa) || isa == zse::kernels::widest()) continue;
        auto whole = options(1, 512, 1);
        auto chunks = options(9, 64, 2);
        whole.isa = chunks.isa = isa;
        chunks.shuffle_pages = 54321;
        chunks.limits.page_tokens = 8;
        EXPECT_EQ(run(whole, 0), run(chunks, 8)) << name(isa);
    }
}

// Kernels may differ from vector width to vector width, but a test that cannot tell two engines apart proves
// nothing.
TEST(Bits, AnotherCacheGivesOtherBits) {
    const auto engine = support::open_smollm2<zse::Engine<zse::kv::int8<>>>([] {
        auto o = options(1, 512, 2);
        o.limits.output_rows = 64;
        return o;
    }());
    const auto rows = support::all_logits(*engine, prompts()[0]);
    EXPECT_NE(digest(rows.back()), alone()[0].back());
}

}  // namespace
