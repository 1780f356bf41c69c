// SPDX-License-Identifier: Apache-2.0
// A GPU behind the runtime's interface. Only nvcc reads this, in one file of a program.
#pragma once

#include <zse/exec/cuda/runtime.hpp>

#include <cuda_runtime.h>

#include <cstring>

namespace zse::inline v1 {
namespace exec {
namespace gpu {

/// Throws for what fails while an engine opens; what fails later sticks to a stream.
class NativeRuntime final : public Runtime {
public:
    explicit NativeRuntime(int device) : device_(device) {
        int count = 0;
        if (const cudaError_t error = cudaGetDeviceCount(&count); error != cudaSuccess || count == 0) {
            throw Error(ErrorCode::unsupported,
                        text("no GPU can be used: ",
                             error != cudaSuccess ? cudaGetErrorString(error) : "there is none",
                             "; install a driver for CUDA 13, or leave out --device cuda"));
        }
        if (device < 0 || device >= count) {
            throw Error(ErrorCode::usage, text("there are GPUs 0 to ", count - 1, ", and no GPU ", device));
        }
        expect(cudaSetDevice(device), "the GPU could not be opened");
        expect(cudaGetDeviceProperties(&properties_, device), "the GPU did not say what it can do");
        expect(cudaFree(nullptr), "the GPU gave no context");  // makes one
    }

    void enter() noexcept override { (void)cudaSetDevice(device_); }
    [[nodiscard]] std::string name() const override { return properties_.name; }
    [[nodiscard]] unsigned multiprocessors() const noexcept override {
        return static_cast<unsigned>(properties_.multiProcessorCount);
    }
    [[nodiscard]] Memory memory() const override {
        std::size_t free = 0;
        std::size_t total = 0;
        expect(cudaMemGetInfo(&free, &total), "the GPU did not say how much memory is free");
        return {free, total};
    }

    std::byte* take(memory::Tier tier, Bytes bytes) override {
        void* base = nullptr;
        const bool on_gpu = tier == memory::Tier::gpu;
        const cudaError_t error =
            on_gpu ? cudaMalloc(&base, bytes) : cudaHostAlloc(&base, bytes, cudaHostAllocDefault);
        if (error != cudaSuccess) {
            (void)cudaGetLastError();  // the next call is not to blame
            throw Error(
                ErrorCode::out_of_memory,
                text("the driver refused ", bytes, " bytes of ", on_gpu ? "GPU" : "pinned host", " memory (",
                     cudaGetErrorString(error), "); free memory, or plan a shorter context or fewer bits"));
        }
        if (on_gpu) {
            // Streams here wait for no other: the zeros have to be there before any of them writes.
            expect(cudaMemset(base, 0, bytes), "the GPU could not clear its memory");
            expect(cudaDeviceSynchronize(), "the GPU could not clear its memory");
        } else {
            std::memset(base, 0, bytes);
        }
        return static_cast<std::byte*>(base);
    }
    void give_back(memory::Tier tier, std::byte* base, Bytes /*bytes*/) noexcept override {
        (void)(tier == memory::Tier::gpu ? cudaFree(base) : cudaFreeHost(base));
    }

    Stream make_stream() override {
        cudaStream_t stream = nullptr;
        expect(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "the GPU gave no stream");
        return Stream(stream);
    }
    void destroy(Stream& stream) noexcept override { (void)cudaStreamDestroy(handle(stream)); }
    void synchronise(Stream& stream) noexcept override {
        note(stream, cudaStreamSynchronize(handle(stream)));
    }

    void copy(Stream& stream, void* to, const void* from, Bytes bytes) noexcept override {
        if (stream.failed() || bytes == 0) return;
        note(stream, cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, handle(stream)));
    }
    void fill_zero(Stream& stream, void* to, Bytes bytes) noexcept override {
        if (stream.failed() || bytes == 0) return;
        note(stream, cudaMemsetAsync(to, 0, bytes, handle(stream)));
    }

    Event make_event() override {
        cudaEvent_t event = nullptr;
        expect(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "the GPU gave no event");
        return {event};
    }
    void destroy(Event event) noexcept override {
        (void)cudaEventDestroy(static_cast<cudaEvent_t>(event.handle));
    }
    void record(Stream& stream, Event event) noexcept override {
        if (stream.failed()) return;
        note(stream, cudaEventRecord(static_cast<cudaEvent_t>(event.handle), handle(stream)));
    }
    void wait(Stream& stream, Event event) noexcept override {
        if (stream.failed()) return;
        note(stream, cudaStreamWaitEvent(handle(stream), static_cast<cudaEvent_t>(event.handle)));
    }
    void wait_on_host(Stream& stream, Event event) noexcept override {
        note(stream, cudaEventSynchronize(static_cast<cudaEvent_t>(event.handle)));
    }

    void begin_capture(Stream& stream) noexcept override {
        if (stream.failed()) return;
        note(stream, cudaStreamBeginCapture(handle(stream), cudaStreamCaptureModeThreadLocal));
    }
    Graph end_capture(Stream& stream) noexcept override {
        if (stream.failed()) return {};
        cudaGraph_t graph = nullptr;
        cudaGraphExec_t ready = nullptr;
        cudaError_t error = cudaStreamEndCapture(handle(stream), &graph);
        if (error == cudaSuccess) error = cudaGraphInstantiate(&ready, graph, 0);
        if (error == cudaSuccess) error = cudaGraphUpload(ready, handle(stream));
        if (graph != nullptr) (void)cudaGraphDestroy(graph);
        if (error != cudaSuccess) {
            (void)cudaGetLastError();  // a step without a graph is slower, and not wrong
            if (ready != nullptr) (void)cudaGraphExecDestroy(ready);
            return {};
        }
        return {ready};
    }
    void launch(Stream& stream, Graph graph) noexcept override {
        if (stream.failed()) return;
        note(stream, cudaGraphLaunch(static_cast<cudaGraphExec_t>(graph.handle), handle(stream)));
    }
    void destroy(Graph graph) noexcept override {
        (void)cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(graph.handle));
    }

private:
    static cudaStream_t handle(const Stream& stream) noexcept {
        return static_cast<cudaStream_t>(stream.handle());
    }
    static void expect(cudaError_t error, const char* what) {
        if (error == cudaSuccess) return;
        throw Error(ErrorCode::unsupported, text(what, ": ", cudaGetErrorString(error), "; run nvidia-smi"));
    }
    static void note(Stream& stream, cudaError_t error) noexcept {
        if (error != cudaSuccess) stream.fail(static_cast<int>(error), cudaGetErrorString(error));
    }

    int device_;
    cudaDeviceProp properties_{};
};

std::shared_ptr<Runtime> open_native(int device) {
    return std::make_shared<NativeRuntime>(device);
}

}  // namespace gpu
}  // namespace exec
}  // namespace zse::inline v1
