// SPDX-License-Identifier: Apache-2.0
// Compiles what kernels_elsewhere.hpp declares. Include it in exactly one file of a program.
#pragma once

#include <zse/engine/kernels_elsewhere.hpp>

namespace zse::inline v1 {
namespace kernels {
namespace HWY_NAMESPACE {

template void linear<weights::f32>(const Matrix&, const LinearTile&) noexcept;
template void linear<weights::f16>(const Matrix&, const LinearTile&) noexcept;
template void linear<weights::bf16>(const Matrix&, const LinearTile&) noexcept;
template void linear<weights::q4_0>(const Matrix&, const LinearTile&) noexcept;
template void linear<weights::q4_1>(const Matrix&, const LinearTile&) noexcept;
template void linear<weights::q8_0>(const Matrix&, const LinearTile&) noexcept;
template void linear<weights::int8<32>>(const Matrix&, const LinearTile&) noexcept;
template void linear<weights::nf4<64>>(const Matrix&, const LinearTile&) noexcept;

}  // namespace HWY_NAMESPACE
}  // namespace kernels
}  // namespace zse::inline v1

template struct zse::attention::flash<256>;
