// SPDX-License-Identifier: Apache-2.0
// Copies of pages: by the processor, or by a device where pages lie in its memory.
#pragma once

#include <zse/exec/cuda/runtime.hpp>

#include <cstring>
#include <memory>
#include <utility>

namespace zse::inline v1 {
namespace kv {

/// Copies between tiers on a stream of a device, beside what it computes. Without a device, copies are done at once.
class PageMover {
public:
    PageMover() = default;
    explicit PageMover(std::shared_ptr<exec::gpu::Runtime> device) : device_(std::move(device)) {
        if (device_ == nullptr) return;
        copies_ = device_->make_stream();
        copied_ = device_->make_event();
    }
    PageMover(const PageMover&) = delete;
    PageMover& operator=(const PageMover&) = delete;
    ~PageMover() {
        if (device_ == nullptr) return;
        device_->synchronise(copies_);
        device_->destroy(copied_);
        device_->destroy(copies_);
    }

    /// The bytes may arrive later: see settle() and join(). Those that copies began with earlier arrive before.
    void copy(std::byte* to, const std::byte* from, Bytes bytes) noexcept {
        if (device_ == nullptr) {
            std::memcpy(to, from, bytes);
            return;
        }
        device_->copy(copies_, to, from, bytes);
        pending_ = true;
    }
    /// Waits until the processor may read what was copied, and write where it came from.
    void settle() noexcept {
        if (!std::exchange(pending_, false)) return;
        device_->synchronise(copies_);
    }
    /// What follows on `stream` comes after the copies.
    void join(exec::gpu::Stream& stream) noexcept {
        if (device_ == nullptr || !pending_) return;
        device_->record(copies_, copied_);
        device_->wait(stream, copied_);
    }
    /// Whether a copy failed: what was moved is lost.
    [[nodiscard]] bool failed() const noexcept { return copies_.failed(); }

private:
    std::shared_ptr<exec::gpu::Runtime> device_;
    exec::gpu::Stream copies_;
    exec::gpu::Event copied_;
    bool pending_ = false;
};

}  // namespace kv
}  // namespace zse::inline v1
