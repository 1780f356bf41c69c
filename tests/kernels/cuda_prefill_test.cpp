// SPDX-License-Identifier: Apache-2.0
// Products with many tokens on a GPU, for every codec: near those in double precision, whatever the order of threads,
// the tile and the other tokens.
// rows: 64
// labels: cuda_host
#include <zse/exec/cuda/emulated.hpp>
#include <zse/kernels/cuda/prefill.hpp>
#include <zse/weights/as_stored.hpp>

#include <gtest/gtest.h>
#include <support/codecs.hpp>
#include <support/in_order.hpp>
#include <support/mma_matrix.hpp>

#include <cstring>
#include <string>
#include <typeinfo>

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

/// Room for the halves of a call, behind a part that has to stay as it is.
struct Workspace {
    Workspace(std::uint32_t columns, std::uint32_t tokens)
        : bytes(kept + cuda::prefill_workspace_bytes(columns, tokens)) {}
    template <class Call>
    void give(Call& call) {
        call.workspace = bytes.data();
        call.workspace_bytes = bytes.size();
    }
    void expect_kept() const {
        for (std::size_t i = 0; i < kept; ++i) ASSERT_EQ(bytes.data()[i], std::byte{0xff});
    }
    static constexpr std::size_t kept = 256;
    AlignedBytes bytes;
};

/// The kernel of one shape on rows of halves, for shapes that a small call does not choose.
template <class Kernel>
void run_on_halves(Kernel kernel, const FloatRows& x, std::uint32_t columns, std::uint32_t tokens) {
    const AlignedBytes room(cuda::HalfRows::bytes(columns, tokens));
    kernel.x = cuda::HalfRows::in(room.data(), columns, tokens);
    EmulatedBlock::run_grid(cuda::HalvesKernel{x.data(), x.greatest(), tokens, kernel.x});
    EmulatedBlock::run_grid(kernel);
}

template <class Codec>
class Prefill : public testing::Test {};

/// The stored codecs, and those whose groups make slabs of 128 columns.
using Codecs =
    testing::Types<weights::f32, weights::f16, weights::bf16, weights::int8<32>, weights::nf4<64>,
                   weights::q4_0, weights::q4_1, weights::q8_0, weights::int8<128>, weights::nf4<128>>;
TYPED_TEST_SUITE(Prefill, Codecs, support::CodecName);

TYPED_TEST(Prefill, ThreeMatricesInOneLaunchAreNearTheExactProducts) {
    const std::uint32_t columns = 576;
    const std::uint32_t tokens = 65;
    const MmaMatrix<TypeParam> matrices[] = {{130, columns, 1}, {16, columns, 2}, {40, columns, 3}};
    const FloatRows x(tokens, columns, 4);
    const std::vector<float> bias = gaussian(40, 5);
    std::vector<std::vector<float>> y;
    cuda::LinearCall call;
    for (const auto& matrix : matrices) {
        y.emplace_back(tokens * (matrix.rows() + 3), 0.25f);
        call.outputs[call.count++] = {matrix.packed(), matrix.rows(), y.back().data(), matrix.rows() + 3};
    }
    call.outputs[1].accumulate = true;
    call.outputs[2].bias = bias.data();
    call.x = x.data();
    call.greatest = x.greatest();
    call.tokens = tokens;
    call.columns = columns;
    Workspace workspace(columns, tokens);
    workspace.give(call);
    Stream stream;
    cuda::prefill_linear<TypeParam, Emulated>(stream, call);
    ASSERT_FALSE(stream.failed()) << stream.why();
    workspace.expect_kept();
    for (std::size_t m = 0; m < 3; ++m) {
        const std::uint32_t rows = matrices[m].rows();
        for (std::size_t t = 0; t < tokens; ++t) {
            for (std::size_t r = 0; r < rows; ++r) {
                const auto exact = matrices[m].times(r, x.row(t));
                const double sum = exact.sum + (m == 1 ? 0.25 : 0) + (m == 2 ? double{bias[r]} : 0.0);
                ASSERT_NEAR(y[m][t * (rows + 3) + r], sum,
                            half_product_error(exact.square) + std::fabs(sum) * 0x1p-22)
                    << "matrix " << m << ", token " << t << ", row " << r;
            }
            EXPECT_EQ(y[m][t * (rows + 3) + rows], 0.25f) << "past the end of a row";
        }
    }
}

TYPED_TEST(Prefill, WideTilesHaveTheBitsOfSmallOnes) {
    const std::uint32_t columns = 96;
    const std::uint32_t rows = 130;
    const std::uint32_t tokens = 129;
    const MmaMatrix<TypeParam> matrix(rows, columns, 1);
    const FloatRows x(tokens, columns, 2);
    const auto run = [&](auto kernel) {
        std::vector<float> y(std::size_t{tokens} * rows, -1);
        kernel.outputs[0] = {matrix.packed(), rows, y.data(), rows};
        kernel.count = 1;
        kernel.tokens = tokens;
        run_on_halves(kernel, x, columns, tokens);
        return y;
    };
    const std::vector<float> wide = run(cuda::PrefillKernel<TypeParam, cuda::WideTile>{});
    for (std::size_t t = 0; t < tokens; ++t) {
        for (std::size_t r = 0; r < rows; ++r) {
            const auto exact = matrix.times(r, x.row(t));
            ASSERT_NEAR(wide[t * rows + r], exact.sum, half_product_error(exact.square))
                << "token " << t << ", row " << r;
        }
    }
    EXPECT_EQ(run(cuda::PrefillKernel<TypeParam, cuda::SmallTile>{}), wide);
}

TYPED_TEST(Prefill, GatedIsSiluOfOneProductTimesTheOther) {
    const std::uint32_t rows = 72;
    const std::uint32_t columns = 64;
    const std::uint32_t tokens = 150;
    const MmaMatrix<TypeParam> gate(rows, columns, 1);
    const MmaMatrix<TypeParam> up(rows, columns, 2);
    const FloatRows x(tokens, columns, 3);
    std::vector<float> out(std::size_t{tokens} * rows, -1);
    std::vector<std::uint32_t> greatest(tokens, 0);
    cuda::GatedCall call{gate.packed(), up.packed(), rows,       columns,        x.data(),
                         x.greatest(),  tokens,      out.data(), greatest.data()};
    Workspace workspace(columns, tokens);
    workspace.give(call);
    Stream stream;
    cuda::prefill_gated<TypeParam, Emulated>(stream, call);
    ASSERT_FALSE(stream.failed()) << stream.why();
    workspace.expect_kept();
    for (std::size_t t = 0; t < tokens; ++t) {
        float most = 0;
        for (std::size_t r = 0; r < rows; ++r) {
            const auto g = gate.times(r, x.row(t));
            const auto u = up.times(r, x.row(t));
            const double silu = g.sum / (1 + std::exp(-g.sum));
            // The slope of silu is at most 1.1; powers and quotients err by a few units of float32.
            const double error = 1.1 * half_product_error(g.square) * std::fabs(u.sum) +
                                 half_product_error(u.square) * std::fabs(silu) +
                                 half_product_error(g.square) * half_product_error(u.square) * 1.1 +
                                 std::fabs(silu * u.sum) * 1e-6;
            ASSERT_NEAR(out[t * rows + r], silu * u.sum, error) << "token " << t << ", row " << r;
            most = std::max(most, std::fabs(out[t * rows + r]));
        }
        EXPECT_EQ(std::bit_cast<float>(greatest[t]), most);
    }
    std::vector<float> wide(out.size(), -1);
    std::vector<std::uint32_t> wide_greatest(tokens, 0);
    run_on_halves(
        cuda::PrefillGatedKernel<TypeParam, cuda::WideTile>{
            {gate.packed(), up.packed(), rows}, tokens, {}, wide.data(), wide_greatest.data()},
        x, columns, tokens);
    EXPECT_EQ(wide, out);
    EXPECT_EQ(wide_greatest, greatest);
}

template <class Launcher>
std::vector<float> small_product(const MmaMatrix<weights::q4_1>& matrix, const FloatRows& x,
                                 std::uint32_t tokens) {
    std::vector<float> y(std::size_t{tokens} * matrix.rows(), -1);
    cuda::LinearCall call;
    call.outputs[0] = {matrix.packed(), matrix.rows(), y.data(), matrix.rows()};
    call.count = 1;
    call.x = x.data();
    call.greatest = x.greatest();
    call.tokens = tokens;
    call.columns = matrix.columns();
    Workspace workspace(matrix.columns(), tokens);
    workspace.give(call);
    Stream stream;
    cuda::prefill_linear<weights::q4_1, Launcher>(stream, call);
    return y;
}

TEST(PrefillBits, DependNeitherOnTheOrderOfThreadsNorOnOtherTokens) {
    const MmaMatrix<weights::q4_1> matrix(70, 320, 1);  // five slabs: more than there are stages
    const FloatRows x(130, 320, 2);
    const std::vector<float> y = small_product<InOrder<Order::ascending>>(matrix, x, 130);
    EXPECT_EQ(small_product<InOrder<Order::descending>>(matrix, x, 130), y);
    EXPECT_EQ(small_product<InOrder<Order::shuffled>>(matrix, x, 130), y);
    for (const std::uint32_t tokens : {65u, 1u, 8u}) {
        const std::vector<float> fewer = small_product<InOrder<Order::ascending>>(matrix, x, tokens);
        EXPECT_EQ(std::memcmp(fewer.data(), y.data(), fewer.size() * sizeof(float)), 0) << tokens;
    }
}

/// Runs nothing, and remembers what it was to run.
struct Remember {
    template <class K>
    static void launch(Stream& /*stream*/, const K& /*kernel*/) noexcept {
        last = &typeid(K);
    }
    static inline const std::type_info* last = nullptr;
};

TEST(PrefillTiles, AreWideWhereTheyFillAGpu) {
    cuda::LinearCall call;
    call.count = 2;
    call.outputs[0].rows = 4096;
    call.outputs[1].rows = 128;
    call.columns = 64;
    AlignedBytes room(cuda::prefill_workspace_bytes(64, 2048));
    call.workspace = room.data();
    call.workspace_bytes = room.size();
    Stream stream;
    call.tokens = 1024;  // 33 tiles of rows, 8 of tokens
    cuda::prefill_linear<weights::f16, Remember>(stream, call);
    EXPECT_TRUE(*Remember::last == (typeid(cuda::PrefillKernel<weights::f16, cuda::WideTile>)));
    call.tokens = 896;
    cuda::prefill_linear<weights::f16, Remember>(stream, call);
    EXPECT_TRUE(*Remember::last == (typeid(cuda::PrefillKernel<weights::f16, cuda::SmallTile>)));
}
TEST(PrefillWorkspace, ThatIsTooSmallFailsTheStream) {
    cuda::LinearCall call;
    call.columns = 64;
    call.tokens = 65;
    Stream stream;
    cuda::prefill_linear<weights::f16, Emulated>(stream, call);
    EXPECT_TRUE(stream.failed());
}

}  // namespace
