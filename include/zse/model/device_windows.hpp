// SPDX-License-Identifier: Apache-2.0
// Layers whose weights lie in host memory while a device computes: two windows in the device, one computed with while the
// next layer comes.
#pragma once

#include <zse/exec/cuda/runtime.hpp>
#include <zse/memory/arena.hpp>

#include <array>
#include <span>
#include <vector>

namespace zse::inline v1 {
namespace model {

/// Copies layers from pinned memory into the windows in the order of a step, on a stream of its own. Layer i is always
/// computed with in window i modulo 2. Neither copied nor moved.
class DeviceWindows {
public:
    /// `memory` holds two windows of `window_bytes`.
    DeviceWindows(exec::gpu::Runtime& runtime, memory::Arena memory, Bytes window_bytes)
        : runtime_(&runtime), memory_(std::move(memory)), window_bytes_(window_bytes), copies_(runtime) {
        for (std::size_t i = 0; i < 2; ++i) {
            arrived_[i] = runtime.make_event();
            done_[i] = runtime.make_event();
        }
    }
    DeviceWindows(const DeviceWindows&) = delete;
    DeviceWindows& operator=(const DeviceWindows&) = delete;
    ~DeviceWindows() {
        runtime_->synchronise(copies_.get());
        for (std::size_t i = 0; i < 2; ++i) {
            runtime_->destroy(arrived_[i]);
            runtime_->destroy(done_[i]);
        }
    }

    /// Where layer `layer` will be while it is computed with.
    [[nodiscard]] std::byte* window(std::uint32_t layer) const noexcept {
        return memory_.data() + layer % 2 * window_bytes_;
    }
    /// Loading: the next layer, in pinned memory that stays.
    void add(std::span<const std::byte> image) { images_.push_back(image); }
    /// All were added: the first ones start.
    void finish() noexcept {
        memory_.uses(memory_.size());
        for (std::uint32_t layer = 0; layer < std::min<std::size_t>(2, images_.size()); ++layer) bring(layer);
    }
    [[nodiscard]] std::uint32_t layers() const noexcept { return static_cast<std::uint32_t>(images_.size()); }
    /// What copies failed with, if they did.
    [[nodiscard]] const exec::gpu::Stream& copies() const noexcept { return copies_.get(); }
    [[nodiscard]] Bytes copied() const noexcept { return copied_; }

    /// What follows on `stream` computes with the layer.
    void enter(exec::gpu::Stream& stream, std::uint32_t layer) noexcept {
        runtime_->wait(stream, arrived_[layer % 2]);
    }
    /// What follows does not: its window goes to the next layer, or to the first ones of the next step.
    void leave(exec::gpu::Stream& stream, std::uint32_t layer) noexcept {
        if (images_.size() <= 2) return;  // both stay where they are
        runtime_->record(stream, done_[layer % 2]);
        runtime_->wait(copies_.get(), done_[layer % 2]);
        bring(layer + 2 < images_.size() ? layer + 2 : layer % 2);
    }

private:
    void bring(std::uint32_t layer) noexcept {
        runtime_->copy(copies_.get(), window(layer), images_[layer].data(), images_[layer].size());
        runtime_->record(copies_.get(), arrived_[layer % 2]);
        copied_ += images_[layer].size();
    }

    exec::gpu::Runtime* runtime_;
    memory::Arena memory_;
    Bytes window_bytes_;
    exec::gpu::OwnedStream copies_;
    std::array<exec::gpu::Event, 2> arrived_{};
    std::array<exec::gpu::Event, 2> done_{};
    std::vector<std::span<const std::byte>> images_;
    Bytes copied_ = 0;
};

/// Before a layer that comes through a window, and after it.
struct Window {
    DeviceWindows* windows = nullptr;
    std::uint32_t layer = 0;
    bool enters = true;

    [[nodiscard]] constexpr Bytes workspace_bytes() const noexcept { return 0; }
    void enqueue(exec::gpu::Stream& stream) const noexcept {
        if (enters) {
            windows->enter(stream, layer);
        } else {
            windows->leave(stream, layer);
        }
    }
};

/// Brings packed weights into a device through pinned pieces: the processor fills one while others are on their way.
class Uploader {
public:
    Uploader(exec::gpu::Runtime& runtime, exec::gpu::Stream& stream, std::span<std::byte> pinned, Bytes piece,
             std::size_t pieces)
        : runtime_(&runtime), stream_(&stream), pinned_(pinned), piece_(piece) {
        for (std::size_t i = 0; i < pieces; ++i) events_.push_back(runtime.make_event());
    }
    Uploader(const Uploader&) = delete;
    Uploader& operator=(const Uploader&) = delete;
    ~Uploader() {
        runtime_->synchronise(*stream_);
        for (const exec::gpu::Event event : events_) runtime_->destroy(event);
    }

    [[nodiscard]] Bytes piece_bytes() const noexcept { return piece_; }
    /// A piece to fill: the one that was sent longest ago, once it has arrived.
    std::span<std::byte> piece() noexcept {
        if (sent_ >= events_.size()) runtime_->wait_on_host(*stream_, events_[sent_ % events_.size()]);
        return pinned_.subspan(sent_ % events_.size() * piece_, piece_);
    }
    /// Sends the first `bytes` of it.
    void send(std::byte* to, Bytes bytes) noexcept {
        const std::size_t index = sent_++ % events_.size();
        runtime_->copy(*stream_, to, pinned_.data() + index * piece_, bytes);
        runtime_->record(*stream_, events_[index]);
    }

private:
    exec::gpu::Runtime* runtime_;
    exec::gpu::Stream* stream_;
    std::span<std::byte> pinned_;
    Bytes piece_;
    std::vector<exec::gpu::Event> events_;
    std::size_t sent_ = 0;
};

}  // namespace model
}  // namespace zse::inline v1
