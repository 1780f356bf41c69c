// SPDX-License-Identifier: Apache-2.0
// The queue of a device, and who puts kernels into it. Knows no CUDA, so that host files can enqueue.
#pragma once

#include <zse/exec/cuda/thread.hpp>

#include <functional>
#include <vector>

namespace zse::inline v1 {
namespace exec {
namespace gpu {

class Stream;
/// What was enqueued while a host that stands in for a device captured a graph.
using Recording = std::vector<std::function<void(Stream&)>>;

/// Bytes at the begin of a stream's workspace that are zero between operations: who counts there leaves zeros.
inline constexpr Bytes workspace_zeros = KiB(4);

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
    /// Room for partial results of one operation at a time, behind `workspace_zeros` bytes of zeros.
    void set_workspace(std::byte* base, Bytes bytes) noexcept {
        workspace_ = base;
        workspace_bytes_ = bytes;
    }
    [[nodiscard]] std::byte* workspace() const noexcept { return workspace_; }
    [[nodiscard]] Bytes workspace_bytes() const noexcept { return workspace_bytes_; }

    /// Where launches go instead of being run, or null; for a host that stands in for a device.
    [[nodiscard]] Recording* recording() const noexcept { return recording_; }
    void record_to(Recording* recording) noexcept { recording_ = recording; }

    /// Of its device: how many blocks fill it.
    [[nodiscard]] unsigned multiprocessors() const noexcept { return multiprocessors_; }
    void set_multiprocessors(unsigned count) noexcept { multiprocessors_ = count; }

    /// Kernels enqueued so far.
    [[nodiscard]] std::uint64_t kernels() const noexcept { return kernels_; }
    void count() noexcept { ++kernels_; }

private:
    void* handle_ = nullptr;
    int code_ = 0;
    const char* why_ = "";
    std::uint64_t kernels_ = 0;
    std::byte* workspace_ = nullptr;
    Bytes workspace_bytes_ = 0;
    Recording* recording_ = nullptr;
    unsigned multiprocessors_ = 1;
};

/// Launches on a GPU. Declared here for the files of the host; native.cuh defines it, and files that nvcc compiles
/// instantiate it for each kernel of a program.
struct Native {
    template <Kernel K>
    static void launch(Stream& stream, const K& kernel) noexcept;
};

}  // namespace gpu
}  // namespace exec
}  // namespace zse::inline v1
