// SPDX-License-Identifier: Apache-2.0
// A block of threads on the host: each is a fiber, and gives way at barriers. For emulated.hpp.
#pragma once

#include <zse/core/error.hpp>
#include <zse/exec/cuda/shadow.hpp>
#include <zse/exec/cuda/thread.hpp>

#include <boost/context/fiber.hpp>
#include <boost/context/pooled_fixedsize_stack.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <new>
#include <span>
#include <string>
#include <utility>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

namespace zse::inline v1 {
namespace exec {
namespace gpu {

/// In which order the blocks run, and those threads of a block that can go on: a correct kernel gives the same with all
/// of them.
enum class Order : std::uint8_t { ascending, descending, shuffled };

/// Runs the blocks of a kernel one after the other, their threads as fibers that give way at barriers. Throws internal,
/// with the block and the thread, for a race in shared memory, an access out of bounds, a read of what nobody wrote, and
/// for barriers that some threads of a warp or block never reach.
class EmulatedBlock {
public:
    template <class K>
    static void run_grid(const K& kernel, Order order = Order::ascending, std::uint64_t seed = 1) {
        const Launch launch = kernel.launch();
        if (launch.threads == 0 || launch.threads > K::threads || launch.threads % warp_threads != 0) {
            throw Error(ErrorCode::internal,
                        text("a launch of ", launch.threads, " threads; the kernel has at most ",
                             unsigned{K::threads}, ", in whole warps"));
        }
        if (launch.shared_bytes > most_shared_bytes) {
            throw Error(ErrorCode::internal,
                        text("a launch with ", launch.shared_bytes,
                             " bytes of shared memory; a block has at most ", most_shared_bytes));
        }
        EmulatedBlock block(launch, order, seed);
        std::vector<Index3> places;
        for (unsigned z = 0; z < launch.blocks.z; ++z) {
            for (unsigned y = 0; y < launch.blocks.y; ++y) {
                for (unsigned x = 0; x < launch.blocks.x; ++x) places.push_back({x, y, z});
            }
        }
        if (order == Order::descending) std::ranges::reverse(places);
        if (order == Order::shuffled) block.shuffle(places);
        for (const Index3 place : places) block.run(kernel, place);
    }

    /// What a block of the smallest supported GPU may ask for (compute capability 8.6 and 8.9: 99 KiB).
    static constexpr unsigned most_shared_bytes = 99 * 1024;

private:
    friend class EmulatedThread;
    using Fiber = boost::context::fiber;

    /// A collective of the warp waits for all its lanes but, unlike sync_warp, orders no memory.
    enum class State : std::uint8_t { ready, at_block, at_warp, at_collective, done };
    struct Lane {
        Fiber fiber;
        Fiber back;
        State state = State::ready;
        std::uint32_t collectives = 0;       ///< of the warp, that this lane has reached
        std::uint32_t block_operations = 0;  ///< likewise
#if defined(__SANITIZE_ADDRESS__)
        const void* stack_bottom = nullptr;
        std::size_t stack_size = 0;
        void* fake = nullptr;
#endif
    };
    struct Abandoned {};
    /// Room for the values that lanes show each other. A lane is at most one collective ahead of the others, so two
    /// are enough.
    struct alignas(64) Show {
        std::byte bytes[64];
    };
    using Shows = std::array<Show, warp_threads>;
    struct Warp {
        std::uint32_t epoch = 1;
        std::array<Shows, 2> shown{};
    };
    struct Copy {
        std::byte* to;
        std::size_t at;
        const void* from;
        bool valid;
    };

    EmulatedBlock(const Launch& launch, Order order, std::uint64_t seed)
        : launch_(launch),
          order_(order),
          random_(seed | 1),
          stacks_(stack_bytes),
          lanes_(launch.threads),
          warps_(launch.threads / warp_threads),
          copies_(launch.threads),
          turn_(launch.threads) {
        // Aligned as on a GPU.
        shared_.reset(
            static_cast<std::byte*>(::operator new (launch.shared_bytes + 1, std::align_val_t{128})));
    }

    template <class K>
    void run(const K& kernel, Index3 place);

    void schedule() {
        for (std::size_t i = 0; i < turn_.size(); ++i) {
            turn_[i] = static_cast<unsigned>(order_ == Order::descending ? turn_.size() - 1 - i : i);
        }
        for (;;) {
            bool moved = false;
            if (order_ == Order::shuffled) shuffle(turn_);
            for (const unsigned i : turn_) {
                if (lanes_[i].state != State::ready) continue;
                resume(i);
                if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
                moved = true;
            }
            if (moved) continue;
            if (!release()) return;
        }
    }
    template <class E>
    void shuffle(std::vector<E>& list) noexcept {
        for (std::size_t i = list.size(); i-- > 1;) {
            random_ = random_ * 6364136223846793005u + 1442695040888963407u;
            std::swap(list[i], list[(random_ >> 33) % (i + 1)]);
        }
    }
    /// All threads wait or are done: lets go those whose barrier is complete. False where all are done.
    bool release() {
        bool any = false;
        for (std::size_t w = 0; w < warps_.size(); ++w) {
            const auto lanes = std::span(lanes_).subspan(w * warp_threads, warp_threads);
            const State state = lanes.front().state;
            if (state != State::at_warp && state != State::at_collective) continue;
            if (!std::ranges::all_of(lanes, [state](const Lane& l) { return l.state == state; })) continue;
            if (state == State::at_warp) ++warps_[w].epoch;
            for (Lane& lane : lanes) lane.state = State::ready;
            any = true;
        }
        if (any) return true;
        if (std::ranges::all_of(lanes_, [](const Lane& l) { return l.state == State::done; })) return false;
        if (std::ranges::all_of(lanes_, [](const Lane& l) { return l.state == State::at_block; })) {
            if (posted_ != 0) {
                throw Error(
                    ErrorCode::internal,
                    text(posted_, " threads are at an operation of the block, the others at a barrier"));
            }
            ++block_epoch_;
            for (Lane& lane : lanes_) lane.state = State::ready;
            return true;
        }
        const auto first = [&](State state) {
            const auto found = std::ranges::find(lanes_, state, &Lane::state);
            return found == lanes_.end() ? std::string("none") : text(found - lanes_.begin());
        };
        throw Error(ErrorCode::internal,
                    text("threads wait for others that never come: at a barrier of the block, first thread ",
                         first(State::at_block), "; at one of their warp, first ", first(State::at_warp),
                         "; at an operation of their warp, first ", first(State::at_collective),
                         "; done, first ", first(State::done)));
    }

    void resume(unsigned i) {
        Lane& lane = lanes_[i];
#if defined(__SANITIZE_ADDRESS__)
        void* fake = nullptr;
        __sanitizer_start_switch_fiber(&fake, lane.stack_bottom, lane.stack_size);
        lane.fiber = std::move(lane.fiber).resume();
        __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#else
        lane.fiber = std::move(lane.fiber).resume();
#endif
    }
    /// Gives way until the barrier is complete.
    void wait(unsigned thread, State at) {
        Lane& lane = lanes_[thread];
        lane.state = at;
#if defined(__SANITIZE_ADDRESS__)
        __sanitizer_start_switch_fiber(&lane.fake, host_bottom_, host_size_);
        lane.back = std::move(lane.back).resume();
        __sanitizer_finish_switch_fiber(lane.fake, &host_bottom_, &host_size_);
#else
        lane.back = std::move(lane.back).resume();
#endif
        if (abandoned_) throw Abandoned{};
    }
    /// Ends the threads that wait, after an error: they leave their kernel as an exception does. (Not by destroying their
    /// fibers: the address sanitizer has to be told of every switch.)
    void abandon() noexcept {
        abandoned_ = true;
        for (unsigned i = 0; i < lanes_.size(); ++i) {
            while (lanes_[i].fiber) resume(i);
        }
        failure_ = nullptr;
        abandoned_ = false;
    }

    [[nodiscard]] detail::Shadow::Who who(unsigned thread) const noexcept {
        return {thread, block_epoch_, warps_[thread / warp_threads].epoch};
    }

    static constexpr std::size_t stack_bytes = 128 * 1024;
    struct Free {
        void operator()(std::byte* at) const noexcept { ::operator delete (at, std::align_val_t{128}); }
    };

    Launch launch_;
    Order order_;
    std::uint64_t random_;
    boost::context::pooled_fixedsize_stack stacks_;
    std::vector<Lane> lanes_;
    std::vector<Warp> warps_;
    std::vector<std::vector<std::vector<Copy>>> copies_;  ///< `[thread][group]`, the last one open
    std::vector<unsigned> turn_;
    std::unique_ptr<std::byte[], Free> shared_;
    detail::Shadow shadow_;
    std::uint32_t block_epoch_ = 1;
    Index3 place_{};
    std::exception_ptr failure_;
    bool abandoned_ = false;
    /// What threads show the block, 8 bytes each. A thread is at most one operation ahead of the others, so two are
    /// enough.
    std::array<std::vector<std::uint64_t>, 2> boards_;
    unsigned posted_ = 0;  ///< threads that are at the current operation of the block
#if defined(__SANITIZE_ADDRESS__)
    const void* host_bottom_ = nullptr;
    std::size_t host_size_ = 0;
#endif
};

}  // namespace gpu
}  // namespace exec
}  // namespace zse::inline v1
