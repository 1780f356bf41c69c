// SPDX-License-Identifier: Apache-2.0
// Norms, activations and the choice of tokens, on a GPU and on the host in its place.
// rows: 64
// labels: cuda_host cuda_device
#include <zse/kernels/cuda/rms_norm.hpp>
#include <zse/sampling/cuda/launches.hpp>
#include <zse/sampling/sampler.hpp>

#include <gtest/gtest.h>
#include <cuda/place.hpp>
#include <support/random.hpp>

#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>
#include <span>

namespace {

using namespace zse_test;

/// For sums of a few thousand products in float32, in any order.
constexpr float sum_tolerance = 2e-6f;

template <class Where>
void check_rms_norm(Place<Where>& place) {
    constexpr std::uint32_t count = 3;
    constexpr std::uint32_t columns = 4'096;
    constexpr float epsilon = 1e-5f;
    const std::vector<std::uint32_t> rows = {4, 0, 2};
    const std::vector<float> x = support::gaussian(std::size_t{5} * columns, 1, 3);
    const std::vector<float> weight = support::gaussian(columns, 2);
    float* const out = place.template zeros<float>(std::size_t{count} * columns);
    auto* const greatest = place.template zeros<std::uint32_t>(count);
    auto* const clear = place.put(std::vector<std::uint32_t>(2 * count, 7));
    place.run(zse::kernels::cuda::RmsNormKernel{{.x = place.put(x),
                                                 .weight = place.put(weight),
                                                 .rows = place.put(rows),
                                                 .out = out,
                                                 .greatest = greatest,
                                                 .clear = clear,
                                                 .clear_stride = count,
                                                 .count = count,
                                                 .columns = columns,
                                                 .epsilon = epsilon}});

    const std::vector<float> found = place.get(out, std::size_t{count} * columns);
    const std::vector<std::uint32_t> found_greatest = place.get(greatest, count);
    for (std::size_t row = 0; row < count; ++row) {
        const float* const from = x.data() + std::size_t{rows[row]} * columns;
        const double squares = std::inner_product(from, from + columns, from, 0.0);
        const double factor = 1 / std::sqrt(squares / columns + double{epsilon});
        float most = 0;
        for (std::size_t i = 0; i < columns; ++i) {
            const auto wanted = static_cast<float>(double{from[i]} * factor * double{weight[i]});
            const float value = found[row * columns + i];
            ASSERT_NEAR(value, wanted, std::fabs(wanted) * sum_tolerance) << row << ", " << i;
            most = std::fmax(most, std::fabs(value));
        }
        EXPECT_EQ(std::bit_cast<float>(found_greatest[row]), most);
    }
    EXPECT_EQ(place.get(clear, 2 * count), std::vector<std::uint32_t>(2 * count, 0));
}

template <class Where>
void check_swiglu(Place<Where>& place) {
    constexpr std::uint32_t tokens = 3;
    constexpr std::uint32_t columns = 1'000;
    const std::vector<float> gate = support::gaussian(tokens * columns, 1, 3);
    const std::vector<float> up = support::gaussian(tokens * columns, 2);
    float* const out = place.put(gate);
    auto* const greatest = place.template zeros<std::uint32_t>(tokens);
    place.run(zse::kernels::cuda::SwigluKernel{
        {.gate = out, .up = place.put(up), .tokens = tokens, .columns = columns, .greatest = greatest}});

    const std::vector<float> found = place.get(out, tokens * columns);
    const std::vector<std::uint32_t> found_greatest = place.get(greatest, tokens);
    for (std::size_t token = 0; token < tokens; ++token) {
        float most = 0;
        for (std::size_t i = token * columns; i < (token + 1) * columns; ++i) {
            const double wanted = double{gate[i]} / (1 + std::exp(-double{gate[i]})) * double{up[i]};
            ASSERT_NEAR(found[i], wanted, std::fabs(wanted) * double{sum_tolerance}) << i;
            most = std::fmax(most, std::fabs(found[i]));
        }
        EXPECT_EQ(std::bit_cast<float>(found_greatest[token]), most);
    }
}

constexpr std::uint32_t sampled_vocabulary = 9'001;  // of three slices, the last one cut short

template <class Where>
void check_sampling(Place<Where>& place) {
    using namespace zse::sampling;
    constexpr std::uint32_t rows = 32;
    const std::vector<float> logits = support::gaussian(std::size_t{rows} * sampled_vocabulary, 1, 3);
    // Greedy rows, and each limit alone and with the others.
    const SamplingParams kinds[] = {
        {.temperature = 0},
        {.temperature = 0.8f, .seed = 5},
        {.temperature = 1, .top_k = 40, .seed = 6},
        {.temperature = 1, .top_p = 0.9f, .seed = 7},
        {.temperature = 0.7f, .top_k = 40, .top_p = 0.95f, .min_p = 0.02f, .seed = 8}};
    std::vector<SamplingParams> params;
    std::vector<cuda::DeviceSampling> device_params;
    for (std::uint32_t row = 0; row < rows; ++row) {
        params.push_back(kinds[row % std::size(kinds)]);
        device_params.push_back(cuda::device_sampling(params.back(), row));
    }
    cuda::SampleCall call;
    call.logits = place.put(logits);
    call.stride = sampled_vocabulary;
    call.rows = rows;
    call.vocabulary = sampled_vocabulary;
    call.params = place.put(device_params);
    call.tokens = place.template zeros<std::int32_t>(rows);
    call.workspace = place.template zeros<std::byte>(cuda::workspace_bytes(rows, sampled_vocabulary));
    cuda::sampling_launches<typename Where::Launcher>.sample(place.stream(), call);

    const std::vector<std::int32_t> found = place.get(call.tokens, rows);
    std::vector<float> scratch(scratch_bytes(sampled_vocabulary) / sizeof(float));
    std::uint32_t other = 0;
    for (std::size_t row = 0; row < rows; ++row) {
        Row of;
        of.logits = std::span(logits).subspan(row * sampled_vocabulary, sampled_vocabulary);
        of.position = row;
        const auto wanted = Sampler(params[row]).sample(of, std::as_writable_bytes(std::span(scratch)));
        ASSERT_TRUE(wanted.ok());
        if (params[row].temperature == 0) {
            EXPECT_EQ(found[row], wanted.value()) << row;
        }
        other += found[row] != wanted.value() ? 1 : 0;
    }
    // A draw that falls within an error of exp2 (2^-22 or so) of the border between two tokens may take either: with
    // 9,001 of them that is 1 in 200 at most.
    EXPECT_LE(other, 1u);
}

template <class Where>
void check_top_list(Place<Where>& place) {
    using namespace zse::sampling;
    constexpr std::uint32_t count = 20;
    const std::vector<float> logits = support::gaussian(sampled_vocabulary, 2, 3);
    cuda::TopCall call;
    call.logits = place.put(logits);
    call.stride = sampled_vocabulary;
    call.rows = 1;
    call.vocabulary = sampled_vocabulary;
    call.count = count;
    call.ids = place.template zeros<std::int32_t>(count);
    call.logprobs = place.template zeros<float>(count);
    cuda::sampling_launches<typename Where::Launcher>.top(place.stream(), call);

    const std::vector<std::int32_t> ids = place.get(call.ids, count);
    const std::vector<float> logprobs = place.get(call.logprobs, count);
    std::vector<float> sorted = logits;
    std::ranges::sort(sorted, std::ranges::greater());
    double sum = 0;
    for (const float logit : sorted) sum += std::exp(double{logit});
    for (std::size_t i = 0; i < count; ++i) {
        EXPECT_EQ(logits[static_cast<std::size_t>(ids[i])], sorted[i]) << i;
        EXPECT_NEAR(logprobs[i], double{sorted[i]} - std::log(sum), 1e-5)
            << i;  // float32 around 10, and its sum
    }
}

template <class Where>
constexpr Check<Where> checks[] = {{"rms_norm", check_rms_norm},
                                   {"swiglu", check_swiglu},
                                   {"sampling", check_sampling},
                                   {"top list", check_top_list}};

TEST(RowsOnHost, AgreeWithTheirReferences) {
    agree<OnHost>(*OnHost::open(), checks<OnHost>);
}
TEST(RowsOnDevice, AgreeWithTheirReferences) {
    const auto runtime = OnDevice::open();
    if (runtime == nullptr) GTEST_SKIP();
    agree<OnDevice>(*runtime, checks<OnDevice>);
}
TEST(RowsOnDevice, LeaveMemoryAsItWas) {
    const auto runtime = OnDevice::open();
    if (runtime == nullptr) GTEST_SKIP();
    leave_memory<OnDevice>(*runtime, checks<OnDevice>);
}

}  // namespace
