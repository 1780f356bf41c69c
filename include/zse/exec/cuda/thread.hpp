// SPDX-License-Identifier: Apache-2.0
// What a kernel is, and the vocabulary through which it reaches the hardware. Knows no CUDA: a GPU and the host each
// give the vocabulary a body of their own.
#pragma once

#include <zse/core/bytes.hpp>

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <type_traits>

/// Before functions that run on a GPU where nvcc compiles them, and on the host where it does not.
#if defined(__CUDACC__)
#define ZSE_DEVICE __device__
/// Before a loop whose trips are known: its body is repeated, so that arrays in registers are indexed by constants.
#define ZSE_UNROLL _Pragma("unroll")
/// Before a loop whose body is repeated so many times, a constant expression; 1 keeps it short, and its registers few.
#define ZSE_UNROLL_BY(count) ZSE_DETAIL_PRAGMA(unroll count)
#define ZSE_DETAIL_PRAGMA(words) _Pragma(#words)
#else
#define ZSE_DEVICE
#define ZSE_UNROLL
#define ZSE_UNROLL_BY(count)
#endif

namespace zse::inline v1 {
namespace exec {
namespace gpu {

inline constexpr unsigned warp_threads = 32;
/// e^v = 2^(v log2_e): GPUs have powers of two.
inline constexpr float log2_e = 1.44269504088896f;

/// Position or extent in a grid of blocks.
struct Index3 {
    unsigned x = 1;
    unsigned y = 1;
    unsigned z = 1;
};

/// How a kernel is launched: blocks of a grid, threads of each, dynamic shared bytes of each.
struct Launch {
    Index3 blocks;
    unsigned threads = 0;
    unsigned shared_bytes = 0;
};

/// What a kernel may take of a multiprocessor, compared with what the compiler says that it takes: see budget.hpp. A
/// kernel states it as `static constexpr exec::gpu::Budget budget{.registers = 128}`.
struct Budget {
    unsigned registers = 0;         ///< of a thread; 0: what `threads` and `blocks_per_sm` leave
    unsigned shared_bytes = 2'048;  ///< beyond Launch::shared_bytes; a few reductions of the block fit
    unsigned stack_bytes = 0;       ///< of a thread, in local memory; a register that is spilled is refused
};

/// 16 bytes: the widest load and the unit of asynchronous copies.
struct alignas(16) Chunk {
    std::uint32_t words[4];
};
struct alignas(8) HalfChunk {
    std::uint32_t words[2];
};

/// Four 16-bit floats by a tensor core: d += a b, with a `[16, 16]` (rows of a are rows of d), b `[16, 8]`, d
/// `[16, 8]` float32. Lane l holds, with g = l / 4 and c = 2 * (l % 4), pairs of halves (the lower index in the lower half):
///   a[0] = (g, c..c+1), a[1] = (g + 8, c..c+1), a[2] = (g, c+8..c+9), a[3] = (g + 8, c+8..c+9)
///   b[0] = (c..c+1, g), b[1] = (c+8..c+9, g)
///   d[0], d[1] = (g, c), (g, c+1); d[2], d[3] = (g + 8, c), (g + 8, c+1)
/// (PTX, mma.m16n8k16.)
struct FragmentA {
    std::uint32_t pairs[4];
};
struct FragmentB {
    std::uint32_t pairs[2];
};
struct FragmentD {
    float values[4];
};

/// Ways to combine two values in a reduction.
struct Sum {
    template <class V>
    ZSE_DEVICE constexpr V operator()(V a, V b) const noexcept {
        return a + b;
    }
};
struct Greatest {
    template <class V>
    ZSE_DEVICE constexpr V operator()(V a, V b) const noexcept {
        return b > a ? b : a;
    }
};

/// The vocabulary: one thread of a block, as a kernel sees it. Everything that the threads of a warp or a block do
/// together has to be called by all of them.
///
///   thread(), block(), blocks()        this thread's number, its block's place, and the grid's extent
///   lane(), warp()                     thread() % 32 and thread() / 32
///   sync(), sync_warp()                wait for the block, for the warp, and order memory; shuffles, votes and mma wait
///                                      for the warp too, but order nothing
///   shared<E>(offset, count)           E's at `offset` bytes of the block's dynamic shared memory: s[i], s.from(i),
///                                      s.as<F>(); no reference to an element outlives the expression
///   shuffle(v, lane), shuffle_xor(v, mask), shuffle_down(v, by), ballot(bool)    values of other lanes, 4 or 8 bytes
///   warp_reduce(v, op)                 to all lanes, in a fixed order
///   block_reduce<Threads>(v, op)       to all threads, in a fixed order
///   block_scan<Threads>(v, total)      sum of the v of lower threads; total in all threads
///   block_sort_descending<Threads, Items>(keys, values)  Items of each thread, blocked: thread 0 has the greatest
///   load(p)                            memory that nothing writes while the kernel runs
///   load_once(p)                       the same, read once: it does not stay in caches
///   load_fresh(p)                      memory that other blocks have written since the kernel began; 4, 8 or 16 bytes
///   atomic_add(p, v), atomic_max(p, v) on global memory; the old value
///   atomic_add(s, i, v), atomic_or(s, i, v)    on element i of shared 32-bit numbers; the old value
///   fence()                            writes before it are seen by other blocks before writes after it
///   copy_async(s, p, valid)            16 bytes from global to shared memory, or zeros, behind the thread's back;
///   commit(), wait<N>()                close a group of such copies; wait until at most N groups are under way.
///                                      Others see them after their own sync().
///   mma(d, a, b)                       see FragmentA; product(a, b) is the same onto zeros, mma_bf16 of bfloat16
///   ldmatrix(s), ldmatrix_transposed(s)    four 8 x 8 matrices of halves, whose rows of 16 bytes begin where lanes 0-7,
///                                      8-15, 16-23, 24-31 say; lane l gets the pair at (l / 4, 2 * (l % 4)) of each, or
///                                      of its transpose
///   to_halves(low, high), low(pair), high(pair)          rounded to nearest even; exact
///   to_bfloats(low, high)              the same of bfloat16
///   half_fma(a, b, c), half_add(a, b), half_mul(a, b)    pairs of halves
///   e4m3_to_halves(two codes)
///   pick_bytes(a, b, selector)         a word of four bytes of a (0 to 3) and b (4 to 7): byte i is the one that the
///                                      selector's bits 4 i to 4 i + 2 name
///   pick_bytes_or_signs(a, b, selector)    the same, but where bit 4 i + 3 is set: the sign bit of that byte, eight times
///   nearest(v)                         the whole number, ties to even; a product before it is rounded on its own
///   exp2(v), log2(v), rsqrt(v)         to 2 units in the last place or so
///   exp(v), log(double)                to 1 unit, and slower
// clang-format off
template <class T>
concept DeviceThread = requires(T& t, float v, std::uint32_t u, FragmentA a, FragmentB b, FragmentD d) {
    { T::emulated } -> std::convertible_to<bool>;
    { t.thread() } -> std::same_as<unsigned>;
    { t.block() } -> std::same_as<Index3>;
    { t.blocks() } -> std::same_as<Index3>;
    { t.shuffle_xor(v, u) } -> std::same_as<float>;
    { t.to_halves(v, v) } -> std::same_as<std::uint32_t>;
    t.sync();
    t.sync_warp();
    t.mma(d, a, b);
};

/// A kernel: its arguments as trivially copyable members, how it is launched, and what each thread does. `threads` is
/// the most that a block has.
template <class K>
concept Kernel = std::is_trivially_copyable_v<K> && requires(const K& kernel) {
    { K::threads } -> std::convertible_to<unsigned>;
    { kernel.launch() } -> std::same_as<Launch>;
};
// clang-format on

}  // namespace gpu
}  // namespace exec
}  // namespace zse::inline v1
