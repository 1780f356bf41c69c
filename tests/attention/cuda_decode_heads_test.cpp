// SPDX-License-Identifier: Apache-2.0
// Attention of few rows by the kernel of GPUs, run on the host, for heads and groups of values that are not the usual ones.
// labels: cuda_host
#include <attention/cuda_cache.hpp>

namespace {

using namespace cuda_cache;

// Queries and weights keep 22 bits, sums are float32: errors are those of float32 over some hundred terms.
constexpr float tolerance = 2e-5f;

TEST(CudaDecode, IsNearTheFormulaForOtherHeadsAndGroupsOfValues) {
    expect_near<kv::f16, kv::f16, 96>({1, 2, 16}, {{50}}, {}, tolerance);
    expect_near<kv::int8<>, kv::int4<>, 96>({1, 2, 16}, {{50}}, {}, tolerance);
    expect_near<kv::f16, kv::f16, 256>({1, 2, 16}, {{50}}, {}, tolerance);
    expect_near<kv::int4<>, kv::int8<>, 256>({1, 2, 32}, {{90}}, {}, tolerance);
    expect_near<kv::int8<16>, kv::int4<16>>({1, 2, 16}, {{50}}, {}, tolerance);
    expect_near<kv::fp8<16>, kv::fp8<128>, 128>({1, 2, 16}, {{50}}, {}, tolerance);
    expect_near<kv::int4<64>, kv::int4<128>, 128>({1, 2, 16}, {{50}}, {}, tolerance);
    expect_near<kv::int4<128>, kv::int8<64>, 128>({1, 2, 16}, {{50}}, {}, tolerance);
}

}  // namespace
