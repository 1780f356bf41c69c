// SPDX-License-Identifier: Apache-2.0
// The GPU's lists of likely tokens, run on the host, against sorting and log probabilities in double.
// rows: 64
// labels: cuda_host
#include <zse/exec/cuda/emulated.hpp>
#include <zse/sampling/cuda/launches.hpp>
#include <zse/sampling/logprobs.hpp>

#include <gtest/gtest.h>
#include <support/random.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <span>
#include <vector>

namespace {

using namespace zse::sampling;
using namespace zse::sampling::cuda;
using zse::exec::gpu::EmulatedBlock;
using zse::exec::gpu::Order;

constexpr float infinity = std::numeric_limits<float>::infinity();

struct Listed {
    std::vector<std::int32_t> ids;
    std::vector<float> logprobs;
    std::vector<float> of_tokens;
    bool operator==(const Listed&) const = default;
};

template <unsigned Threads>
Listed list(const std::vector<float>& logits, std::uint32_t vocabulary, std::uint32_t count,
            const std::vector<std::int32_t>& tokens = {}, Order order = Order::ascending) {
    const auto rows = static_cast<std::uint32_t>(logits.size() / vocabulary);
    Listed l{std::vector<std::int32_t>(rows * count, -9), std::vector<float>(rows * count),
             std::vector<float>(rows, 7)};
    const TopCall call{logits.data(),
                       vocabulary,
                       rows,
                       vocabulary,
                       count,
                       l.ids.data(),
                       l.logprobs.data(),
                       tokens.empty() ? nullptr : tokens.data(),
                       l.of_tokens.data()};
    EmulatedBlock::run_grid(TopListKernel<Threads>{call}, order);
    return l;
}

/// A difference of logits is rounded to float before exp, and so is the result: for logits up to 50 that is 3e-6 of a
/// weight, and half a unit of a result below 128.
constexpr double tolerance = 3e-6 + 128 * 0x1p-24;

TEST(CudaTopList, ListsTheMostLikely) {
    for (const std::uint32_t vocabulary : {100u, 1001u, 4500u}) {
        for (const std::uint32_t count : {1u, 20u, 64u}) {
            std::vector<float> logits = support::gaussian(std::size_t{vocabulary} * 6, vocabulary + count, 4);
            for (std::size_t i = 0; i < vocabulary; ++i)
                logits[i] = std::round(logits[i]);  // a row with equals
            std::vector<std::int32_t> tokens = {0, 99, 5, -1, static_cast<std::int32_t>(vocabulary), 50};
            const Listed l = list<64>(logits, vocabulary, count, tokens);
            for (std::size_t row = 0; row < 6; ++row) {
                const auto values = std::span(logits).subspan(row * vocabulary, vocabulary);
                std::vector<std::int32_t> ids(vocabulary);
                std::iota(ids.begin(), ids.end(), 0);
                std::ranges::stable_sort(ids, [&](std::int32_t a, std::int32_t b) {
                    return values[static_cast<std::size_t>(a)] > values[static_cast<std::size_t>(b)];
                });
                for (std::size_t i = 0; i < count; ++i) {
                    ASSERT_EQ(l.ids[row * count + i], ids[i])
                        << vocabulary << ' ' << count << ' ' << row << ' ' << i;
                    EXPECT_NEAR(double{l.logprobs[row * count + i]}, log_probability(values, ids[i]),
                                tolerance);
                }
                if (tokens[row] < 0 || tokens[row] >= static_cast<std::int32_t>(vocabulary)) {
                    EXPECT_EQ(l.of_tokens[row], 7);
                } else {
                    EXPECT_NEAR(double{l.of_tokens[row]}, log_probability(values, tokens[row]), tolerance);
                }
            }
            EXPECT_EQ(list<64>(logits, vocabulary, count, tokens, Order::descending), l);
            EXPECT_EQ(list<64>(logits, vocabulary, count, tokens, Order::shuffled), l);
        }
    }
}

TEST(CudaTopList, TheGreatestLists) {
    const std::vector<float> logits = support::gaussian(2000, 3);
    std::vector<float> sorted = logits;
    std::ranges::sort(sorted, std::greater{});
    const Listed l = list<512>(logits, 2000, 512);
    for (std::size_t i = 0; i < 512; ++i) EXPECT_EQ(logits[static_cast<std::size_t>(l.ids[i])], sorted[i]);
}

TEST(CudaTopList, TokensThatCannotBe) {
    std::vector<float> logits(3 * 40, -infinity);
    logits[7] = -3;
    logits[30] = 2;
    logits[40 + 4] = std::nanf("");
    const Listed l = list<64>(logits, 40, 4, {7, 1, 2});
    EXPECT_EQ(l.ids, (std::vector<std::int32_t>{30, 7, -2, -2, -1, -1, -1, -1, -2, -2, -2, -2}));
    EXPECT_EQ(l.logprobs[2], -infinity);
    EXPECT_TRUE(std::isnan(l.logprobs[4]));
    EXPECT_EQ(l.logprobs[8], -infinity);
    EXPECT_NEAR(double{l.of_tokens[0]}, -5 - std::log1p(std::exp(-5.0)), tolerance);
    EXPECT_TRUE(std::isnan(l.of_tokens[1]));
    EXPECT_TRUE(std::isnan(l.of_tokens[2]));
}

TEST(CudaTopList, OnlyOfGivenTokens) {
    const std::vector<float> logits = support::gaussian(3 * 333, 5);
    zse::exec::gpu::Stream stream;
    const std::vector<std::int32_t> tokens = {3, 300, 77};
    std::vector<float> found(3);
    TopCall call;
    call.logits = logits.data();
    call.stride = 333;
    call.rows = 3;
    call.vocabulary = 333;
    call.tokens = tokens.data();
    call.token_logprobs = found.data();
    sampling_launches<zse::exec::gpu::Emulated>.top(stream, call);
    ASSERT_FALSE(stream.failed()) << stream.why();
    for (std::size_t row = 0; row < 3; ++row) {
        EXPECT_NEAR(double{found[row]},
                    log_probability(std::span(logits).subspan(row * 333, 333), tokens[row]), tolerance);
    }
}

}  // namespace
