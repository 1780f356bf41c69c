// SPDX-License-Identifier: Apache-2.0
// A persistent team of threads that shares out the items of one operation at a time: spins, then sleeps.
#pragma once

#include <zse/core/error.hpp>

#include <pthread.h>
#include <sched.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <system_error>
#include <thread>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace zse::inline v1 {
namespace exec {

/// The calling thread and `threads - 1` others. Items lie in one part per thread. Each thread takes those of its own
/// part one by one and then those that are left in others, so that a slow core computes fewer; no result may depend
/// on which thread computes an item.
class Team {
public:
    static constexpr unsigned most_threads = 256;

    explicit Team(unsigned threads) {
        if (threads == 0 || threads > most_threads) {
            throw Error(ErrorCode::usage, text("threads must be 1 to ", most_threads, ", not ", threads));
        }
        if (::sched_getaffinity(0, sizeof cores_, &cores_) != 0) CPU_ZERO(&cores_);
        size_ = threads;  // before any thread can ask
        parts_ = std::make_unique<Part[]>(threads);
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

    [[nodiscard]] unsigned size() const noexcept { return size_; }

    /// Calls body(item, thread) once for each item in [0, items), on all threads, and returns when all are done.
    template <class Body>
    void for_each(std::size_t items, const Body& body) noexcept {
        const std::size_t parts = size();
        for_each_in_parts([&](std::size_t part) { return items * (part + 1) / parts - items * part / parts; },
                          [&](std::size_t part, std::size_t item, unsigned thread) {
                              body(items * part / parts + item, thread);
                          });
    }

    /// Calls body(part, item, thread) once for each item in [0, count(part)) of each part in [0, size()).
    template <class Count, class Body>
    void for_each_in_parts(const Count& count, const Body& body) noexcept {
        std::size_t items = 0;
        for (std::size_t part = 0; part < size(); ++part) {
            parts_[part].items = count(part);
            parts_[part].next.store(0, std::memory_order_relaxed);
            items += parts_[part].items;
        }
        caller_core_.store(::sched_getcpu(), std::memory_order_relaxed);
        body_ = &body;
        call_ = [](const void* context, std::size_t part, std::size_t item, unsigned thread) {
            (*static_cast<const Body*>(context))(part, item, thread);
        };
        if (workers_.empty() || items <= 1) return take_items(0);
        busy_.store(static_cast<unsigned>(workers_.size()), std::memory_order_relaxed);
        epoch_.fetch_add(1, std::memory_order_seq_cst);
        if (sleepers_.load(std::memory_order_seq_cst) != 0) epoch_.notify_all();
        take_items(0);
        unsigned busy = busy_.load(std::memory_order_acquire);
        for (int spin = 0; busy != 0 && spin < spins_before_yielding; ++spin) {
            relax();
            busy = busy_.load(std::memory_order_acquire);
        }
        if (busy == 0) return;
        spread();
        // A worker lost its core to a neighbour. Sleeping frees this one, to which the system then moves the worker;
        // yielding would give it to the neighbour.
        for (; busy != 0; busy = busy_.load(std::memory_order_seq_cst)) {
            waiting_.store(true, std::memory_order_seq_cst);
            busy_.wait(busy, std::memory_order_seq_cst);
            waiting_.store(false, std::memory_order_relaxed);
        }
    }

private:
    // Workers spin for 0.1 to 0.4 milliseconds (a pause takes 40 to 140 cycles): longer than the gap between two steps,
    // shorter than a time slice. The caller waits for the last items of others for a tenth of that.
    static constexpr int spins_before_sleep = 10'000;
    static constexpr int spins_before_yielding = 1'000;

    /// Moves workers that share the caller's core to another: the system does so late where each of the two sleeps
    /// while the other runs. They may return; nothing stays pinned.
    void spread() noexcept {
        if (CPU_COUNT(&cores_) < 2) return;
        const int here = ::sched_getcpu();
        if (here < 0 || here >= CPU_SETSIZE) return;
        cpu_set_t elsewhere = cores_;
        CPU_CLR(static_cast<std::size_t>(here), &elsewhere);
        for (std::size_t i = 0; i < workers_.size(); ++i) {
            if (parts_[i + 1].core.load(std::memory_order_relaxed) != here) continue;
            ::pthread_setaffinity_np(workers_[i].native_handle(), sizeof elsewhere, &elsewhere);
            ::pthread_setaffinity_np(workers_[i].native_handle(), sizeof cores_, &cores_);
        }
    }

    static void relax() noexcept {
#if defined(__x86_64__)
        _mm_pause();
#else
        std::this_thread::yield();
#endif
    }

    void take_items(unsigned thread) noexcept {
        const std::size_t parts = size();
        for (std::size_t turn = 0; turn < parts; ++turn) {
            const std::size_t index = thread + turn < parts ? thread + turn : thread + turn - parts;
            Part& part = parts_[index];
            // Looking first leaves the counters of finished parts unwritten.
            while (part.next.load(std::memory_order_relaxed) < part.items) {
                const std::size_t item = part.next.fetch_add(1, std::memory_order_relaxed);
                if (item >= part.items) break;
                call_(body_, index, item, thread);
            }
        }
    }

    void work(unsigned thread) noexcept {
        std::uint32_t seen = 0;
        for (;;) {
            const int core = ::sched_getcpu();
            parts_[thread].core.store(core, std::memory_order_relaxed);
            // On the caller's own core, spinning would only keep it from going on.
            const int spins = core == caller_core_.load(std::memory_order_relaxed) ? 0 : spins_before_sleep;
            std::uint32_t now = epoch_.load(std::memory_order_acquire);
            for (int spin = 0; now == seen && spin < spins; ++spin) {
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
            if (busy_.fetch_sub(1, std::memory_order_seq_cst) == 1 &&
                waiting_.load(std::memory_order_seq_cst)) {
                busy_.notify_all();
            }
        }
    }

    void stop() noexcept {
        stopping_.store(true, std::memory_order_release);
        epoch_.fetch_add(1, std::memory_order_seq_cst);
        epoch_.notify_all();
        for (std::thread& worker : workers_) worker.join();
        workers_.clear();
    }

    /// Each on a line of its own: they are written by all threads at different times.
    struct alignas(64) Part {
        std::atomic<std::size_t> next{0};
        std::size_t items = 0;
        std::atomic<int> core{-1};  ///< where this part's thread last looked for work
    };

    unsigned size_ = 1;
    std::unique_ptr<Part[]> parts_;
    std::vector<std::thread> workers_;
    cpu_set_t cores_{};  ///< that the process may use
    const void* body_ = nullptr;
    void (*call_)(const void*, std::size_t, std::size_t, unsigned) = nullptr;
    alignas(64) std::atomic<std::uint32_t> epoch_{0};
    alignas(64) std::atomic<unsigned> busy_{0};
    alignas(64) std::atomic<unsigned> sleepers_{0};
    std::atomic<bool> waiting_{false};
    std::atomic<int> caller_core_{-1};
    std::atomic<bool> stopping_{false};
};

}  // namespace exec
}  // namespace zse::inline v1
