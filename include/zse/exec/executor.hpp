// SPDX-License-Identifier: Apache-2.0
// What an executor is: it gives scratch buffers and runs operations; a forward pass is written against this
// alone.
#pragma once

#include <zse/memory/scratch.hpp>

#include <concepts>
#include <cstddef>
#include <utility>

namespace zse::inline v1 {
namespace exec {

/// What one thread has while it works on an item of an operation.
struct Worker {
    unsigned thread;  ///< 0 .. team size - 1
    std::byte*
        scratch;  ///< the thread's own bytes, as many as the operation's thread_bytes(); 64-byte aligned
};

/// An operation: items that any thread may compute in any order, and the scratch that each thread needs.
// clang-format off
template <class Op>
concept PlainOperation = requires(const Op& op, std::size_t item, const Worker& worker) {
    { op.items() } noexcept -> std::convertible_to<std::size_t>;
    { op.thread_bytes() } noexcept -> std::convertible_to<Bytes>;
    { op.run(item, worker) } noexcept;
};

/// An operation whose items are laid out in parts, one for each thread: a thread computes its own part first, whose
/// data lie in its own memory, and then helps others.
template <class Op>
concept PartedOperation = requires(const Op& op, std::size_t part, std::size_t parts, std::size_t item,
                                   const Worker& worker) {
    { op.items(part, parts) } noexcept -> std::convertible_to<std::size_t>;
    { op.thread_bytes() } noexcept -> std::convertible_to<Bytes>;
    { op.run(part, item, worker) } noexcept;
};

template <class Op>
concept Operation = PlainOperation<Op> || PartedOperation<Op>;
// clang-format on

/// A temporary buffer of `[count]` T in an executor's scratch; ends with its scope. data() is null while
/// planning.
template <class T, class X>
class Buffer {
public:
    constexpr Buffer(X& executor, std::size_t count)
        : executor_(&executor), offset_(executor.allocate(saturating_mul(count, sizeof(T)))) {}
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;
    constexpr ~Buffer() { release(); }

    /// Ends the buffer before its scope does, so that later buffers can use its bytes.
    constexpr void release() noexcept {
        if (executor_ != nullptr) std::exchange(executor_, nullptr)->release(offset_);
    }
    [[nodiscard]] constexpr T* data() const noexcept { return executor_->template at<T>(offset_); }

private:
    X* executor_;
    Bytes offset_;
};

/// Enqueues operations in order, never throws, and gives scratch. `buffer` sizes are those of the planned
/// maximum, so that a real step repeats the plan's layout whatever its number of tokens.
// clang-format off
template <class X>
concept Executor = requires(X& executor, Bytes bytes) {
    { executor.allocate(bytes) } -> std::same_as<Bytes>;
    { executor.release(bytes) } noexcept;
};
// clang-format on

}  // namespace exec
}  // namespace zse::inline v1
