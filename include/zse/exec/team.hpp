// SPDX-License-Identifier: Apache-2.0
// A persistent team of threads that shares out the items of one operation at a time: spins, then sleeps.
#pragma once

#include <zse/core/error.hpp>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <system_error>
#include <thread>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace zse::inline v1 {
namespace exec {

/// The calling thread and `threads - 1` others. Items are taken one by one, so a slow core takes fewer; no
/// result may depend on which thread computes an item.
class Team {
public:
    static constexpr unsigned most_threads = 256;

    explicit Team(unsigned threads) {
        if (threads == 0 || threads > most_threads) {
            throw Error(ErrorCode::usage, text("threads must be 1 to ", most_threads, ", not ", threads));
        }
        workers_.reserve(threads - 1);
        try {
            for (unsigned i = 1; i < threads; ++i) workers_.emplace_back([this, i] { work(i); });
        } catch (const std::system_error&) {
            const std::size_t refused = workers_.size() + 2;
            stop();
            throw Error(ErrorCode::out_of_memory,
                        text("the system refused thread ", refused, " of ", threads, "; use fewer threads"));
        }
    }
    Team(const Team&) = delete;
    Team& operator=(const Team&) = delete;
    ~Team() { stop(); }

    [[nodiscard]] unsigned size() const noexcept { return static_cast<unsigned>(workers_.size()) + 1; }

    /// Calls body(item, thread) once for each item in [0, items), on all threads, and returns when all are
    /// done.
    template <class Body>
    void for_each(std::size_t items, const Body& body) noexcept {
        if (workers_.empty() || items <= 1) {
            for (std::size_t item = 0; item < items; ++item) body(item, 0u);
            return;
        }
        body_ = &body;
        call_ = [](const void* context, std::size_t item, unsigned thread) {
            (*static_cast<const Body*>(context))(item, thread);
        };
        items_ = items;
        next_.store(0, std::memory_order_relaxed);
        busy_.store(static_cast<unsigned>(workers_.size()), std::memory_order_relaxed);
        epoch_.fetch_add(1, std::memory_order_seq_cst);
        if (sleepers_.load(std::memory_order_seq_cst) != 0) epoch_.notify_all();
        take_items(0);
        // A worker that lost its core to a neighbour may need this one: spin a while, then give it away.
        for (int spin = 0; busy_.load(std::memory_order_acquire) != 0; ++spin) {
            spin < spins_before_sleep ? relax() : std::this_thread::yield();
        }
    }

private:
    // About 50 microseconds: longer than the gap between two operations of a step, shorter than a time slice.
    static constexpr int spins_before_sleep = 2'000;

    static void relax() noexcept {
#if defined(__x86_64__)
        _mm_pause();
#else
        std::this_thread::yield();
#endif
    }

    void take_items(unsigned thread) noexcept {
        for (;;) {
            const std::size_t item = next_.fetch_add(1, std::memory_order_relaxed);
            if (item >= items_) return;
            call_(body_, item, thread);
        }
    }

    void work(unsigned thread) noexcept {
        std::uint32_t seen = 0;
        for (;;) {
            std::uint32_t now = epoch_.load(std::memory_order_acquire);
            for (int spin = 0; now == seen && spin < spins_before_sleep; ++spin) {
                relax();
                now = epoch_.load(std::memory_order_acquire);
            }
            if (now == seen) {
                sleepers_.fetch_add(1, std::memory_order_seq_cst);
                epoch_.wait(seen, std::memory_order_seq_cst);
                sleepers_.fetch_sub(1, std::memory_order_seq_cst);
                continue;
            }
            seen = now;
            if (stopping_.load(std::memory_order_acquire)) return;
            take_items(thread);
            busy_.fetch_sub(1, std::memory_order_release);
        }
    }

    void stop() noexcept {
        stopping_.store(true, std::memory_order_release);
        epoch_.fetch_add(1, std::memory_order_seq_cst);
        epoch_.notify_all();
        for (std::thread& worker : workers_) worker.join();
        workers_.clear();
    }

    std::vector<std::thread> workers_;
    const void* body_ = nullptr;
    void (*call_)(const void*, std::size_t, unsigned) = nullptr;
    std::size_t items_ = 0;
    // Each on a line of its own: they are written by all threads at different times.
    alignas(64) std::atomic<std::uint32_t> epoch_{0};
    alignas(64) std::atomic<std::size_t> next_{0};
    alignas(64) std::atomic<unsigned> busy_{0};
    alignas(64) std::atomic<unsigned> sleepers_{0};
    std::atomic<bool> stopping_{false};
};

}  // namespace exec
}  // namespace zse::inline v1
