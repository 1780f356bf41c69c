// SPDX-License-Identifier: Apache-2.0
// The host in the place of a device, for tests: memory with guarded ends, streams that run at once, graphs that repeat
// what was enqueued.
#pragma once

#include <zse/exec/cuda/emulated.hpp>
#include <zse/exec/cuda/runtime.hpp>

#include <atomic>
#include <cstring>
#include <new>

namespace zse::inline v1 {
namespace exec {
namespace gpu {

/// Has `total` bytes of memory in each tier, and counts what is taken.
class EmulatedRuntime final : public Runtime {
public:
    explicit EmulatedRuntime(Bytes total = GiB(4)) noexcept : total_(total) {}

    [[nodiscard]] std::string name() const override { return "the host in the place of a GPU"; }
    [[nodiscard]] unsigned multiprocessors() const noexcept override { return 4; }
    [[nodiscard]] Memory memory() const override { return {total_ - taken_[0], total_}; }
    /// Bytes taken in a tier.
    [[nodiscard]] Bytes taken(memory::Tier tier) const noexcept {
        return taken_[static_cast<std::size_t>(tier)];
    }

    std::byte* take(memory::Tier tier, Bytes bytes) override {
        Bytes& taken = taken_[static_cast<std::size_t>(tier)];
        if (bytes > total_ - taken) {
            throw Error(ErrorCode::out_of_memory,
                        text("the device has ", total_ - taken, " bytes free, but ", bytes,
                             " are needed; plan a shorter context or fewer bits"));
        }
        auto* const base =
            static_cast<std::byte*>(::operator new (bytes, std::align_val_t{memory::system_page}));
        std::memset(base, 0, bytes);
        taken += bytes;
        return base;
    }
    void give_back(memory::Tier tier, std::byte* base, Bytes bytes) noexcept override {
        ::operator delete (base, std::align_val_t{memory::system_page});
        taken_[static_cast<std::size_t>(tier)] -= bytes;
    }

    Stream make_stream() override { return Stream(); }
    void destroy(Stream& /*stream*/) noexcept override {}
    void synchronise(Stream& /*stream*/) noexcept override {}

    void copy(Stream& stream, void* to, const void* from, Bytes bytes) noexcept override {
        run_or_record(stream, [to, from, bytes](Stream&) { std::memmove(to, from, bytes); });
    }
    void fill_zero(Stream& stream, void* to, Bytes bytes) noexcept override {
        run_or_record(stream, [to, bytes](Stream&) { std::memset(to, 0, bytes); });
    }

    Event make_event() override { return {}; }
    void destroy(Event /*event*/) noexcept override {}
    void record(Stream& /*stream*/, Event /*event*/) noexcept override {}
    void wait(Stream& /*stream*/, Event /*event*/) noexcept override {}
    void wait_on_host(Stream& /*stream*/, Event /*event*/) noexcept override {}

    void begin_capture(Stream& stream) noexcept override { stream.record_to(new (std::nothrow) Recording); }
    Graph end_capture(Stream& stream) noexcept override {
        Recording* const recording = stream.recording();
        stream.record_to(nullptr);
        return {recording};
    }
    void launch(Stream& stream, Graph graph) noexcept override {
        for (const auto& each : *static_cast<Recording*>(graph.handle)) each(stream);
    }
    void destroy(Graph graph) noexcept override { delete static_cast<Recording*>(graph.handle); }

private:
    template <class Work>
    static void run_or_record(Stream& stream, const Work& work) {
        if (stream.failed()) return;
        if (stream.recording() != nullptr) {
            stream.recording()->push_back(work);
        } else {
            work(stream);
        }
    }

    Bytes total_;
    std::array<Bytes, memory::tier_count> taken_{};
};

}  // namespace gpu
}  // namespace exec
}  // namespace zse::inline v1
