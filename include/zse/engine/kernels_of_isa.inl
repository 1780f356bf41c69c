// SPDX-License-Identifier: Apache-2.0
// The kernels of the closed sets of codecs for one instruction set, declared (with ZSE_KERNELS_EXTERN as extern) or
// compiled (with it empty).
namespace zse::inline v1 {
namespace kernels {
namespace ZSE_ISA {
ZSE_KERNELS_EXTERN template void multiply<weights::f32>(const LinearTile&) noexcept;
ZSE_KERNELS_EXTERN template void multiply<weights::f16>(const LinearTile&) noexcept;
ZSE_KERNELS_EXTERN template void multiply<weights::bf16>(const LinearTile&) noexcept;
ZSE_KERNELS_EXTERN template void multiply<weights::q4_0>(const LinearTile&) noexcept;
ZSE_KERNELS_EXTERN template void multiply<weights::q4_1>(const LinearTile&) noexcept;
ZSE_KERNELS_EXTERN template void multiply<weights::q8_0>(const LinearTile&) noexcept;
ZSE_KERNELS_EXTERN template void multiply<weights::int8<32>>(const LinearTile&) noexcept;
ZSE_KERNELS_EXTERN template void multiply<weights::nf4<64>>(const LinearTile&) noexcept;
}  // namespace ZSE_ISA
}  // namespace kernels

namespace attention {
namespace ZSE_ISA {
#define ZSE_KEYS(...) \
    ZSE_KERNELS_EXTERN template void score<__VA_ARGS__>(const KeyBlock&, const std::byte*, std::size_t, float*, std::size_t) noexcept
#define ZSE_VALUES(...)                                                                                     \
    ZSE_KERNELS_EXTERN template void accumulate<__VA_ARGS__>(const ValuePages&, const float*, std::size_t, std::size_t, \
                                                       float*, std::size_t) noexcept
ZSE_KEYS(kv::f32);
ZSE_KEYS(kv::f16);
ZSE_KEYS(kv::fp8<32>);
ZSE_KEYS(kv::int8<32>);
ZSE_KEYS(kv::int4<32>);
ZSE_KEYS(kv::int4<32, kv::plain>);
ZSE_VALUES(kv::f32);
ZSE_VALUES(kv::f16);
ZSE_VALUES(kv::fp8<32>);
ZSE_VALUES(kv::int8<32>);
ZSE_VALUES(kv::int4<32>);
ZSE_VALUES(kv::int4<32, kv::plain>);
#undef ZSE_KEYS
#undef ZSE_VALUES
}  // namespace ZSE_ISA
}  // namespace attention
}  // namespace zse::inline v1
