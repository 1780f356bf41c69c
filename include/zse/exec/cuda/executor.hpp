// SPDX-License-Identifier: Apache-2.0
// The executor of a device, and the one that plans for it: operations are enqueued on a stream.
#pragma once

#include <zse/exec/cuda/runtime.hpp>
#include <zse/exec/executor.hpp>
#include <zse/exec/recorder.hpp>

namespace zse::inline v1 {
namespace exec {
namespace gpu {

/// An operation that launches kernels: in the order of the stream, with room for its partial results behind the scratch.
// clang-format off
template <class Op>
concept DeviceOperation = requires(const Op& op, Stream& stream) {
    { op.workspace_bytes() } noexcept -> std::convertible_to<Bytes>;
    { op.enqueue(stream) } noexcept;
};
// clang-format on

/// Plans as Recorder does, for a device: thread_bytes() are those of one workspace, which serves all operations since they
/// run one after the other.
class DeviceRecorder : public Recorder {
public:
    static constexpr bool device = true;

    template <class Op>
    constexpr void run(const Op& op) noexcept {
        if constexpr (DeviceOperation<Op>) need(op.workspace_bytes());
    }
};

/// Enqueues on a stream, over the scratch that the plan laid out. Operations of the host (pages that come from disk) wait
/// for the stream and run at once.
class DeviceExecutor {
public:
    static constexpr bool records = false;
    static constexpr bool device = true;

    DeviceExecutor(Runtime& runtime, Stream& stream, std::byte* scratch) noexcept
        : runtime_(&runtime), stream_(&stream), scratch_(scratch) {}

    Bytes allocate(Bytes bytes) { return layout_.allocate(bytes); }
    void release(Bytes offset) noexcept { layout_.release(offset); }
    template <class T>
    T* at(Bytes offset) const noexcept {
        return reinterpret_cast<T*>(scratch_ + offset);
    }
    /// Bytes of the scratch, without the workspace, that any step has used so far.
    [[nodiscard]] Bytes used() const noexcept { return layout_.peak(); }

    template <class Op>
    void run(const Op& op) noexcept {
        if constexpr (DeviceOperation<Op>) {
            op.enqueue(*stream_);
        } else {
            runtime_->synchronise(*stream_);
            if (stream_->failed()) return;
            for (std::size_t item = 0; item < op.items(); ++item) op.run(item, Worker{0, nullptr});
        }
    }

private:
    Runtime* runtime_;
    Stream* stream_;
    std::byte* scratch_;
    memory::ScratchLayout layout_;
};

}  // namespace gpu
}  // namespace exec
}  // namespace zse::inline v1
