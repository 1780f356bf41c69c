// SPDX-License-Identifier: Apache-2.0
// The GPU's sampling, run on the host, gives the tokens of Sampler: for all parameters, in any order of threads.
// rows: 64 76
// labels: cuda_host
#include <zse/exec/cuda/emulated.hpp>
#include <zse/sampling/cuda/launches.hpp>
#include <zse/sampling/sampler.hpp>

#include <gtest/gtest.h>
#include <support/random.hpp>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

namespace {

using namespace zse::sampling;
using namespace zse::sampling::cuda;
using zse::ErrorCode;
using zse::exec::gpu::EmulatedBlock;
using zse::exec::gpu::Order;

constexpr float infinity = std::numeric_limits<float>::infinity();

/// Rows of logits with what belongs to each.
struct Case {
    std::uint32_t vocabulary = 0;
    std::vector<float> logits{};  ///< `[rows, vocabulary]`
    std::vector<SamplingParams> params{};
    std::vector<std::vector<std::int32_t>> histories{};  ///< none, or one for each row
    std::vector<std::vector<std::uint64_t>> masks{};     ///< likewise
    std::uint64_t first_position = 0;

    [[nodiscard]] Row row(std::size_t i) const {
        Row r;
        r.logits = std::span(logits).subspan(i * vocabulary, vocabulary);
        if (!histories.empty()) r.history = histories[i];
        if (!masks.empty()) r.mask = {masks[i]};
        r.position = first_position + i;
        return r;
    }
};

/// The tokens of a case by the kernels.
template <unsigned Threads = 128>
std::vector<std::int32_t> sample(const Case& c, Order order = Order::ascending) {
    const auto rows = static_cast<std::uint32_t>(c.params.size());
    std::vector<DeviceSampling> params;
    for (std::size_t i = 0; i < rows; ++i) {
        const Row row = c.row(i);
        params.push_back(device_sampling(c.params[i], row.position, row.mask, row.history));
    }
    // One odd token between rows where that keeps them from being aligned, so both kinds of loads come up.
    std::vector<zse::exec::gpu::Chunk> workspace(workspace_bytes(rows, c.vocabulary) / 16 + 1);
    std::vector<std::int32_t> tokens(rows, -99);
    const SampleCall call{c.logits.data(),
                          c.vocabulary,
                          rows,
                          c.vocabulary,
                          params.data(),
                          tokens.data(),
                          reinterpret_cast<std::byte*>(workspace.data())};
    EmulatedBlock::run_grid(AdjustKernel<Threads>{call}, order);
    EmulatedBlock::run_grid(ChooseKernel<Threads>{call}, order);
    return tokens;
}

zse::Result<std::int32_t> on_host(const Case& c, std::size_t row) {
    std::vector<float> scratch(scratch_bytes(c.vocabulary) / sizeof(float));
    return Sampler(c.params[row]).sample(c.row(row), std::as_writable_bytes(std::span(scratch)));
}

/// How near the choices of a row are to a change, as a share of all weight: by sorting, in double.
double margin(const Case& c, std::size_t row) {
    const SamplingParams& p = c.params[row];
    const Row r = c.row(row);
    std::vector<float> logits(r.logits.begin(), r.logits.end());
    if (p.repetition_penalty != 1) {
        auto history = r.history;
        if (p.repetition_window > 0 && history.size() > static_cast<std::size_t>(p.repetition_window)) {
            history = history.last(static_cast<std::size_t>(p.repetition_window));
        }
        detail::penalise(r.logits, history, p.repetition_penalty, logits.data());
    }
    struct Candidate {
        double weight;
        std::size_t id;
        float logit;
    };
    std::vector<Candidate> all;
    for (std::size_t id = 0; id < logits.size(); ++id) {
        if (logits[id] > -infinity && r.mask.allows(id)) all.push_back({0, id, logits[id]});
    }
    std::ranges::stable_sort(all, [](const auto& a, const auto& b) { return a.logit > b.logit; });
    if (p.top_k > 0 && all.size() > static_cast<std::size_t>(p.top_k))
        all.resize(static_cast<std::size_t>(p.top_k));
    double nearest = 1;
    double total = 0;
    const float most = all.front().logit;
    std::vector<Candidate> kept;
    for (Candidate& a : all) {
        a.weight = std::exp((double{a.logit} - double{most}) / double{p.temperature});
        if (p.min_p > 0) nearest = std::min(nearest, std::fabs(a.weight - double{p.min_p}));
        if (a.weight < double{p.min_p}) continue;
        kept.push_back(a);
        total += a.weight;
    }
    if (p.top_p < 1) {
        double sum = 0;
        std::size_t count = 0;
        while (count < kept.size()) {
            sum += kept[count++].weight;
            nearest = std::min(nearest, std::fabs(sum / total - double{p.top_p}));
            if (sum >= double{p.top_p} * total) break;
        }
        kept.resize(count);
        total = sum;
    }
    std::ranges::sort(kept, {}, &Candidate::id);
    const PhiloxCounter words = philox(p.seed, r.position);
    double sum = 0;
    for (const Candidate& k : kept) {
        sum += k.weight;
        nearest = std::min(nearest, std::fabs(sum / total - uniform(words[0], words[1])));
    }
    return nearest;
}

/// Sums in whole numbers and in double, and an exp in its last place, may choose differently where the edge of a cut or
/// of a draw is that near.
constexpr double edge = 1e-6;

void expect_same(const Case& c, const std::vector<std::int32_t>& tokens, const char* what) {
    unsigned excused = 0;
    for (std::size_t i = 0; i < tokens.size(); ++i) {
        const auto expected = on_host(c, i);
        if (!expected) {
            const NoToken why =
                expected.error().code() == ErrorCode::internal ? NoToken::invalid_logit : NoToken::none_left;
            EXPECT_EQ(tokens[i], static_cast<std::int32_t>(why)) << what << ", row " << i;
        } else if (tokens[i] != expected.value()) {
            EXPECT_LT(margin(c, i), edge)
                << what << ", row " << i << ": " << tokens[i] << ", not " << expected.value();
            ++excused;
        }
    }
    EXPECT_LE(excused, 1 + tokens.size() / 500) << what;
}

Case random_case(std::uint32_t vocabulary, std::size_t rows, unsigned seed, float deviation = 2.5f) {
    Case c;
    c.vocabulary = vocabulary;
    c.logits = support::gaussian(rows * vocabulary, seed, deviation);
    c.params.resize(rows);
    c.first_position = seed * 1000;
    return c;
}

// --- greedy -----------------------------------------------------------------------------------------------------------

TEST(CudaSample, GreedyTakesTheLowestOfEquals) {
    Case c = random_case(9001, 8, 1);  // three slices, and rows that no 16-byte loads fit
    for (std::size_t i = 0; i < 8; ++i) {
        // The greatest twice: in one slice, in two, at the ends.
        const std::size_t first = i * 1100;
        c.logits[i * 9001 + first] = 50;
        c.logits[i * 9001 + 9000 - i] = 50;
    }
    for (const Order order : {Order::ascending, Order::descending, Order::shuffled}) {
        const auto tokens = sample(c, order);
        for (std::size_t i = 0; i < 8; ++i) EXPECT_EQ(tokens[i], static_cast<std::int32_t>(i * 1100));
        expect_same(c, tokens, "greedy");
    }
}

TEST(CudaSample, GreedyOfSigns) {
    // Zeros of both signs tie, and negative ones order as such.
    Case c;
    c.vocabulary = 8;
    c.logits = {-1,        -0.0f,     0.0f,      -2,        -0.0f,     -3,     -infinity, -5,  //
                -4,        -3,        -2,        -1,        -2,        -3,     -4,        -1,  //
                -infinity, -infinity, -infinity, -infinity, -infinity, -3e38f, -infinity, -infinity};
    c.params.resize(3);
    EXPECT_EQ(sample(c), (std::vector<std::int32_t>{1, 3, 5}));
}

TEST(CudaSample, ErrorsAreThoseOfTheHost) {
    Case c = random_case(4100, 6, 2);
    c.logits[0 * 4100 + 4099] = std::nanf("");
    c.logits[1 * 4100 + 17] = infinity;
    std::fill_n(c.logits.begin() + 2 * 4100, 4100, -infinity);
    c.logits[3 * 4100 + 5] = -std::nanf("");
    c.logits[4 * 4100 + 5] = -infinity;
    c.masks.resize(6);
    c.masks[3].assign(65, ~std::uint64_t{0});
    c.masks[3][0] = 0;  // the logit that is none is masked, and still shows that the model is broken
    c.masks[5].assign(65, 0);
    for (const float temperature : {0.0f, 0.9f}) {
        for (auto& p : c.params) p.temperature = temperature;
        const auto tokens = sample(c);
        EXPECT_EQ(tokens[0], -1);
        EXPECT_EQ(tokens[1], -1);
        EXPECT_EQ(tokens[2], -2);
        EXPECT_EQ(tokens[3], -1);
        EXPECT_GE(tokens[4], 0);
        EXPECT_EQ(tokens[5], -2);
        expect_same(c, tokens, "errors");
    }
}

// --- against the host ------------------------------------------------------------------------------------------------

/// Parameters of each kind alone and together.
SamplingParams kind(unsigned i, std::mt19937& random) {
    SamplingParams p;
    std::uniform_real_distribution<float> share(0, 1);
    p.temperature = 0.3f + 1.2f * share(random);
    p.seed = random();
    if ((i & 1u) != 0) p.top_k = 1 + static_cast<std::int32_t>(random() % (i % 3 == 0 ? 2000 : 50));
    if ((i & 2u) != 0) p.top_p = share(random);
    if ((i & 4u) != 0) p.min_p = share(random) * 0.2f;
    if ((i & 8u) != 0) p.repetition_penalty = 0.5f + share(random) * 1.5f;
    return p;
}

TEST(CudaSample, ThousandsOfRowsAsTheHost) {
    for (const std::uint32_t vocabulary : {1u, 7u, 130u, 515u, 1000u}) {
        std::mt19937 random(vocabulary);
        Case c = random_case(vocabulary, 480, vocabulary);
        c.histories.resize(480);
        c.masks.resize(480);
        for (unsigned i = 0; i < 480; ++i) {
            c.params[i] = kind(i % 16, random);
            c.params[i].repetition_window = i % 5 == 0 ? 20 : 0;
            for (unsigned j = 0; j < i % 64; ++j) {
                c.histories[i].push_back(static_cast<std::int32_t>(random() % (vocabulary + 2)) - 1);
            }
            if (i / 16 % 2 == 1) {
                for (unsigned j = 0; j < (vocabulary + 63) / 64; ++j) {
                    c.masks[i].push_back(random() | static_cast<std::uint64_t>(random()) << 32);
                }
            }
            // Equal logits, and impossible ones.
            if (i % 3 == 0) {
                for (unsigned j = 0; j < vocabulary; ++j) {
                    float& logit = c.logits[i * vocabulary + j];
                    logit = j % 7 == 3 ? -infinity : std::round(logit);
                }
            }
        }
        expect_same(c, sample(c), "random");
    }
}

TEST(CudaSample, LargeVocabularies) {
    for (const std::uint32_t vocabulary : {32'000u, 50'257u}) {
        std::mt19937 random(vocabulary);
        Case c = random_case(vocabulary, 16, vocabulary);
        for (unsigned i = 0; i < 16; ++i) c.params[i] = kind(i, random);
        expect_same(c, sample<512>(c), "large");
    }
}

TEST(CudaSample, TheOrderOfThreadsDoesNotMatter) {
    std::mt19937 random(9);
    Case c = random_case(3001, 32, 10);
    for (unsigned i = 0; i < 32; ++i) c.params[i] = kind(i % 8, random);
    const auto tokens = sample(c);
    EXPECT_EQ(sample(c, Order::descending), tokens);
    EXPECT_EQ(sample(c, Order::shuffled), tokens);
    EXPECT_EQ(sample<64>(c), tokens) << "nor does how the row is divided";
    EXPECT_EQ(sample<512>(c), tokens);
}

TEST(CudaSample, TiesAtTheEdgeGoToTheLowestIds) {
    // Twelve equal logits in different warps' parts of the row; a cut in the midst of them.
    Case c = random_case(2000, 400, 11, 0.1f);
    for (std::size_t i = 0; i < 400; ++i) {
        for (std::size_t j = 0; j < 12; ++j) c.logits[i * 2000 + 150 * j + 30] = 20;
        c.params[i].temperature = 1;
        c.params[i].seed = i;
        if (i % 2 == 0) {
            c.params[i].top_k = 5;
        } else {
            c.params[i].top_p = 4.5f / 12;
        }
    }
    std::vector<int> seen(12);
    for (const std::int32_t token : sample(c)) {
        ASSERT_EQ((token - 30) % 150, 0);
        ++seen[static_cast<std::size_t>((token - 30) / 150)];
    }
    for (std::size_t j = 0; j < 12; ++j) EXPECT_EQ(seen[j] > 0, j < 5) << j;
    expect_same(c, sample(c), "ties");
}

TEST(CudaSample, ExtremeParameters) {
    Case c = random_case(600, 10, 12, 30);
    auto& p = c.params;
    for (std::size_t i = 0; i < 10; ++i) p[i].seed = i;
    p[0].temperature = 1e-30f;
    p[1].temperature = 1e30f;
    p[2] = {.temperature = 1, .top_p = 0};
    p[3] = {.temperature = 1, .min_p = 1};
    p[4] = {.temperature = 1, .top_k = 1};
    p[5] = {.temperature = 1, .top_k = std::numeric_limits<std::int32_t>::max()};
    p[6] = {.temperature = 1, .top_p = std::nextafter(1.0f, 0.0f)};
    p[7] = {.temperature = 1, .top_k = 599};
    p[8] = {.temperature = 1, .repetition_penalty = 1e38f};
    p[9] = {.temperature = 1, .repetition_penalty = 1e-38f};
    c.histories.assign(10, {5, 6, 7, 5, 599, -1, 600});
    expect_same(c, sample(c), "extreme");
}

// --- draws -----------------------------------------------------------------------------------------------------------

TEST(CudaSample, FrequenciesFollowTheSoftmax) {
    // Row 76: chi-square of what is drawn at temperature 0.7 against the softmax.
    const std::vector<float> logits = support::gaussian(16, 20, 1.0f);
    Case c;
    c.vocabulary = 16;
    constexpr std::size_t draws = 4000;
    for (std::size_t i = 0; i < draws; ++i) {
        c.logits.insert(c.logits.end(), logits.begin(), logits.end());
        c.params.push_back({.temperature = 0.7f, .seed = 42});
    }
    const auto tokens = sample<32>(c);
    std::vector<double> expected;
    double total = 0;
    for (const float logit : logits) expected.push_back(std::exp(double{logit} / 0.7));
    for (const double e : expected) total += e;
    double chi_square = 0;
    for (std::size_t id = 0; id < 16; ++id) {
        const double mean = expected[id] / total * draws;
        const double found = static_cast<double>(std::ranges::count(tokens, static_cast<std::int32_t>(id)));
        chi_square += (found - mean) * (found - mean) / mean;
    }
    EXPECT_LT(chi_square, 37.7);  // 15 degrees of freedom: one seed in a thousand exceeds it
    expect_same(c, tokens, "draws");

    // A seed repeats, another does not.
    EXPECT_EQ(sample<32>(c), tokens);
    for (auto& p : c.params) p.seed = 43;
    EXPECT_NE(sample<32>(c), tokens);
}

TEST(CudaSample, RowsDoNotKnowTheirMates) {
    std::mt19937 random(30);
    Case c = random_case(700, 12, 31);
    for (unsigned i = 0; i < 12; ++i) c.params[i] = kind(i, random);
    const auto together = sample(c);
    for (std::size_t i = 0; i < 12; ++i) {
        Case alone;
        alone.vocabulary = c.vocabulary;
        alone.logits.assign(c.logits.begin() + static_cast<std::ptrdiff_t>(i * 700),
                            c.logits.begin() + static_cast<std::ptrdiff_t>((i + 1) * 700));
        alone.params = {c.params[i]};
        alone.first_position = c.first_position + i;
        EXPECT_EQ(sample(alone), std::vector{together[i]});
    }
}

TEST(CudaSample, LaunchesWriteOnlyTheirWorkspace) {
    Case c = random_case(4099, 3, 40);
    std::mt19937 random(41);
    std::vector<DeviceSampling> params;
    for (unsigned i = 0; i < 3; ++i) {
        c.params[i] = kind(i, random);
        params.push_back(device_sampling(c.params[i], c.first_position + i));
    }
    const std::size_t bytes = workspace_bytes(3, 4099);
    EXPECT_EQ(bytes, 48u + 3 * 4100 * 4);
    std::vector<zse::exec::gpu::Chunk> room(bytes / 16 + 2, {{0xabu, 0xabu, 0xabu, 0xabu}});
    std::vector<std::int32_t> tokens(4, -77);
    zse::exec::gpu::Stream stream;
    sampling_launches<zse::exec::gpu::Emulated>.sample(
        stream, {c.logits.data(), 4099, 3, 4099, params.data(), tokens.data(),
                 reinterpret_cast<std::byte*>(room.data())});
    ASSERT_FALSE(stream.failed()) << stream.why();
    EXPECT_EQ(stream.kernels(), 2u);
    EXPECT_EQ(tokens[3], -77);
    for (std::size_t i = bytes; i < room.size() * 16; ++i) {
        EXPECT_EQ(reinterpret_cast<const unsigned char*>(room.data())[i], i % 4 == 0 ? 0xab : 0);
    }
    tokens.pop_back();
    expect_same(c, tokens, "launches");
}

}  // namespace
