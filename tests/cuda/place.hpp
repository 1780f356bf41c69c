// SPDX-License-Identifier: Apache-2.0
// Where a kernel is tried: on a GPU, or on the host in its place, with the same memory, copies and launches. Checks run in
// both, so that they are known to be right where there is no GPU and the other half is skipped.
#pragma once

#include <zse/exec/cuda/emulated_runtime.hpp>
#include <zse/exec/cuda/runtime.hpp>

#include <gtest/gtest.h>

#include <cstddef>
#include <iostream>
#include <memory>
#include <span>
#include <utility>
#include <vector>

namespace zse_test {

/// The host in the place of a GPU.
struct OnHost {
    using Launcher = zse::exec::gpu::Emulated;
    static std::shared_ptr<zse::exec::gpu::Runtime> open() {
        return std::make_shared<zse::exec::gpu::EmulatedRuntime>();
    }
};

/// The first GPU of this machine.
struct OnDevice {
    using Launcher = zse::exec::gpu::Native;
    /// Null where there is none, after saying why.
    static std::shared_ptr<zse::exec::gpu::Runtime> open() {
        try {
            return zse::exec::gpu::open_native(0);
        } catch (const zse::Error& error) {
            if (error.code() != zse::ErrorCode::unsupported) throw;
            std::cout << error.what() << '\n';
            return nullptr;
        }
    }
};

/// Memory and a stream, both given back at its end.
template <class Where>
class Place {
public:
    using Launcher = typename Where::Launcher;

    explicit Place(zse::exec::gpu::Runtime& runtime) : runtime_(&runtime), stream_(runtime.make_stream()) {}
    Place(const Place&) = delete;
    Place& operator=(const Place&) = delete;
    ~Place() {
        runtime_->synchronise(stream_);
        for (const auto& [base, bytes] : taken_) runtime_->give_back(zse::memory::Tier::gpu, base, bytes);
        runtime_->destroy(stream_);
    }

    /// `count` zeros.
    template <class T>
    T* zeros(std::size_t count) {
        const zse::Bytes bytes = count * sizeof(T) + sizeof(T);  // none is a valid count
        taken_.emplace_back(runtime_->take(zse::memory::Tier::gpu, bytes), bytes);
        return reinterpret_cast<T*>(taken_.back().first);
    }
    /// A copy of these values.
    template <class T>
    T* put(const std::vector<T>& values) {
        T* const at = zeros<T>(values.size());
        runtime_->copy(stream_, at, values.data(), values.size() * sizeof(T));
        runtime_->synchronise(stream_);
        return at;
    }
    template <class T>
    T* put(const T* values, std::size_t count) {
        return put(std::vector<T>(values, values + count));
    }
    /// What lies there once all that was launched is done.
    template <class T>
    std::vector<T> get(const T* at, std::size_t count) {
        std::vector<T> values(count);
        runtime_->copy(stream_, values.data(), at, count * sizeof(T));
        runtime_->synchronise(stream_);
        return values;
    }
    template <class Kernel>
    void run(const Kernel& kernel) {
        Launcher::launch(stream_, kernel);
    }
    [[nodiscard]] zse::exec::gpu::Stream& stream() noexcept { return stream_; }

private:
    zse::exec::gpu::Runtime* runtime_;
    zse::exec::gpu::Stream stream_;
    std::vector<std::pair<std::byte*, zse::Bytes>> taken_;
};

/// One check of a table: it throws, or fails as a test does.
template <class Where>
struct Check {
    const char* name;
    void (*run)(Place<Where>&);
};

template <class Where>
void agree(zse::exec::gpu::Runtime& runtime, std::span<const Check<Where>> checks) {
    for (const Check<Where>& check : checks) {
        SCOPED_TRACE(check.name);
        Place<Where> place(runtime);
        check.run(place);
        ASSERT_FALSE(place.stream().failed()) << place.stream().why();
    }
}
/// Checks leave free memory as it was. The driver loads a kernel when it is launched first, so the second round counts.
template <class Where>
void leave_memory(zse::exec::gpu::Runtime& runtime, std::span<const Check<Where>> checks) {
    agree(runtime, checks);
    const zse::Bytes before = runtime.memory().free;
    agree(runtime, checks);
    EXPECT_EQ(runtime.memory().free, before);
}

}  // namespace zse_test
