// SPDX-License-Identifier: Apache-2.0
// Attention with plain loops on a GPU, run on the host, against the formula in double precision.
// labels: cuda_host
#include <attention/cuda_cache.hpp>

namespace {

using namespace cuda_cache;

// Sums of float32 over some hundred terms.
constexpr float tolerance = 2e-5f;

TEST(CudaReference, IsNearTheFormulaForAnyCodecPageAndHead) {
    Ask ask;
    ask.reference = true;
    for (const std::uint32_t page : {1u, 8u, 16u, 32u}) {
        expect_near<kv::f32, kv::f32>({2, 3, page}, {{17}, {150, 3}}, ask, tolerance);
        expect_near<kv::f16, kv::fp8<>>({1, 2, page}, {{150, 2}}, ask, tolerance);
        expect_near<kv::int8<16>, kv::int4<16>, 80>({1, 2, page}, {{40, 2}}, ask, tolerance);
        expect_near<kv::int4<>, kv::int8<>>({1, 2, page}, {{40, 2}}, ask, tolerance);
    }
    ask.window = 20;
    expect_near<kv::int8<>, kv::int8<>, 128>({1, 2, 16}, {{300, 2, 4, 256}, {50}}, ask, tolerance);
}

TEST(CudaReference, TakesTheShapesThatNoOtherKernelHas) {
    for (const std::uint32_t page : {1u, 8u}) {
        expect_near<kv::int8<>, kv::int8<>>({1, 2, page}, {{40}}, {}, tolerance);
    }
    expect_near<kv::f32, kv::f32>({1, 2, 16}, {{40}}, {}, tolerance);
    expect_near<kv::f16, kv::f16, 80>({1, 2, 16}, {{40}}, {}, tolerance);
    expect_near<kv::int4<16>, kv::int4<16>>({1, 2, 16}, {{40}}, {}, tolerance);
}

}  // namespace
