// SPDX-License-Identifier: Apache-2.0
// The inner loops of attention by KV codec, over keys and values as pages hold them; bound once at open.
#pragma once

#include <zse/attention/partial.hpp>
#include <zse/kernels/cpu/codes.hpp>
#include <zse/kernels/rows.hpp>
#include <zse/kv/kernels.hpp>
#include <zse/kv/page.hpp>

namespace zse::inline v1 {
namespace attention {
namespace cuda {
struct CacheLaunches;
}

/// The keys of 16 tokens of one head, interleaved as in a page (see kv::PageLayout).
struct KeyBlock {
    static constexpr std::size_t tokens = 16;

    const std::byte* codes = nullptr;
    const std::byte* scales = nullptr;
    std::size_t piece_stride = 0;  ///< bytes from one piece of the 16 tokens to the next
    std::size_t scale_stride = 0;  ///< the same of scales
    std::size_t dim = 0;
};

/// Queries against keys of one codec.
struct KeyKernels {
    /// Bytes of a query of `dim` values in the form that score() reads; a multiple of 4.
    Bytes (*query_bytes)(std::size_t dim) noexcept;
    void (*prepare)(const float* query, std::size_t dim, std::byte* prepared) noexcept;
    /// scores[q][t] = query q . key t, for the 16 tokens of a block; queries are query_bytes() apart, their scores
    /// `stride` floats.
    void (*score)(const KeyBlock& keys, const std::byte* queries, std::size_t count, float* scores,
                  std::size_t stride) noexcept;
};

/// The values of one head in consecutive pages, from the first token of the first page on.
struct ValuePages {
    const std::byte* const* codes = nullptr;  ///< for each page, the codes of its first token
    std::size_t scales_at = 0;                ///< bytes from a page's codes to its scales
    std::size_t page_tokens = 0;
    std::size_t tokens = 0;  ///< in all
    std::size_t dim = 0;
    /// Where not null: for each page, `ahead_bytes` that will be read next, to be asked for meanwhile.
    const std::byte* const* ahead = nullptr;
    std::size_t ahead_bytes = 0;
};

/// Reads a byte that will be wanted soon, and waits for nothing. Processors drop prefetches of pages of memory whose
/// address they have to look up first; a read looks it up.
inline void touch(const std::byte* at) noexcept {
    __asm__ volatile("" ::"r"(*static_cast<const volatile std::byte*>(at)));
}

/// Weights against values of one codec.
struct ValueKernels {
    /// values[q] += sum of weights[q][t] * value t, in order of t; weights are `weight_stride` floats from query to
    /// query, values `value_stride`, a multiple of 16 that holds dim. Weights have room up to a multiple of 16.
    void (*accumulate)(const ValuePages& pages, const float* weights, std::size_t weight_stride,
                       std::size_t queries, float* values, std::size_t value_stride) noexcept;
};

/// What does not depend on a codec.
struct SoftmaxKernels {
    /// Replaces scores by exp(score - greatest) and returns the state; `count` scores, room up to a multiple of 16.
    Partial (*softmax)(float* scores, std::size_t count) noexcept;
    /// Merges `later`, whose tokens follow those of `state`. Values are `[width]`, a multiple of 16.
    void (*merge)(Partial& state, float* value, const Partial& later, const float* later_value,
                  std::size_t width) noexcept;
};

/// All that flash attention needs of a cache's codecs and an instruction set.
struct CacheKernels {
    const KeyKernels* keys = nullptr;
    const ValueKernels* values = nullptr;
    const SoftmaxKernels* softmax = nullptr;
    const kernels::RowKernels* rows = nullptr;
    const cuda::CacheLaunches* device = nullptr;  ///< where a GPU computes; the others are null then
};

}  // namespace attention
}  // namespace zse::inline v1

#define ZSE_ISA_BODY <zse/attention/cpu/flash.inl>
#include <zse/kernels/cpu/for_each_isa.inl>

namespace zse::inline v1 {
namespace attention {

/// The kernels for keys in K and values in V on an instruction set.
template <kv::KvCodec K, kv::KvCodec V>
CacheKernels cache_kernels(kernels::Isa isa) noexcept {
    const auto of = [&](const auto& keys, const auto& values, const auto& softmax) {
        return CacheKernels{&keys, &values, &softmax, kernels::row_kernels(isa)};
    };
    switch (isa) {
#if defined(__x86_64__)
        case kernels::Isa::avx2:
            return of(avx2::key_kernels<K>, avx2::value_kernels<V>, avx2::softmax_kernels);
        case kernels::Isa::avx512:
            return of(avx512::key_kernels<K>, avx512::value_kernels<V>, avx512::softmax_kernels);
        case kernels::Isa::avx512_vnni:
            return of(avx512_vnni::key_kernels<K>, avx512_vnni::value_kernels<V>,
                      avx512_vnni::softmax_kernels);
#elif defined(__aarch64__)
        case kernels::Isa::neon:
            return of(neon::key_kernels<K>, neon::value_kernels<V>, neon::softmax_kernels);
#endif
        default: return of(portable::key_kernels<K>, portable::value_kernels<V>, portable::softmax_kernels);
    }
}

}  // namespace attention
}  // namespace zse::inline v1
