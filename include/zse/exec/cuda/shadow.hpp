// SPDX-License-Identifier: Apache-2.0
// What the bytes of a block's shared memory have seen, and whether the next access is in order: for the host that stands
// in for a GPU.
#pragma once

#include <zse/core/error.hpp>
#include <zse/exec/cuda/thread.hpp>

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace zse::inline v1 {
namespace exec {
namespace gpu {
namespace detail {

/// Two accesses of which one writes have to be separated by a barrier of the block, or by one of the warp where both
/// threads are of one. Atomic operations need no barrier between them, but one towards all other accesses.
class Shadow {
public:
    /// A thread at a point in time.
    struct Who {
        unsigned thread;
        std::uint32_t block_epoch;
        std::uint32_t warp_epoch;
    };

    void begin(std::size_t bytes) {
        cells_.assign(bytes, Cell{});
        bytes_ = bytes;
    }
    void read(std::size_t at, std::size_t bytes, const Who& who) {
        check(at, bytes, who, "reads");
        for (Cell& cell : cells(at, bytes)) {
            expect_written(cell, at, who);
            if (!cell.atomics.before(who)) race(at, who, "reads", cell.atomics, "changed");
            cell.readers.add(who);
        }
    }
    void write(std::size_t at, std::size_t bytes, const Who& who) {
        claim(at, bytes, who);
        for (Cell& cell : cells(at, bytes)) cell.written = true;
    }
    /// Reads and writes in one.
    void atomic(std::size_t at, std::size_t bytes, const Who& who) {
        check(at, bytes, who, "reads");
        for (Cell& cell : cells(at, bytes)) {
            expect_written(cell, at, who);
            if (!cell.readers.before(who)) race(at, who, "writes", cell.readers, "read");
            cell.atomics.add(who);
        }
    }
    /// A copy begins that will write at any time until it is waited for.
    void begin_copy(std::size_t at, std::size_t bytes, const Who& who) {
        claim(at, bytes, who);
        for (Cell& cell : cells(at, bytes)) cell.pending = true;
    }
    void end_copy(std::size_t at, std::size_t bytes, const Who& who) {
        for (Cell& cell : cells(at, bytes)) {
            cell.pending = false;
            cell.written = true;
            cell.writers = {};
            cell.writers.add(who);
        }
    }

private:
    /// Accesses of one kind since the last that was ordered before them all: who came last, and how far they are apart.
    struct Past {
        enum class Width : std::uint8_t { none, thread, warp, block };

        Who latest{};
        Width width = Width::none;

        [[nodiscard]] bool before(const Who& now) const noexcept {
            if (width == Width::none || latest.block_epoch != now.block_epoch) return true;
            if (width == Width::thread && latest.thread == now.thread) return true;
            return width != Width::block && latest.thread / warp_threads == now.thread / warp_threads &&
                   latest.warp_epoch != now.warp_epoch;
        }
        void add(const Who& now) noexcept {
            if (width == Width::none || latest.block_epoch != now.block_epoch) {
                width = Width::thread;
            } else if (latest.thread / warp_threads != now.thread / warp_threads) {
                width = Width::block;
            } else if (latest.thread != now.thread && width == Width::thread) {
                width = Width::warp;
            }
            latest = now;
        }
    };
    struct Cell {
        Past writers;
        Past atomics;  ///< since then
        Past readers;
        bool written = false;
        bool pending = false;
    };

    void claim(std::size_t at, std::size_t bytes, const Who& who) {
        check(at, bytes, who, "writes");
        for (Cell& cell : cells(at, bytes)) {
            if (cell.pending) refuse(at, who, "writes where a copy that was not waited for writes");
            if (!cell.writers.before(who)) race(at, who, "writes", cell.writers, "wrote");
            if (!cell.atomics.before(who)) race(at, who, "writes", cell.atomics, "changed");
            if (!cell.readers.before(who)) race(at, who, "writes", cell.readers, "read");
            cell.writers = {};
            cell.writers.add(who);
            cell.atomics = {};
            cell.readers = {};
        }
    }
    void check(std::size_t at, std::size_t bytes, const Who& who, const char* what) const {
        if (at <= bytes_ && bytes <= bytes_ - at) return;
        throw Error(ErrorCode::internal, text("thread ", who.thread, " ", what, " ", bytes, " bytes at ", at,
                                              " of shared memory, which has ", bytes_));
    }
    std::span<Cell> cells(std::size_t at, std::size_t bytes) noexcept {
        return std::span(cells_).subspan(at, bytes);
    }
    static void expect_written(const Cell& cell, std::size_t at, const Who& who) {
        if (cell.pending) refuse(at, who, "reads what a copy that was not waited for is writing to");
        if (!cell.written) refuse(at, who, "reads what no thread has written to");
        if (!cell.writers.before(who)) race(at, who, "reads", cell.writers, "wrote");
    }
    [[noreturn]] static void refuse(std::size_t at, const Who& who, const char* what) {
        throw Error(ErrorCode::internal,
                    text("thread ", who.thread, " ", what, ", at byte ", at, " of shared memory"));
    }
    [[noreturn]] static void race(std::size_t at, const Who& who, const char* what, const Past& other,
                                  const char* other_what) {
        throw Error(ErrorCode::internal,
                    text("thread ", who.thread, " ", what, " byte ", at, " of shared memory, which thread ",
                         other.latest.thread, " ", other_what, " since the last barrier of both"));
    }

    std::vector<Cell> cells_;
    std::size_t bytes_ = 0;
};

}  // namespace detail
}  // namespace gpu
}  // namespace exec
}  // namespace zse::inline v1
