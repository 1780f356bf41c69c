// SPDX-License-Identifier: Apache-2.0
// Times work on a GPU: captured as a graph, so that launching costs the host nothing, and repeated.
#pragma once

#include <zse/exec/cuda/runtime.hpp>

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

namespace zse_bench {

/// Of 20 samples.
struct Spread {
    double median = 0;
    double least = 0;
    double most = 0;

    /// Of a rate that falls as this rises.
    [[nodiscard]] Spread rate(double units) const noexcept {
        return {units / median, units / most, units / least};
    }
};

/// The first GPU with a stream, and memory that is given back at the end.
class Bench {
public:
    Bench() : runtime_(zse::exec::gpu::open_native(0)), stream_(runtime_->make_stream()) {
        int bytes = 0;
        check(cudaDeviceGetAttribute(&bytes, cudaDevAttrL2CacheSize, 0));
        cache_bytes_ = static_cast<zse::Bytes>(bytes);
        for (cudaEvent_t& event : events_) check(cudaEventCreate(&event));
    }
    Bench(const Bench&) = delete;
    Bench& operator=(const Bench&) = delete;
    ~Bench() {
        release();
        for (cudaEvent_t& event : events_) (void)cudaEventDestroy(event);
        runtime_->destroy(stream_);
    }

    [[nodiscard]] zse::exec::gpu::Runtime& runtime() noexcept { return *runtime_; }
    [[nodiscard]] zse::exec::gpu::Stream& stream() noexcept { return stream_; }
    /// Bytes of the level-2 cache.
    [[nodiscard]] zse::Bytes cache_bytes() const noexcept { return cache_bytes_; }
    /// How many copies of something make a read of the next one miss the cache: four times what it holds.
    [[nodiscard]] unsigned copies(zse::Bytes bytes) const noexcept {
        return static_cast<unsigned>(std::max<zse::Bytes>(2, zse::ceil_div(4 * cache_bytes_, bytes) + 1));
    }

    /// Zeros.
    template <class T>
    T* zeros(zse::Bytes count) {
        const zse::Bytes bytes = count * sizeof(T);
        taken_.push_back({runtime_->take(zse::memory::Tier::gpu, bytes), bytes});
        return reinterpret_cast<T*>(taken_.back().base);
    }
    template <class T>
    T* put(const std::vector<T>& values) {
        T* const at = zeros<T>(values.size());
        runtime_->copy(stream_, at, values.data(), values.size() * sizeof(T));
        runtime_->synchronise(stream_);
        return at;
    }
    /// `bytes` bytes that repeat `tile`.
    std::byte* fill(const std::vector<std::byte>& tile, zse::Bytes bytes) {
        auto* const at = zeros<std::byte>(bytes);
        for (zse::Bytes done = 0; done < bytes;) {
            const zse::Bytes some = std::min<zse::Bytes>(bytes - done, done == 0 ? tile.size() : done);
            runtime_->copy(stream_, at + done, done == 0 ? tile.data() : at, some);
            done += some;
        }
        runtime_->synchronise(stream_);
        return at;
    }
    /// Gives all memory back.
    void release() noexcept {
        runtime_->synchronise(stream_);
        for (const Taken& taken : taken_)
            runtime_->give_back(zse::memory::Tier::gpu, taken.base, taken.bytes);
        taken_.clear();
    }

    /// Seconds that one of the `units` takes that `enqueue(stream)` puts into the stream.
    template <class Enqueue>
    Spread seconds(unsigned units, const Enqueue& enqueue) {
        enqueue(stream_);  // loads the kernels, which a capture cannot
        runtime_->synchronise(stream_);
        runtime_->begin_capture(stream_);
        enqueue(stream_);
        const zse::exec::gpu::Graph graph = runtime_->end_capture(stream_);
        const auto once = [&] {
            if (graph.handle != nullptr) {
                runtime_->launch(stream_, graph);
            } else {
                enqueue(stream_);
            }
        };
        constexpr unsigned warm_up = 5;
        constexpr unsigned samples = 20;
        for (unsigned i = 0; i < warm_up; ++i) once();
        std::vector<double> all;
        for (unsigned i = 0; i < samples; ++i) {
            auto* const handle = static_cast<cudaStream_t>(stream_.handle());
            check(cudaEventRecord(events_[0], handle));
            once();
            check(cudaEventRecord(events_[1], handle));
            check(cudaEventSynchronize(events_[1]));
            float milliseconds = 0;
            check(cudaEventElapsedTime(&milliseconds, events_[0], events_[1]));
            all.push_back(double{milliseconds} * 1e-3 / units);
        }
        if (graph.handle != nullptr) runtime_->destroy(graph);
        if (stream_.failed()) throw zse::Error(zse::ErrorCode::internal, stream_.why());
        std::ranges::sort(all);
        return {(all[samples / 2 - 1] + all[samples / 2]) / 2, all.front(), all.back()};
    }

    static void check(cudaError_t error) {
        if (error != cudaSuccess) throw zse::Error(zse::ErrorCode::internal, cudaGetErrorString(error));
    }

private:
    struct Taken {
        std::byte* base;
        zse::Bytes bytes;
    };

    std::shared_ptr<zse::exec::gpu::Runtime> runtime_;
    zse::exec::gpu::Stream stream_;
    zse::Bytes cache_bytes_ = 0;
    cudaEvent_t events_[2] = {};
    std::vector<Taken> taken_;
};

/// "812.3 (805.0 to 816.1)".
inline std::string written(const Spread& spread, int digits = 1) {
    char text[96];
    std::snprintf(text, sizeof text, "%.*f (%.*f to %.*f)", digits, spread.median, digits, spread.least,
                  digits, spread.most);
    return text;
}

/// What a section prints its rows with: bytes a second as GB/s, and their share of what reading alone reaches.
struct Roof {
    double bytes_per_second = 0;

    [[nodiscard]] std::string bandwidth(const Spread& seconds, double bytes) const {
        const Spread rate = seconds.rate(bytes * 1e-9);
        char share[32];
        std::snprintf(share, sizeof share, " | %.2f", rate.median * 1e9 / bytes_per_second);
        return written(rate, 0) + share;
    }
};

/// Sections of the report; each prints a table and gives its memory back.
Roof measure_reading(Bench& bench);
void measure_products(Bench& bench, const Roof& roof);
void measure_prompts(Bench& bench);
void measure_attention(Bench& bench, const Roof& roof);

}  // namespace zse_bench
