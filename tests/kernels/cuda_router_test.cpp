// SPDX-License-Identifier: Apache-2.0
// Routing to experts on a GPU: which experts, with what weight, in what order, and rows of halves.
// rows: 64
// labels: cuda_host
#include <zse/exec/cuda/emulated.hpp>
#include <zse/kernels/cuda/halves.hpp>
#include <zse/kernels/cuda/router.hpp>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <support/aligned_bytes.hpp>
#include <support/random.hpp>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <numeric>
#include <vector>

namespace {

using support::AlignedBytes;
using support::gaussian;
using testing::ElementsAre;
using zse::exec::gpu::EmulatedBlock;
using zse::exec::gpu::Order;
using zse::kernels::cuda::CombineKernel;
using zse::kernels::cuda::ExpertOrderKernel;
using zse::kernels::cuda::HalfRange;
using zse::kernels::cuda::HalfRows;
using zse::kernels::cuda::HalvesKernel;
using zse::kernels::cuda::RouterKernel;

constexpr Order orders[] = {Order::ascending, Order::descending, Order::shuffled};

struct Routes {
    std::vector<std::uint32_t> ids;
    std::vector<float> weights;
    friend bool operator==(const Routes&, const Routes&) = default;
};

Routes route(const std::vector<float>& logits, std::uint32_t experts, std::uint32_t chosen, bool renormalise,
             Order order = Order::ascending) {
    const auto tokens = static_cast<std::uint32_t>(logits.size() / experts);
    Routes routes{std::vector<std::uint32_t>(tokens * chosen, ~0u), std::vector<float>(tokens * chosen, -1)};
    EmulatedBlock::run_grid(RouterKernel{logits.data(), tokens, experts, chosen, renormalise,
                                         routes.ids.data(), routes.weights.data()},
                            order);
    return routes;
}

TEST(Router, ChoosesTheGreatestWithTheirSoftmax) {
    for (const std::uint32_t experts : {3u, 32u, 130u, 512u}) {
        for (const bool renormalise : {false, true}) {
            const std::uint32_t chosen = std::min(experts, 8u);
            const std::uint32_t tokens = 9;  // more than fill two blocks
            const std::vector<float> logits = gaussian(std::size_t{tokens} * experts, experts, 3);
            const Routes routes = route(logits, experts, chosen, renormalise);
            for (std::size_t token = 0; token < tokens; ++token) {
                const float* of = logits.data() + token * experts;
                std::vector<std::uint32_t> sorted(experts);
                std::iota(sorted.begin(), sorted.end(), 0u);
                std::ranges::stable_sort(sorted, [&](auto a, auto b) { return of[a] > of[b]; });
                double total = 0;
                for (std::size_t i = 0; i < (renormalise ? chosen : experts); ++i)
                    total += std::exp(double{of[sorted[i]]} - of[sorted[0]]);
                for (std::size_t slot = 0; slot < chosen; ++slot) {
                    EXPECT_EQ(routes.ids[token * chosen + slot], sorted[slot]);
                    const double weight = std::exp(double{of[sorted[slot]]} - of[sorted[0]]) / total;
                    // Exponents up to 30 are rounded to float before the power is taken: 30 * 2^-24, and sums of
                    // 17 terms a lane.
                    EXPECT_NEAR(routes.weights[token * chosen + slot] / weight, 1, 1e-5);
                }
            }
            for (const Order order : orders)
                EXPECT_EQ(route(logits, experts, chosen, renormalise, order), routes);
        }
    }
}
TEST(Router, TiesGoToTheLowerExpert) {
    EXPECT_THAT(route({1, 2, 2, -0.0f, 2}, 5, 3, true).ids, ElementsAre(1, 2, 4));
    EXPECT_THAT(route({-0.0f, 0.0f, -1, 0.0f}, 4, 3, true).ids, ElementsAre(0, 1, 3));
    EXPECT_THAT(route({-5, -3, -4}, 3, 3, false).ids, ElementsAre(1, 2, 0));
}
TEST(Router, LogitsFarApartLeaveNothingOver) {
    const Routes routes = route({-1e30f, 1e30f, 0, -INFINITY}, 4, 2, true);
    EXPECT_THAT(routes.ids, ElementsAre(1, 2));
    EXPECT_THAT(routes.weights, ElementsAre(1, 0));
}

struct Sorted {
    std::vector<std::uint32_t> order, offsets, cleared;
    friend bool operator==(const Sorted&, const Sorted&) = default;
};

Sorted sorted(const std::vector<std::uint32_t>& ids, std::uint32_t experts, Order order = Order::ascending) {
    Sorted result{std::vector<std::uint32_t>(ids.size(), ~0u), std::vector<std::uint32_t>(experts + 1, ~0u),
                  std::vector<std::uint32_t>(ids.size(), ~0u)};
    EmulatedBlock::run_grid(
        ExpertOrderKernel{ids.data(), static_cast<std::uint32_t>(ids.size()), experts, result.order.data(),
                          result.offsets.data(), result.cleared.data()},
        order);
    return result;
}

TEST(ExpertOrder, IsAStableSort) {
    for (const std::size_t pairs : {1u, 8u, 255u, 2048u, 5001u}) {
        for (const std::uint32_t experts : {1u, 7u, 12u}) {
            std::vector<std::uint32_t> ids(pairs);
            // Experts 3 and 6 get none.
            for (std::size_t i = 0; i < pairs; ++i) {
                ids[i] = static_cast<std::uint32_t>(i * i * 7 + i / 3) % experts;
                if (experts > 1 && ids[i] % 4 == 3) ids[i] = 0;
            }
            std::vector<std::uint32_t> expected(pairs);
            std::iota(expected.begin(), expected.end(), 0u);
            std::ranges::stable_sort(expected, {}, [&](auto i) { return ids[i]; });
            const Sorted result = sorted(ids, experts);
            EXPECT_EQ(result.order, expected);
            EXPECT_EQ(result.cleared, std::vector<std::uint32_t>(pairs, 0));
            ASSERT_EQ(result.offsets.size(), experts + 1);
            for (std::uint32_t e = 0; e <= experts; ++e) {
                EXPECT_EQ(result.offsets[e], std::ranges::count_if(ids, [&](auto id) { return id < e; }));
            }
            EXPECT_EQ(sorted(ids, experts, Order::shuffled), result);
        }
    }
}

TEST(Combine, AddsSlotsInOrder) {
    const std::uint32_t tokens = 3;
    const std::uint32_t chosen = 5;
    const std::uint32_t columns = 300;  // one block and a part of one
    const std::vector<float> results = gaussian(std::size_t{tokens} * chosen * columns, 1);
    const std::vector<float> weights = gaussian(std::size_t{tokens} * chosen, 2);
    for (const bool accumulate : {false, true}) {
        std::vector<float> y(tokens * (columns + 4), 0.5f);
        EmulatedBlock::run_grid(CombineKernel{results.data(), weights.data(), tokens, chosen, columns,
                                              y.data(), columns + 4, accumulate});
        for (std::size_t t = 0; t < tokens; ++t) {
            for (std::size_t c = 0; c < columns; ++c) {
                double sum = accumulate ? 0.5 : 0;
                for (std::size_t s = 0; s < chosen; ++s)
                    sum += double{weights[t * chosen + s]} * results[(t * chosen + s) * columns + c];
                // Six roundings of sums below 16.
                ASSERT_NEAR(y[t * (columns + 4) + c], sum, 6 * 0x1p-21);
            }
            EXPECT_EQ(y[t * (columns + 4) + columns], 0.5f) << "past the end of a row";
        }
    }
}

TEST(HalfRows, AreTheRowsTimesAPowerOfTwo) {
    for (const std::uint32_t columns : {64u, 96u, 100u, 33u, 576u}) {
        for (const float size : {1e-30f, 1e-6f, 1.0f, 3e5f, 1e38f}) {
            const std::uint32_t rows = 3;
            const std::vector<float> x = gaussian(std::size_t{rows} * columns, columns, size / 8);
            std::vector<std::uint32_t> greatest(rows);
            for (std::size_t r = 0; r < rows; ++r) {
                float most = 0;
                for (std::size_t c = 0; c < columns; ++c)
                    most = std::max(most, std::fabs(x[r * columns + c]));
                greatest[r] = std::bit_cast<std::uint32_t>(most);
            }
            const AlignedBytes bytes(HalfRows::bytes(columns, rows));
            const AlignedBytes aligned_x(x.size() * sizeof(float));
            std::memcpy(aligned_x.data(), x.data(), x.size() * sizeof(float));
            const HalfRows out = HalfRows::in(bytes.data(), columns, rows);
            EmulatedBlock::run_grid(
                HalvesKernel{reinterpret_cast<const float*>(aligned_x.data()), greatest.data(), rows, out});
            for (std::size_t r = 0; r < rows; ++r) {
                const double most = std::bit_cast<float>(greatest[r]);
                for (std::uint32_t c = 0; c < HalfRows::stride(columns); ++c) {
                    zse::f16 half;
                    std::memcpy(&half, out.halves + (r * HalfRows::stride(columns) + c) * 2, sizeof half);
                    const double value = double{static_cast<float>(half)} * out.factors[r];
                    const double expected = c < columns ? double{x[r * columns + c]} : 0.0;
                    // Half of the last of 11 bits; far below the greatest, half of the last bit of subnormals.
                    EXPECT_NEAR(value, expected, std::max(std::fabs(expected) * 0x1p-11, most * 0x1p-39));
                }
            }
        }
    }
}
TEST(HalfRows, OfZerosAndInfinitiesStayThat) {
    EXPECT_EQ(HalfRange::of(0).up * HalfRange::of(0).down, 1.0f);
    for (const float most : {0x1p-149f, 1e-38f, 1.0f, 16384.0f, 3e38f}) {
        const HalfRange range = HalfRange::of(std::bit_cast<std::uint32_t>(most));
        EXPECT_EQ(range.up * range.down, 1.0f);
        EXPECT_LT(most * range.up, 32768.0f);
        if (most > 1e-33f) {
            EXPECT_GE(most * range.up, 16384.0f);
        }
    }
    const HalfRange infinite = HalfRange::of(std::bit_cast<std::uint32_t>(INFINITY));
    EXPECT_EQ(INFINITY * infinite.up * infinite.down, INFINITY);
}

}  // namespace
