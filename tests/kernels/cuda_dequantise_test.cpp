// SPDX-License-Identifier: Apache-2.0
// Packed matrices as halves on a GPU: the nearest half of every weight, for every codec.
// rows: 64
// labels: cuda_host
#include <zse/exec/cuda/emulated.hpp>
#include <zse/kernels/cuda/dequantise.hpp>
#include <zse/weights/as_stored.hpp>

#include <gtest/gtest.h>
#include <support/codecs.hpp>
#include <support/mma_matrix.hpp>

#include <cstring>
#include <string>

namespace {

namespace cuda = zse::kernels::cuda;
namespace weights = zse::weights;
using support::AlignedBytes;
using support::MmaMatrix;
using zse::exec::gpu::Emulated;
using zse::exec::gpu::EmulatedBlock;
using zse::exec::gpu::Order;
using zse::exec::gpu::Stream;

template <class Codec>
class Dequantise : public testing::Test {};

using Codecs = testing::Types<weights::f32, weights::f16, weights::bf16, weights::int8<32>, weights::nf4<64>,
                              weights::q4_0, weights::q4_1, weights::q8_0, weights::int8<128>,
                              weights::nf4<32>, weights::nf4<128>>;
TYPED_TEST_SUITE(Dequantise, Codecs, support::CodecName);

TYPED_TEST(Dequantise, GivesTheNearestHalves) {
    for (const std::uint32_t rows : {1u, 16u, 40u}) {
        for (const std::uint32_t columns : {64u, 96u, 104u, 576u}) {
            const MmaMatrix<TypeParam> matrix(rows, columns, rows + columns);
            const std::size_t halves = std::size_t{rows} * columns;
            const AlignedBytes out(halves * 2 + 16);
            Stream stream;
            cuda::dequantise<TypeParam, Emulated>(stream, {matrix.packed(), rows, columns, out.data()});
            ASSERT_FALSE(stream.failed()) << stream.why();
            for (std::size_t r = 0; r < rows; ++r) {
                for (std::size_t c = 0; c < columns; ++c) {
                    zse::f16 half;
                    std::memcpy(&half, out.data() + (r * columns + c) * 2, sizeof half);
                    const double weight = matrix.at(r, c);
                    // Half of the last of 11 bits, or of a subnormal's; the value rounded is a float32 product and sum,
                    // whose terms are below 1.
                    const double error = std::max(std::fabs(weight) * 0x1p-11, 0x1p-25) + 0x1p-23;
                    ASSERT_NEAR(double{static_cast<float>(half)}, weight, error)
                        << "row " << r << ", column " << c;
                }
            }
            for (std::size_t i = halves * 2; i < out.size(); ++i) EXPECT_EQ(out.data()[i], std::byte{0xff});
            for (const Order order : {Order::descending, Order::shuffled}) {
                const AlignedBytes again(out.size());
                EmulatedBlock::run_grid(
                    cuda::DequantiseKernel<TypeParam>{matrix.packed(), rows, columns, again.data()}, order);
                EXPECT_EQ(std::memcmp(again.data(), out.data(), out.size()), 0);
            }
        }
    }
}
TEST(DequantiseColumns, ThatFillNoStoreAreRefused) {
    Stream stream;
    cuda::dequantise<weights::f16, Emulated>(stream, {nullptr, 16, 100, nullptr});
    EXPECT_TRUE(stream.failed());
}

}  // namespace
