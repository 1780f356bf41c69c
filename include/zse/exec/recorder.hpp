// SPDX-License-Identifier: Apache-2.0
// The executor that plans: runs nothing, at compile time if wanted, and counts what a step would hold.
#pragma once

#include <zse/exec/executor.hpp>

namespace zse::inline v1 {
namespace exec {

class Recorder {
public:
    /// Equal layers are recorded once: each leaves the scratch as it found it.
    static constexpr bool records = true;
    static constexpr bool device = false;

    constexpr Bytes allocate(Bytes bytes) { return layout_.allocate(bytes); }
    constexpr void release(Bytes offset) noexcept { layout_.release(offset); }
    template <class T>
    constexpr T* at(Bytes) const noexcept {
        return nullptr;
    }

    template <Operation Op>
    constexpr void run(const Op& op) noexcept {
        need(op.thread_bytes());
        ++operations_;
    }

    /// Bytes shared by all threads, and bytes that each thread needs for itself.
    [[nodiscard]] constexpr Bytes shared_bytes() const noexcept { return layout_.peak(); }
    [[nodiscard]] constexpr Bytes thread_bytes() const noexcept {
        return round_up(thread_bytes_, memory::ScratchLayout::alignment);
    }
    [[nodiscard]] constexpr std::size_t operations() const noexcept { return operations_; }

protected:
    /// An operation needs so many bytes, beside the buffers.
    constexpr void need(Bytes bytes) noexcept {
        thread_bytes_ = bytes > thread_bytes_ ? bytes : thread_bytes_;
    }

private:
    memory::ScratchLayout layout_;
    Bytes thread_bytes_ = 0;
    std::size_t operations_ = 0;
};

}  // namespace exec
}  // namespace zse::inline v1
