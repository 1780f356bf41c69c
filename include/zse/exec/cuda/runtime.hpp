// SPDX-License-Identifier: Apache-2.0
// A device as an engine uses it: memory, streams, copies, events, graphs. Knows no CUDA: a GPU and the host that stands in
// for one in tests each implement it.
#pragma once

#include <zse/core/error.hpp>
#include <zse/exec/cuda/stream.hpp>
#include <zse/memory/arena.hpp>

#include <memory>
#include <string>

namespace zse::inline v1 {
namespace exec {
namespace gpu {

/// A point in a stream that others can wait for.
struct Event {
    void* handle = nullptr;
};
/// Launches that were captured, to run again over the same buffers.
struct Graph {
    void* handle = nullptr;
};

/// One device. Enqueuing never throws: a stream keeps its first error. Memory is zeroed when it is taken.
class Runtime : public memory::Source {
public:
    /// Device memory in the gpu tier; in the host tier memory that the device reaches at its address (pinned), for kinds
    /// that move between the two.
    [[nodiscard]] bool gives(memory::Tier tier, memory::Kind kind) const noexcept override {
        using memory::Kind;
        if (tier == memory::Tier::gpu) return true;
        return tier == memory::Tier::host &&
               (kind == Kind::kv || kind == Kind::weights || kind == Kind::staging || kind == Kind::logits);
    }

    /// Makes it the device of the calling thread; before other calls from a thread that may have used another one.
    virtual void enter() noexcept {}
    [[nodiscard]] virtual std::string name() const = 0;
    /// Multiprocessors: how many blocks fill the device is a multiple of it.
    [[nodiscard]] virtual unsigned multiprocessors() const noexcept = 0;
    /// Free and total bytes of the device.
    struct Memory {
        Bytes free = 0;
        Bytes total = 0;
    };
    [[nodiscard]] virtual Memory memory() const = 0;

    /// A stream of its own; throws out_of_memory or unsupported.
    virtual Stream make_stream() = 0;
    virtual void destroy(Stream& stream) noexcept = 0;
    /// Waits until all that was enqueued is done; errors of it show in the stream.
    virtual void synchronise(Stream& stream) noexcept = 0;

    /// Between any two of device memory and memory taken here, or from pageable host memory, which then waits.
    virtual void copy(Stream& stream, void* to, const void* from, Bytes bytes) noexcept = 0;
    virtual void fill_zero(Stream& stream, void* to, Bytes bytes) noexcept = 0;

    virtual Event make_event() = 0;
    virtual void destroy(Event event) noexcept = 0;
    virtual void record(Stream& stream, Event event) noexcept = 0;
    virtual void wait(Stream& stream, Event event) noexcept = 0;
    /// Waits on the host until an event was reached; one that was never recorded is.
    virtual void wait_on_host(Stream& stream, Event event) noexcept = 0;

    /// From here on launches and copies are captured and not run.
    virtual void begin_capture(Stream& stream) noexcept = 0;
    /// The captured graph; with a null handle where the driver could not make one, which is no error of the stream.
    virtual Graph end_capture(Stream& stream) noexcept = 0;
    virtual void launch(Stream& stream, Graph graph) noexcept = 0;
    virtual void destroy(Graph graph) noexcept = 0;
};

/// A stream with its device, given back when it ends.
class OwnedStream {
public:
    explicit OwnedStream(Runtime& runtime) : runtime_(&runtime), stream_(runtime.make_stream()) {}
    OwnedStream(const OwnedStream&) = delete;
    OwnedStream& operator=(const OwnedStream&) = delete;
    ~OwnedStream() {
        runtime_->synchronise(stream_);
        runtime_->destroy(stream_);
    }
    [[nodiscard]] Stream& get() noexcept { return stream_; }
    [[nodiscard]] const Stream& get() const noexcept { return stream_; }

private:
    Runtime* runtime_;
    Stream stream_;
};

/// GPU `device`, as the driver counts them. Defined where nvcc compiles (native_runtime.cuh). Throws unsupported where there
/// is none, or its kernels are for others.
std::shared_ptr<Runtime> open_native(int device);

}  // namespace gpu
}  // namespace exec
}  // namespace zse::inline v1
