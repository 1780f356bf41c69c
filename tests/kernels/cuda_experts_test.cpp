// SPDX-License-Identifier: Apache-2.0
// A layer of experts on a GPU: near the same in double precision, for every codec, however tokens are spread over
// experts.
// rows: 64
// labels: cuda_host
#include <zse/exec/cuda/emulated.hpp>
#include <zse/kernels/cuda/experts.hpp>
#include <zse/weights/as_stored.hpp>

#include <gtest/gtest.h>
#include <support/codecs.hpp>
#include <support/in_order.hpp>
#include <support/mma_matrix.hpp>

#include <cstring>
#include <memory>
#include <numeric>
#include <string>

namespace {

namespace cuda = zse::kernels::cuda;
namespace weights = zse::weights;
using support::AlignedBytes;
using support::FloatRows;
using support::gaussian;
using support::half_product_error;
using support::InOrder;
using support::MmaMatrix;
using zse::exec::gpu::Emulated;
using zse::exec::gpu::EmulatedBlock;
using zse::exec::gpu::Order;
using zse::exec::gpu::Stream;

/// Matrices of all experts, one after the other.
template <class Codec>
struct Bank {
    Bank(std::uint32_t experts, std::uint32_t rows, std::uint32_t columns, unsigned seed)
        : packed(experts * bytes(rows, columns)) {
        for (std::uint32_t e = 0; e < experts; ++e) {
            matrices.push_back(std::make_unique<MmaMatrix<Codec>>(rows, columns, seed + e));
            std::memcpy(packed.data() + e * bytes(rows, columns), matrices.back()->packed(),
                        bytes(rows, columns));
        }
    }
    static std::size_t bytes(std::uint32_t rows, std::uint32_t columns) {
        return weights::MmaLayout{Codec::format, columns}.bytes(rows);
    }
    AlignedBytes packed;
    std::vector<std::unique_ptr<MmaMatrix<Codec>>> matrices;
};

constexpr std::uint32_t experts = 6;
constexpr std::uint32_t chosen = 2;
constexpr std::uint32_t columns = 96;
constexpr std::uint32_t inner = 40;

template <class Codec>
struct Layer {
    Bank<Codec> gate{experts, inner, columns, 1};
    Bank<Codec> up{experts, inner, columns, 101};
    Bank<Codec> down{experts, columns, inner, 201};
};

template <class Codec, class Launcher = Emulated>
std::vector<float> run(const Layer<Codec>& layer, const FloatRows& x, const std::vector<float>& logits,
                       bool accumulate = false) {
    const auto tokens = static_cast<std::uint32_t>(logits.size() / experts);
    std::vector<float> y(std::size_t{tokens} * (columns + 4), 0.5f);
    cuda::ExpertsCall call;
    call.gate = layer.gate.packed.data();
    call.up = layer.up.packed.data();
    call.down = layer.down.packed.data();
    call.experts = experts;
    call.chosen = chosen;
    call.inner = inner;
    call.columns = columns;
    call.renormalise = true;
    call.logits = logits.data();
    call.x = x.data();
    call.greatest = x.greatest();
    call.tokens = tokens;
    call.y = y.data();
    call.y_stride = columns + 4;
    call.accumulate = accumulate;
    const AlignedBytes workspace(cuda::ExpertsWorkspace::bytes(call));
    call.workspace = workspace.data();
    call.workspace_bytes = workspace.size();
    Stream stream;
    cuda::route_experts<Launcher>(stream, call);
    cuda::experts_gated<Codec, Launcher>(stream, call);
    cuda::experts_down<Codec, Launcher>(stream, call);
    EXPECT_FALSE(stream.failed()) << stream.why();
    return y;
}

/// A value with a bound for the error that rounding to halves makes in it.
struct Bounded {
    double value = 0;
    double error = 0;
};

/// One expert's result for a token, `[columns]`.
template <class Codec>
std::vector<Bounded> expert_result(const Layer<Codec>& layer, std::size_t expert, const float* x) {
    std::vector<Bounded> h(inner);
    for (std::size_t r = 0; r < inner; ++r) {
        const auto g = layer.gate.matrices[expert]->times(r, x);
        const auto u = layer.up.matrices[expert]->times(r, x);
        const double silu = g.sum / (1 + std::exp(-g.sum));
        const double error_g = 1.1 * half_product_error(g.square);  // the slope of silu is at most 1.1
        const double error_u = half_product_error(u.square);
        h[r] = {silu * u.sum, error_g * std::fabs(u.sum) + error_u * std::fabs(silu) + error_g * error_u};
    }
    std::vector<Bounded> result(columns);
    for (std::size_t c = 0; c < columns; ++c) {
        double square = 0;
        double carried = 0;  // errors of h are independent of each other
        for (std::size_t r = 0; r < inner; ++r) {
            const double weight = layer.down.matrices[expert]->at(c, r);
            result[c].value += weight * h[r].value;
            square += weight * weight * h[r].value * h[r].value;
            carried += weight * weight * h[r].error * h[r].error;
        }
        result[c].error = half_product_error(square) + std::sqrt(carried);
    }
    return result;
}

template <class Codec>
void expect_near_exact(const Layer<Codec>& layer, const FloatRows& x, const std::vector<float>& logits,
                       const std::vector<float>& y, double before) {
    for (std::size_t t = 0; t < logits.size() / experts; ++t) {
        const float* of = logits.data() + t * experts;
        std::vector<std::size_t> best(experts);
        std::iota(best.begin(), best.end(), 0u);
        std::ranges::stable_sort(best, [&](auto a, auto b) { return of[a] > of[b]; });
        double total = 0;
        for (std::size_t s = 0; s < chosen; ++s) total += std::exp(double{of[best[s]]} - of[best[0]]);
        std::vector<Bounded> sum(columns, {before, 1e-6});
        for (std::size_t s = 0; s < chosen; ++s) {
            const double weight = std::exp(double{of[best[s]]} - of[best[0]]) / total;
            const auto result = expert_result(layer, best[s], x.row(t));
            for (std::size_t c = 0; c < columns; ++c) {
                sum[c].value += weight * result[c].value;
                sum[c].error += weight * (result[c].error + 1e-5 * std::fabs(result[c].value));
            }
        }
        for (std::size_t c = 0; c < columns; ++c) {
            ASSERT_NEAR(y[t * (columns + 4) + c], sum[c].value, sum[c].error)
                << "token " << t << ", column " << c;
        }
        EXPECT_EQ(y[t * (columns + 4) + columns], 0.5f) << "past the end of a row";
    }
}

template <class Codec>
class Experts : public testing::Test {};

using Codecs = testing::Types<weights::f32, weights::f16, weights::bf16, weights::int8<32>, weights::nf4<64>,
                              weights::q4_0, weights::q4_1, weights::q8_0, weights::nf4<128>>;
TYPED_TEST_SUITE(Experts, Codecs, support::CodecName);

TYPED_TEST(Experts, OfFewTokensAndOfManyAreNearTheExactSum) {
    const Layer<TypeParam> layer;
    for (const std::uint32_t tokens : {37u, 100u}) {  // 12 of an expert, in tiles of 16; 33, in tiles of 64
        const FloatRows x(tokens, columns, tokens);
        const std::vector<float> logits = gaussian(std::size_t{tokens} * experts, tokens + 1);
        const bool accumulate = tokens == 37;
        expect_near_exact(layer, x, logits, run(layer, x, logits, accumulate), accumulate ? 0.5 : 0.0);
    }
}

TEST(ExpertsOfQ4, GetAnyNumberOfTokens) {
    const Layer<weights::q4_0> layer;
    for (const std::uint32_t tokens : {1u, 2u, 16u, 17u, 64u, 130u}) {
        const FloatRows x(tokens, columns, tokens);
        // All tokens go to experts 4 and 1; the others have none.
        std::vector<float> logits = gaussian(std::size_t{tokens} * experts, tokens + 1);
        for (std::size_t t = 0; t < tokens; ++t) {
            logits[t * experts + 4] += 30;
            logits[t * experts + 1] += 28;
        }
        expect_near_exact(layer, x, logits, run(layer, x, logits), 0);
    }
}

TEST(ExpertsOfQ4, HaveTheSameBitsInAnyOrderOfThreadsAndWithAnyOtherTokens) {
    const Layer<weights::q4_0> layer;
    const std::uint32_t tokens = 100;
    const FloatRows x(tokens, columns, 1);
    const std::vector<float> logits = gaussian(std::size_t{tokens} * experts, 2);
    const auto y = run<weights::q4_0, InOrder<Order::ascending>>(layer, x, logits);
    EXPECT_EQ((run<weights::q4_0, InOrder<Order::descending>>(layer, x, logits)), y);
    EXPECT_EQ((run<weights::q4_0, InOrder<Order::shuffled>>(layer, x, logits)), y);
    // Alone a token is in a tile of 16, and was in one of 64.
    const auto first = run(layer, x, {logits.begin(), logits.begin() + experts});
    EXPECT_EQ(std::vector(y.begin(), y.begin() + columns + 4), first);
}

struct FindKernel {
    static constexpr unsigned threads = 32;
    const std::uint32_t* offsets;
    std::uint32_t count;
    std::uint32_t pairs;
    std::uint32_t* seen;  ///< `[pairs]`: 1000 + expert for every tile that a pair is in

    [[nodiscard]] zse::exec::gpu::Launch launch() const noexcept {
        return {{cuda::ExpertTiles<16>::most(pairs, count), 1, 1}, threads, 0};
    }
    void operator()(zse::exec::gpu::EmulatedThread& t) const {
        const auto tile = cuda::ExpertTiles<16>::find(t, offsets, count, t.block().x);
        if (t.lane() != 0) return;
        for (unsigned i = 0; i < tile.tokens; ++i) seen[tile.first + i] += 1000 + tile.expert;
    }
};

TEST(ExpertTiles, CoverEveryPairOnce) {
    for (unsigned seed = 0; seed < 40; ++seed) {
        const std::vector<std::byte> random = support::random_bytes(100, seed);
        std::vector<std::uint32_t> expected;
        std::vector<std::uint32_t> offsets{0};
        for (std::uint32_t e = 0; e < 1 + seed * 2; ++e) {
            const auto byte = std::to_integer<std::uint32_t>(random[e]);
            // Often none, often a multiple of a tile, or about one.
            const std::uint32_t tokens = byte % 4 == 0 ? 0 : byte % 4 == 1 ? byte / 64 * 16 : byte / 7;
            expected.insert(expected.end(), tokens, 1000 + e);
            offsets.push_back(offsets.back() + tokens);
        }
        std::vector<std::uint32_t> seen(expected.size(), 0);
        EmulatedBlock::run_grid(FindKernel{offsets.data(), static_cast<std::uint32_t>(offsets.size() - 1),
                                           offsets.back(), seen.data()});
        EXPECT_EQ(seen, expected) << "seed " << seed;
    }
}

TEST(ExpertsCalls, ThatCannotBeServedFailTheStream) {
    cuda::ExpertsCall call;
    call.experts = 513;
    call.chosen = 1;
    Stream many;
    cuda::route_experts<Emulated>(many, call);
    EXPECT_TRUE(many.failed());
    call.experts = 6;
    call.tokens = 1;
    call.columns = 64;
    Stream small;
    cuda::route_experts<Emulated>(small, call);
    cuda::experts_gated<weights::q4_0, Emulated>(small, call);
    cuda::experts_down<weights::q4_0, Emulated>(small, call);
    EXPECT_TRUE(small.failed());
    EXPECT_EQ(small.kernels(), 0u);
}

}  // namespace
