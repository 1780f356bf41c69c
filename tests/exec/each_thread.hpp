// SPDX-License-Identifier: Apache-2.0
// A kernel of which each thread runs a given function, on the host, and what is expected of it in all orders.
#pragma once

#include <zse/exec/cuda/emulated.hpp>

#include <support/expect_error.hpp>

#include <string_view>

namespace each_thread {

using namespace zse::exec::gpu;
using Thread = EmulatedThread;

inline constexpr Order orders[] = {Order::ascending, Order::descending, Order::shuffled};

/// A block (or some) of `Threads`, each of which runs a function.
template <unsigned Threads, class F>
struct Each {
    static constexpr unsigned threads = Threads;
    const F* body;
    unsigned shared_bytes;
    unsigned blocks;

    [[nodiscard]] Launch launch() const noexcept { return {{blocks, 1, 1}, Threads, shared_bytes}; }
    template <class T>
    void operator()(T& t) const {
        (*body)(t);
    }
};

template <unsigned Threads = 64, class F>
void run(const F& body, unsigned shared_bytes = 0, Order order = Order::ascending, unsigned blocks = 1) {
    EmulatedBlock::run_grid(Each<Threads, F>{&body, shared_bytes, blocks}, order);
}
/// Runs in all orders.
template <unsigned Threads = 64, class F>
void runs(const F& body, unsigned shared_bytes = 0) {
    for (const Order order : orders) run<Threads>(body, shared_bytes, order);
}
template <unsigned Threads = 64, class F>
void refuses(const F& body, std::string_view word, unsigned shared_bytes = 1024) {
    for (const Order order : orders) {
        support::expect_error([&] { run<Threads>(body, shared_bytes, order); }, zse::ErrorCode::internal,
                              {"block (0, 0, 0)", word});
    }
}

}  // namespace each_thread
