// SPDX-License-Identifier: Apache-2.0
// Says that the kernels of the closed set of codecs are compiled in one file of the program, not in each that
// uses them.
#pragma once

#include <zse/attention/flash.hpp>
#include <zse/attention/reference.hpp>
#include <zse/kernels/cpu/linear.hpp>

namespace zse::inline v1 {
namespace kernels {
namespace HWY_NAMESPACE {

extern template void linear<weights::f32>(const Matrix&, const LinearTile&) noexcept;
extern template void linear<weights::f16>(const Matrix&, const LinearTile&) noexcept;
extern template void linear<weights::bf16>(const Matrix&, const LinearTile&) noexcept;
extern template void linear<weights::q4_0>(const Matrix&, const LinearTile&) noexcept;
extern template void linear<weights::q4_1>(const Matrix&, const LinearTile&) noexcept;
extern template void linear<weights::q8_0>(const Matrix&, const LinearTile&) noexcept;
extern template void linear<weights::int8<32>>(const Matrix&, const LinearTile&) noexcept;
extern template void linear<weights::nf4<64>>(const Matrix&, const LinearTile&) noexcept;

}  // namespace HWY_NAMESPACE
}  // namespace kernels
}  // namespace zse::inline v1

extern template struct zse::attention::flash<256>;
