// SPDX-License-Identifier: Apache-2.0
// The operations of a step, kept as they were enqueued, to run again over the same buffers with other contents.
#pragma once

#include <zse/exec/executor.hpp>

#include <cstring>
#include <new>
#include <span>
#include <type_traits>

namespace zse::inline v1 {
namespace exec {

/// A list of operations in memory of the caller: what a graph is to a GPU. It holds while the shapes of a step, the
/// buffers and the matrices are the same; lengths, positions and page tables lie in those buffers and may change.
class Captured {
public:
    /// An operation and what runs it.
    static constexpr std::size_t slot_bytes = 512;

    Captured() = default;
    explicit Captured(std::span<std::byte> room) noexcept : room_(room) {}

    /// Bytes of a list of so many operations.
    static constexpr Bytes footprint(std::uint64_t operations) noexcept {
        return saturating_mul(operations, slot_bytes);
    }
    /// Whether a step is held.
    [[nodiscard]] bool complete() const noexcept { return complete_; }
    [[nodiscard]] Bytes bytes() const noexcept { return footprint(count_); }

    /// Adds an operation for an executor X. One too many makes the list useless, and nothing worse.
    template <class X, Operation Op>
    void add(const Op& op) noexcept {
        static_assert(std::is_trivially_copyable_v<Op> && sizeof(Op) + sizeof(Invoke) <= slot_bytes,
                      "zse: an operation that is captured has to be trivially copyable and to fit a slot");
        if (footprint(count_ + 1) > room_.size()) {
            overflowed_ = true;
            return;
        }
        std::byte* slot = room_.data() + count_++ * slot_bytes;
        const Invoke invoke = [](void* executor, const void* kept) {
            static_cast<X*>(executor)->run(*std::launder(static_cast<const Op*>(kept)));
        };
        std::memcpy(slot, &invoke, sizeof invoke);
        ::new (static_cast<void*>(slot + operation_at)) Op(op);
    }
    /// All operations of the step were added.
    void close() noexcept {
        complete_ = !overflowed_ && count_ > 0;
        if (!complete_) count_ = 0;
    }

    template <class X>
    void run(X& executor) const noexcept {
        for (std::size_t i = 0; i < count_; ++i) {
            const std::byte* slot = room_.data() + i * slot_bytes;
            Invoke invoke = nullptr;
            std::memcpy(&invoke, slot, sizeof invoke);
            invoke(&executor, slot + operation_at);
        }
    }

private:
    using Invoke = void (*)(void* executor, const void* operation);
    static constexpr std::size_t operation_at = 16;  ///< aligned for any operation

    std::span<std::byte> room_;
    std::size_t count_ = 0;
    bool overflowed_ = false;
    bool complete_ = false;
};

/// Batch sizes whose steps are captured.
struct Buckets {
    static constexpr std::uint32_t largest = 64;

    /// How many there are for at most `batch` sequences: 1, 2, 4, ... 64.
    static constexpr std::uint32_t count(std::uint32_t batch) noexcept {
        std::uint32_t buckets = 0;
        for (std::uint32_t size = 1; size <= batch && size <= largest; size *= 2) ++buckets;
        return buckets;
    }
    /// The number of a batch size's bucket, or `none`.
    static constexpr std::uint32_t none = ~std::uint32_t{0};
    static constexpr std::uint32_t of(std::size_t sequences) noexcept {
        std::uint32_t bucket = 0;
        for (std::uint32_t size = 1; size <= largest; size *= 2, ++bucket) {
            if (size == sequences) return bucket;
        }
        return none;
    }
};

}  // namespace exec
}  // namespace zse::inline v1
