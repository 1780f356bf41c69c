// SPDX-License-Identifier: Apache-2.0
// Threads that read and write the disk tier while others compute. Sizes are fixed at open, nothing is allocated
// afterwards.
#pragma once

#include <zse/memory/disk_arena.hpp>

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

namespace zse::inline v1 {
namespace memory {

/// Transfers that are waited for together. Outlives them.
class TransferGroup {
public:
    /// Waits until all are done; 0, or the error number of one that failed since the last wait.
    int wait() noexcept {
        for (std::uint32_t left = pending_.load(std::memory_order_acquire); left != 0;
             left = pending_.load(std::memory_order_acquire)) {
            pending_.wait(left, std::memory_order_acquire);
        }
        return error_.exchange(0, std::memory_order_relaxed);
    }
    /// Whether wait() would return at once.
    [[nodiscard]] bool done() const noexcept { return pending_.load(std::memory_order_acquire) == 0; }

private:
    friend class Transfers;
    std::atomic<std::uint32_t> pending_ = 0;
    std::atomic<int> error_ = 0;
};

/// One read or write of whole blocks.
struct Transfer {
    const BlockFile* file = nullptr;
    Bytes offset = 0;
    std::byte* memory = nullptr;
    Bytes bytes = 0;
    bool write = false;
    /// Called on the transferring thread, where not null: before a write, after a read. 0, or an error number: a page
    /// is not what it was.
    int (*check)(const Transfer& transfer) noexcept = nullptr;
    void* context = nullptr;  ///< for check
    std::uint64_t tag = 0;    ///< for check
    TransferGroup* group = nullptr;
};

/// A queue and the threads that empty it, in order of submission; several are under way at once, since a disk that is
/// asked one thing at a time is slow.
class Transfers {
public:
    /// At most `most` transfers wait at once; whoever submits more waits for a place.
    Transfers(unsigned threads, std::size_t most) : queue_(most) {
        threads_.reserve(threads);
        try {
            for (unsigned i = 0; i < threads; ++i) threads_.emplace_back([this] { work(); });
        } catch (...) {
            stop();
            throw Error(ErrorCode::out_of_memory, text("the system refused a thread for the disk tier; raise "
                                                       "the limit (ulimit -u), or leave the "
                                                       "disk tier out"));
        }
    }
    Transfers(const Transfers&) = delete;
    Transfers& operator=(const Transfers&) = delete;
    /// Ends what was submitted first.
    ~Transfers() { stop(); }

    void submit(const Transfer& transfer) noexcept {
        transfer.group->pending_.fetch_add(1, std::memory_order_relaxed);
        std::unique_lock lock(mutex_);
        room_.wait(lock, [&] { return count_ < queue_.size(); });
        queue_[(first_ + count_++) % queue_.size()] = transfer;
        lock.unlock();
        work_.notify_one();
    }

    /// Bytes that were read and written since the threads began.
    struct Counts {
        std::uint64_t read_bytes = 0;
        std::uint64_t written_bytes = 0;
    };
    [[nodiscard]] Counts counts() const noexcept {
        return {read_bytes_.load(std::memory_order_relaxed), written_bytes_.load(std::memory_order_relaxed)};
    }

private:
    void work() noexcept {
        std::unique_lock lock(mutex_);
        while (true) {
            work_.wait(lock, [&] { return count_ != 0 || stopped_; });
            if (count_ == 0) return;
            const Transfer transfer = queue_[first_];
            first_ = (first_ + 1) % queue_.size();
            --count_;
            lock.unlock();
            room_.notify_one();
            const int error = run(transfer);
            if (error != 0) transfer.group->error_.store(error, std::memory_order_relaxed);
            // The group may be gone once its last transfer is done and its owner woke: notify_all() touches no more
            // than the address.
            std::atomic<std::uint32_t>& pending = transfer.group->pending_;
            if (pending.fetch_sub(1, std::memory_order_acq_rel) == 1) pending.notify_all();
            lock.lock();
        }
    }
    int run(const Transfer& t) noexcept {
        int error = 0;
        if (t.write) {
            if (t.check != nullptr) error = t.check(t);
            if (error == 0) error = t.file->write(t.offset, {t.memory, t.bytes});
            written_bytes_.fetch_add(t.bytes, std::memory_order_relaxed);
        } else {
            error = t.file->read(t.offset, {t.memory, t.bytes});
            if (error == 0 && t.check != nullptr) error = t.check(t);
            read_bytes_.fetch_add(t.bytes, std::memory_order_relaxed);
        }
        return error;
    }
    void stop() noexcept {
        {
            const std::lock_guard lock(mutex_);
            stopped_ = true;
        }
        work_.notify_all();
        for (std::thread& thread : threads_) thread.join();
    }

    std::vector<Transfer> queue_;
    std::size_t first_ = 0, count_ = 0;
    bool stopped_ = false;
    std::mutex mutex_;
    std::condition_variable work_, room_;
    std::atomic<std::uint64_t> read_bytes_ = 0, written_bytes_ = 0;
    std::vector<std::thread> threads_;
};

}  // namespace memory
}  // namespace zse::inline v1
