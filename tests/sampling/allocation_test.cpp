// SPDX-License-Identifier: Apache-2.0
// Choosing a token and matching stop strings take nothing from the heap: this program counts operator new.
// rows: 76
#include <zse/sampling/sampler.hpp>
#include <zse/sampling/stop.hpp>

#include <gtest/gtest.h>
#include <support/counted_new.hpp>

#include <cmath>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace {

using zse::sampling::Sampler;
using zse::sampling::StopMatcher;

TEST(Allocation, TheCounterCounts) {
    const std::size_t before = support::allocations;
    auto* const volatile number = new int(3);
    EXPECT_EQ(support::allocations, before + 1);
    delete number;
}

TEST(Allocation, ChoosingATokenTakesNothingFromTheHeap) {
    constexpr std::size_t vocabulary = 32'000;
    std::vector<float> logits(vocabulary);
    for (std::size_t i = 0; i < vocabulary; ++i) logits[i] = 4 * std::sin(static_cast<float>(i) * 0.37f);
    std::vector<std::int32_t> history(500);
    for (std::size_t i = 0; i < history.size(); ++i) history[i] = static_cast<std::int32_t>(i * 7);
    const std::vector<std::uint64_t> mask(vocabulary / 64, 0x0123456789abcdefu);
    std::vector<float> scratch(2 * vocabulary);
    const auto bytes = std::as_writable_bytes(std::span(scratch));
    const Sampler greedy({.repetition_penalty = 1.1f});
    const Sampler all({.temperature = 0.7f,
                       .top_k = 400,
                       .top_p = 0.9f,
                       .min_p = 0.01f,
                       .repetition_penalty = 1.1f,
                       .repetition_window = 64});

    std::int64_t sum = 0;
    const std::size_t before = support::allocations;
    for (std::uint64_t position = 0; position < 20; ++position) {
        const zse::sampling::Row row{
            .logits = logits, .history = history, .mask = {mask}, .position = position};
        sum += greedy.sample(row, bytes).value();
        sum += all.sample(row, bytes).value();
    }
    EXPECT_EQ(support::allocations, before);
    EXPECT_GT(sum, 0);
}

TEST(Allocation, MatchingStopStringsTakesNothingFromTheHeap) {
    const std::vector<std::string> strings{"</answer of the model>", "User:", "\n\n"};
    StopMatcher matcher(strings);
    constexpr std::string_view piece = " a piece with the start of </answer of";
    std::size_t passed = 0;
    const std::size_t before = support::allocations;
    for (int i = 0; i < 1000; ++i) passed += matcher.push(piece).size();
    passed += matcher.finish().size();
    EXPECT_EQ(support::allocations, before);
    EXPECT_EQ(passed, 1000 * piece.size());
}

}  // namespace
