// SPDX-License-Identifier: Apache-2.0
// Products of packed matrices with few tokens and many, on a GPU and on the host in its place.
// rows: 64
// labels: cuda_host cuda_device
#include <zse/kernels/cuda/linear.hpp>
#include <zse/kernels/cuda/workspace.hpp>
#include <zse/weights/as_stored.hpp>

#include <gtest/gtest.h>
#include <cuda/place.hpp>
#include <support/mma_matrix.hpp>

#include <algorithm>
#include <cmath>

namespace {

using namespace zse_test;
namespace weights = zse::weights;

/// One product with a bias. 65 tokens take the kernels for many tokens; the others those for small batches, where
/// columns are split among blocks. The least exact of them round activations to 11 bits, or to the 8 of bfloat16 beside
/// it, which is 8 times as coarse.
template <class Codec, class Where>
void check_product(Place<Where>& place, std::uint32_t tokens) {
    constexpr std::uint32_t rows = 70;
    constexpr std::uint32_t columns = 1'024;
    const double coarse = std::is_same_v<Codec, weights::bf16> ? 8 : 1;
    const support::MmaMatrix<Codec> matrix(rows, columns, 1);
    const support::FloatRows x(tokens, columns, 2);
    const std::vector<float> bias = support::gaussian(rows, 3);
    const zse::Bytes workspace_bytes = zse::kernels::cuda::workspace_bytes(rows, columns, tokens);

    zse::kernels::cuda::LinearCall call;
    call.outputs[0].weights =
        place.put(matrix.packed(), zse::weights::MmaLayout{Codec::format, columns}.bytes(rows));
    call.outputs[0].rows = rows;
    call.outputs[0].y = place.template zeros<float>(std::size_t{tokens} * rows);
    call.outputs[0].y_stride = rows;
    call.outputs[0].bias = place.put(bias);
    call.count = 1;
    call.x = place.put(x.data(), std::size_t{tokens} * columns);
    call.greatest = place.put(x.greatest(), tokens);
    call.tokens = tokens;
    call.columns = columns;
    call.workspace = place.template zeros<std::byte>(workspace_bytes);
    call.workspace_bytes = workspace_bytes;
    zse::kernels::cuda::matrix_launches<Codec, typename Where::Launcher>.linear(place.stream(), call);

    const std::vector<float> found = place.get(call.outputs[0].y, std::size_t{tokens} * rows);
    for (std::size_t token = 0; token < tokens; ++token) {
        for (std::size_t row = 0; row < rows; ++row) {
            const auto exact = matrix.times(row, x.row(token));
            const double wanted = exact.sum + double{bias[row]};
            ASSERT_NEAR(found[token * rows + row], wanted,
                        coarse * support::half_product_error(exact.square) + std::fabs(wanted) * 0x1p-22)
                << tokens << " tokens, token " << token << ", row " << row;
        }
    }
    const std::vector<std::byte> left = place.get(call.workspace, zse::kernels::cuda::Workspace::zeros);
    EXPECT_EQ(std::ranges::count(left, std::byte{0}), static_cast<std::ptrdiff_t>(left.size()))
        << "counters have to be zero after a product";
}

template <class Codec, class Where>
void check_products(Place<Where>& place) {
    for (const std::uint32_t tokens : {1u, 3u, 7u, 20u, 64u, 65u}) check_product<Codec>(place, tokens);
}

template <class Where>
constexpr Check<Where> checks[] = {
    {"f32", check_products<weights::f32>},       {"f16", check_products<weights::f16>},
    {"bf16", check_products<weights::bf16>},     {"q4_0", check_products<weights::q4_0>},
    {"q4_1", check_products<weights::q4_1>},     {"q8_0", check_products<weights::q8_0>},
    {"int8", check_products<weights::int8<32>>}, {"nf4", check_products<weights::nf4<64>>}};

TEST(ProductsOnHost, AgreeWithTheirReferences) {
    agree<OnHost>(*OnHost::open(), checks<OnHost>);
}
TEST(ProductsOnDevice, AgreeWithTheirReferences) {
    const auto runtime = OnDevice::open();
    if (runtime == nullptr) GTEST_SKIP();
    agree<OnDevice>(*runtime, checks<OnDevice>);
}
TEST(ProductsOnDevice, LeaveMemoryAsItWas) {
    const auto runtime = OnDevice::open();
    if (runtime == nullptr) GTEST_SKIP();
    leave_memory<OnDevice>(*runtime, checks<OnDevice>);
}

}  // namespace
