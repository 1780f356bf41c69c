// SPDX-License-Identifier: Apache-2.0
// The vocabulary of kernels on a GPU: CUB and PTX behind it. Only nvcc reads this.
#pragma once

#include <zse/exec/cuda/budget.hpp>
#include <zse/exec/cuda/stream.hpp>

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>
#include <cuda_runtime.h>
#include <cub/block/block_radix_sort.cuh>
#include <cub/block/block_reduce.cuh>
#include <cub/block/block_scan.cuh>

namespace zse::inline v1 {
namespace exec {
namespace gpu {

/// One thread of a GPU.
class NativeThread {
public:
    static constexpr bool emulated = false;

    /// Elements of shared memory.
    template <class E>
    struct Shared {
        E* first;
        ZSE_DEVICE E& operator[](std::size_t i) const { return first[i]; }
        ZSE_DEVICE Shared from(std::size_t i) const { return {first + i}; }
        template <class F>
        ZSE_DEVICE Shared<F> as() const {
            return {reinterpret_cast<F*>(first)};
        }
    };

    ZSE_DEVICE unsigned thread() const { return threadIdx.x; }
    ZSE_DEVICE unsigned lane() const { return threadIdx.x % warp_threads; }
    ZSE_DEVICE unsigned warp() const { return threadIdx.x / warp_threads; }
    ZSE_DEVICE Index3 block() const { return {blockIdx.x, blockIdx.y, blockIdx.z}; }
    ZSE_DEVICE Index3 blocks() const { return {gridDim.x, gridDim.y, gridDim.z}; }

    ZSE_DEVICE void sync() const { __syncthreads(); }
    ZSE_DEVICE void sync_warp() const { __syncwarp(); }
    ZSE_DEVICE void fence() const { __threadfence(); }

    template <class E>
    ZSE_DEVICE Shared<E> shared(std::size_t offset, std::size_t /*count*/) const {
        extern __shared__ __align__(128) std::byte dynamic_shared[];
        return {reinterpret_cast<E*>(dynamic_shared + offset)};
    }

    template <class V>
    ZSE_DEVICE V shuffle(V v, unsigned lane) const {
        return __shfl_sync(all, v, static_cast<int>(lane));
    }
    template <class V>
    ZSE_DEVICE V shuffle_xor(V v, unsigned mask) const {
        return __shfl_xor_sync(all, v, static_cast<int>(mask));
    }
    template <class V>
    ZSE_DEVICE V shuffle_down(V v, unsigned by) const {
        return __shfl_down_sync(all, v, by);
    }
    ZSE_DEVICE std::uint32_t ballot(bool v) const { return __ballot_sync(all, v); }
    template <class V, class Op>
    ZSE_DEVICE V warp_reduce(V v, Op op) const {
        ZSE_UNROLL
        for (unsigned mask = warp_threads / 2; mask > 0; mask /= 2) v = op(v, shuffle_xor(v, mask));
        return v;
    }
    template <unsigned Threads, class V, class Op>
    ZSE_DEVICE V block_reduce(V v, Op op) const {
        using Reduce = cub::BlockReduce<V, Threads>;
        __shared__ typename Reduce::TempStorage room;
        __shared__ V result;
        const V reduced = Reduce(room).Reduce(v, op);
        if (threadIdx.x == 0) result = reduced;
        __syncthreads();
        const V all_get = result;
        __syncthreads();
        return all_get;
    }
    template <unsigned Threads, class V>
    ZSE_DEVICE V block_scan(V v, V& total) const {
        using Scan = cub::BlockScan<V, Threads>;
        __shared__ typename Scan::TempStorage room;
        V before{};
        Scan(room).ExclusiveSum(v, before, total);
        __syncthreads();
        return before;
    }
    template <unsigned Threads, unsigned Items, class K, class V>
    ZSE_DEVICE void block_sort_descending(K (&keys)[Items], V (&values)[Items]) const {
        using Sort = cub::BlockRadixSort<K, Threads, Items, V>;
        __shared__ typename Sort::TempStorage room;
        Sort(room).SortDescending(keys, values);
        __syncthreads();
    }

    template <class V>
    ZSE_DEVICE V load(const V* p) const {
        if constexpr (sizeof(V) == 16) {
            const uint4 v = __ldg(reinterpret_cast<const uint4*>(p));
            return __builtin_bit_cast(V, v);
        } else if constexpr (sizeof(V) == 8) {
            const uint2 v = __ldg(reinterpret_cast<const uint2*>(p));
            return __builtin_bit_cast(V, v);
        } else if constexpr (sizeof(V) == 4) {
            const unsigned v = __ldg(reinterpret_cast<const unsigned*>(p));
            return __builtin_bit_cast(V, v);
        } else if constexpr (sizeof(V) == 2) {
            const unsigned short v = __ldg(reinterpret_cast<const unsigned short*>(p));
            return __builtin_bit_cast(V, v);
        } else {
            return *p;
        }
    }
    template <class V>
    ZSE_DEVICE V load_once(const V* p) const {
        if constexpr (sizeof(V) == 16) {
            uint4 v;
            asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
                         : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                         : "l"(p));
            return __builtin_bit_cast(V, v);
        } else if constexpr (sizeof(V) == 8) {
            uint2 v;
            asm volatile("ld.global.nc.L1::no_allocate.v2.u32 {%0, %1}, [%2];"
                         : "=r"(v.x), "=r"(v.y)
                         : "l"(p));
            return __builtin_bit_cast(V, v);
        } else {
            return load(p);
        }
    }
    template <class V>
    ZSE_DEVICE V load_fresh(const V* p) const {
        static_assert(sizeof(V) == 4 || sizeof(V) == 8 || sizeof(V) == 16);
        if constexpr (sizeof(V) == 16) {
            return __builtin_bit_cast(V, __ldcg(reinterpret_cast<const uint4*>(p)));
        } else if constexpr (sizeof(V) == 8) {
            return __builtin_bit_cast(V, __ldcg(reinterpret_cast<const uint2*>(p)));
        } else {
            return __builtin_bit_cast(V, __ldcg(reinterpret_cast<const unsigned*>(p)));
        }
    }
    ZSE_DEVICE float atomic_add(float* p, float v) const { return atomicAdd(p, v); }
    ZSE_DEVICE std::uint32_t atomic_add(std::uint32_t* p, std::uint32_t v) const { return atomicAdd(p, v); }
    ZSE_DEVICE std::uint32_t atomic_add(Shared<std::uint32_t> s, std::size_t i, std::uint32_t v) const {
        return atomicAdd(s.first + i, v);
    }
    ZSE_DEVICE std::uint32_t atomic_or(Shared<std::uint32_t> s, std::size_t i, std::uint32_t v) const {
        return atomicOr(s.first + i, v);
    }
    ZSE_DEVICE std::uint32_t atomic_max(std::uint32_t* p, std::uint32_t v) const { return atomicMax(p, v); }

    ZSE_DEVICE void copy_async(Shared<Chunk> to, const void* from, bool valid = true) const {
        const unsigned bytes = valid ? 16 : 0;  // the rest is filled with zeros
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address(to.first)), "l"(from),
                     "r"(bytes)
                     : "memory");
    }
    ZSE_DEVICE void commit() const { asm volatile("cp.async.commit_group;" ::: "memory"); }
    template <unsigned N>
    ZSE_DEVICE void wait() const {
        asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
    }

    ZSE_DEVICE void mma(FragmentD& d, const FragmentA& a, const FragmentB& b) const {
        asm volatile(
            "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
            "{%0, %1, %2, %3};"
            : "+f"(d.values[0]), "+f"(d.values[1]), "+f"(d.values[2]), "+f"(d.values[3])
            : "r"(a.pairs[0]), "r"(a.pairs[1]), "r"(a.pairs[2]), "r"(a.pairs[3]), "r"(b.pairs[0]),
              "r"(b.pairs[1]));
    }
    ZSE_DEVICE FragmentD product(const FragmentA& a, const FragmentB& b) const {
        FragmentD d;
        asm volatile(
            "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
            "{%10, %10, %10, %10};"
            : "=f"(d.values[0]), "=f"(d.values[1]), "=f"(d.values[2]), "=f"(d.values[3])
            : "r"(a.pairs[0]), "r"(a.pairs[1]), "r"(a.pairs[2]), "r"(a.pairs[3]), "r"(b.pairs[0]),
              "r"(b.pairs[1]), "f"(0.0f));
        return d;
    }
    ZSE_DEVICE void mma_bf16(FragmentD& d, const FragmentA& a, const FragmentB& b) const {
        asm volatile(
            "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, "
            "%9}, {%0, %1, %2, %3};"
            : "+f"(d.values[0]), "+f"(d.values[1]), "+f"(d.values[2]), "+f"(d.values[3])
            : "r"(a.pairs[0]), "r"(a.pairs[1]), "r"(a.pairs[2]), "r"(a.pairs[3]), "r"(b.pairs[0]),
              "r"(b.pairs[1]));
    }
    ZSE_DEVICE FragmentA ldmatrix(Shared<Chunk> row) const {
        FragmentA r;
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(r.pairs[0]), "=r"(r.pairs[1]), "=r"(r.pairs[2]), "=r"(r.pairs[3])
                     : "r"(address(row.first))
                     : "memory");
        return r;
    }
    ZSE_DEVICE FragmentA ldmatrix_transposed(Shared<Chunk> row) const {
        FragmentA r;
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(r.pairs[0]), "=r"(r.pairs[1]), "=r"(r.pairs[2]), "=r"(r.pairs[3])
                     : "r"(address(row.first))
                     : "memory");
        return r;
    }

    ZSE_DEVICE static std::uint32_t to_halves(float low, float high) {
        return bits(__floats2half2_rn(low, high));
    }
    ZSE_DEVICE static std::uint32_t to_bfloats(float low, float high) {
        const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
        return reinterpret_cast<const std::uint32_t&>(pair);
    }
    ZSE_DEVICE static float low(std::uint32_t pair) { return __low2float(halves(pair)); }
    ZSE_DEVICE static float high(std::uint32_t pair) { return __high2float(halves(pair)); }
    ZSE_DEVICE static std::uint32_t half_fma(std::uint32_t a, std::uint32_t b, std::uint32_t c) {
        return bits(__hfma2(halves(a), halves(b), halves(c)));
    }
    ZSE_DEVICE static std::uint32_t half_add(std::uint32_t a, std::uint32_t b) {
        return bits(__hadd2_rn(halves(a), halves(b)));
    }
    ZSE_DEVICE static std::uint32_t half_mul(std::uint32_t a, std::uint32_t b) {
        return bits(__hmul2_rn(halves(a), halves(b)));
    }
    ZSE_DEVICE static std::uint32_t e4m3_to_halves(std::uint16_t codes) {
        const __half2_raw pair = __nv_cvt_fp8x2_to_halfraw2(codes, __NV_E4M3);
        return pair.x | static_cast<std::uint32_t>(pair.y) << 16;
    }
    ZSE_DEVICE static std::uint32_t pick_bytes(std::uint32_t a, std::uint32_t b, std::uint32_t selector) {
        return __byte_perm(a, b, selector);
    }
    ZSE_DEVICE static std::uint32_t pick_bytes_or_signs(std::uint32_t a, std::uint32_t b,
                                                        std::uint32_t selector) {
        std::uint32_t r;
        asm("prmt.b32 %0, %1, %2, %3;" : "=r"(r) : "r"(a), "r"(b), "r"(selector));
        return r;
    }
    ZSE_DEVICE static float nearest(float v) { return rintf(v); }
    ZSE_DEVICE static float exp(float v) { return ::expf(v); }
    ZSE_DEVICE static double log(double v) { return ::log(v); }
    ZSE_DEVICE static float exp2(float v) {
        float r;
        asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(v));
        return r;
    }
    ZSE_DEVICE static float log2(float v) { return __log2f(v); }
    ZSE_DEVICE static float rsqrt(float v) { return rsqrtf(v); }

private:
    static constexpr unsigned all = 0xffffffffu;

    ZSE_DEVICE static __half2 halves(std::uint32_t pair) { return reinterpret_cast<const __half2&>(pair); }
    ZSE_DEVICE static std::uint32_t bits(__half2 pair) {
        return reinterpret_cast<const std::uint32_t&>(pair);
    }
    ZSE_DEVICE static unsigned address(const void* shared) {
        return static_cast<unsigned>(__cvta_generic_to_shared(shared));
    }
};

template <Kernel K>
__global__ void __launch_bounds__(K::threads, blocks_per_sm<K>())
    run_kernel(const __grid_constant__ K kernel) {
    NativeThread thread;
    kernel(thread);
}

/// Shared memory that a kernel gets unasked.
inline constexpr unsigned unasked_shared_bytes = 48 * 1024;

template <Kernel K>
void Native::launch(Stream& stream, const K& kernel) noexcept {
    const Launch l = kernel.launch();
    if (stream.failed() || l.blocks.x == 0 || l.blocks.y == 0 || l.blocks.z == 0) return;
    if (l.shared_bytes > unasked_shared_bytes) {
        // Every time, since it belongs to a context, and a program may have several; it costs less than the launch.
        const cudaError_t error = cudaFuncSetAttribute(
            run_kernel<K>, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(l.shared_bytes));
        if (error != cudaSuccess) return stream.fail(static_cast<int>(error), cudaGetErrorString(error));
    }
    stream.count();
    run_kernel<K><<<dim3(l.blocks.x, l.blocks.y, l.blocks.z), l.threads, l.shared_bytes,
                    static_cast<cudaStream_t>(stream.handle())>>>(kernel);
    const cudaError_t error = cudaGetLastError();
    if (error != cudaSuccess) stream.fail(static_cast<int>(error), cudaGetErrorString(error));
}

}  // namespace gpu
}  // namespace exec
}  // namespace zse::inline v1
