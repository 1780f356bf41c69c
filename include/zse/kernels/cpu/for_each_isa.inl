// SPDX-License-Identifier: Apache-2.0
// Includes ZSE_ISA_BODY once for each instruction set, with ZSE_ISA naming its namespace, and with the compiler
// allowed to use its instructions up to the end of the body. A body may be included by several headers; it opens
// its own namespaces and ends them.
//
// Such regions are what lets a program that is built with plain -O2 hold all kernels. What a body calls of the
// other headers is compiled outside of the regions, for the least processor.
#if defined(__clang__)
#define ZSE_ISA_BEGIN(features) \
    ZSE_ISA_PRAGMA(clang attribute push(__attribute__((target(features))), apply_to = function))
#define ZSE_ISA_END ZSE_ISA_PRAGMA(clang attribute pop)
#else
// g++ 12 takes the undefined registers that its own AVX-512 intrinsics begin with for a defect.
#define ZSE_ISA_BEGIN(features)                    \
    ZSE_ISA_PRAGMA(GCC push_options)               \
    ZSE_ISA_PRAGMA(GCC target(features))           \
    ZSE_ISA_PRAGMA(GCC diagnostic push)            \
    ZSE_ISA_PRAGMA(GCC diagnostic ignored "-Wmaybe-uninitialized") \
    ZSE_ISA_PRAGMA(GCC diagnostic ignored "-Wuninitialized")
#define ZSE_ISA_END ZSE_ISA_PRAGMA(GCC diagnostic pop) ZSE_ISA_PRAGMA(GCC pop_options)
#endif
#define ZSE_ISA_PRAGMA(tokens) _Pragma(#tokens)
#define ZSE_INLINE [[gnu::always_inline]] inline

#define ZSE_ISA portable
#define ZSE_ISA_VECTORS <zse/kernels/cpu/vector_portable.inl>
#include ZSE_ISA_BODY
#undef ZSE_ISA
#undef ZSE_ISA_VECTORS

#if defined(__x86_64__)
#define ZSE_ISA avx2
#define ZSE_ISA_VECTORS <zse/kernels/cpu/vector_avx2.inl>
ZSE_ISA_BEGIN("avx2,fma,f16c,bmi2")
#include ZSE_ISA_BODY
ZSE_ISA_END
#undef ZSE_ISA
#undef ZSE_ISA_VECTORS

#define ZSE_ISA avx512
#define ZSE_ISA_VECTORS <zse/kernels/cpu/vector_avx512.inl>
ZSE_ISA_BEGIN("avx2,fma,f16c,bmi2,avx512f,avx512bw,avx512dq,avx512vl")
#include ZSE_ISA_BODY
ZSE_ISA_END
#undef ZSE_ISA
#undef ZSE_ISA_VECTORS

#define ZSE_ISA avx512_vnni
#define ZSE_ISA_VECTORS <zse/kernels/cpu/vector_avx512.inl>
#define ZSE_ISA_VNNI
ZSE_ISA_BEGIN("avx2,fma,f16c,bmi2,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")
#include ZSE_ISA_BODY
ZSE_ISA_END
#undef ZSE_ISA
#undef ZSE_ISA_VNNI
#undef ZSE_ISA_VECTORS
#elif defined(__aarch64__)
#define ZSE_ISA neon
#define ZSE_ISA_VECTORS <zse/kernels/cpu/vector_neon.inl>
#if defined(__clang__)
ZSE_ISA_BEGIN("dotprod,fullfp16")
#else
ZSE_ISA_BEGIN("arch=armv8.2-a+dotprod+fp16")
#endif
#include ZSE_ISA_BODY
ZSE_ISA_END
#undef ZSE_ISA
#undef ZSE_ISA_VECTORS
#endif

#undef ZSE_ISA_BODY
#undef ZSE_INLINE
#undef ZSE_ISA_BEGIN
#undef ZSE_ISA_END
#undef ZSE_ISA_PRAGMA
