// SPDX-License-Identifier: Apache-2.0
// The queue of a device, and who puts kernels into it. Knows no CUDA, so that host files can enqueue.
#pragma once

#include <zse/exec/cuda/thread.hpp>

namespace zse::inline v1 {
namespace exec {
namespace cuda {

/// Work of a device in order. The first error sticks, as CUDA's do: nothing is enqueued after it, and the engine closes.
class Stream {
public:
    Stream() = default;
    explicit Stream(void* handle) noexcept : handle_(handle) {}

    /// A cudaStream_t, or null where the host stands in for a device.
    [[nodiscard]] void* handle() const noexcept { return handle_; }
    [[nodiscard]] bool failed() const noexcept { return code_ != 0; }
    [[nodiscard]] int code() const noexcept { return code_; }
    /// What the driver said; empty where nothing failed.
    [[nodiscard]] const char* why() const noexcept { return why_; }
    /// `why` lives as long as the program.
    void fail(int code, const char* why) noexcept {
        if (code_ != 0) return;
        code_ = code;
        why_ = why;
    }
    /// Kernels enqueued so far.
    [[nodiscard]] std::uint64_t kernels() const noexcept { return kernels_; }
    void count() noexcept { ++kernels_; }

private:
    void* handle_ = nullptr;
    int code_ = 0;
    const char* why_ = "";
    std::uint64_t kernels_ = 0;
};

/// Launches on a GPU. Declared here for the files of the host; native.cuh defines it, and files that nvcc compiles
/// instantiate it for each kernel of a program.
struct Native {
    template <Kernel K>
    static void launch(Stream& stream, const K& kernel) noexcept;
};

}  // namespace cuda
}  // namespace exec
}  // namespace zse::inline v1
