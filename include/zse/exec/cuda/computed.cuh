// SPDX-License-Identifier: Apache-2.0
// What CUB's device-wide primitives need beside their kernels: iterators that compute, and how their errors and their
// temporary bytes are passed on. Only nvcc reads this.
#pragma once

#include <zse/core/error.hpp>
#include <zse/exec/cuda/stream.hpp>

#include <cuda_runtime.h>

#include <cstddef>
#include <iterator>

namespace zse::inline v1 {
namespace exec {
namespace gpu {

/// f(0), f(1), ... without an array.
template <class F>
class Computed {
public:
    using iterator_category = std::random_access_iterator_tag;
    using difference_type = std::ptrdiff_t;
    using value_type = decltype(F{}(difference_type{}));
    using pointer = const value_type*;
    using reference = value_type;

    Computed() = default;
    __host__ __device__ explicit Computed(F f, difference_type at = 0) : f_(f), at_(at) {}

    __host__ __device__ value_type operator*() const { return f_(at_); }
    __host__ __device__ value_type operator[](difference_type i) const { return f_(at_ + i); }
    __host__ __device__ Computed operator+(difference_type i) const { return Computed(f_, at_ + i); }
    __host__ __device__ Computed operator-(difference_type i) const { return Computed(f_, at_ - i); }
    __host__ __device__ difference_type operator-(const Computed& other) const { return at_ - other.at_; }
    __host__ __device__ Computed& operator+=(difference_type i) {
        at_ += i;
        return *this;
    }
    __host__ __device__ Computed& operator++() { return *this += 1; }
    __host__ __device__ bool operator==(const Computed& other) const { return at_ == other.at_; }
    __host__ __device__ bool operator!=(const Computed& other) const { return at_ != other.at_; }

private:
    F f_{};
    difference_type at_ = 0;
};

/// A primitive's temporary bytes, taken once at open: the primitives ask for no more for fewer items.
struct CubRoom {
    std::byte* base = nullptr;
    std::size_t bytes = 0;
};

/// The bytes that `primitive(temporary, bytes, stream)` asks for. Throws internal where CUB cannot say.
template <class Primitive>
std::size_t cub_bytes(const Primitive& primitive) {
    std::size_t bytes = 0;
    const cudaError_t error = primitive(nullptr, bytes, cudaStream_t{});
    if (error != cudaSuccess) {
        throw Error(ErrorCode::internal,
                    text("CUB cannot say what memory it needs: ", cudaGetErrorString(error)));
    }
    return bytes;
}

/// Enqueues a primitive; it allocates nothing, and so may be captured in a graph.
template <class Primitive>
void cub_enqueue(Stream& stream, CubRoom room, const Primitive& primitive) noexcept {
    if (stream.failed()) return;
    const cudaError_t error = primitive(room.base, room.bytes, static_cast<cudaStream_t>(stream.handle()));
    if (error != cudaSuccess) return stream.fail(static_cast<int>(error), cudaGetErrorString(error));
    stream.count();
}

}  // namespace gpu
}  // namespace exec
}  // namespace zse::inline v1
