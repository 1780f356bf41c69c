// SPDX-License-Identifier: Apache-2.0
// The vocabulary of kernels on the host, where no GPU is: each thread of a block is a fiber, and what a GPU would only
// sometimes get wrong is an error here. For tests; a program that includes it links Boost.Context.
#pragma once

#include <zse/core/dtype.hpp>
#include <zse/core/error.hpp>
#include <zse/exec/cuda/shadow.hpp>
#include <zse/exec/cuda/stream.hpp>

#include <boost/context/fiber.hpp>
#include <boost/context/pooled_fixedsize_stack.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <exception>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

namespace zse::inline v1 {
namespace exec {
namespace cuda {

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
    struct Warp {
        std::uint32_t epoch = 1;
        std::array<std::array<std::array<std::byte, 32>, warp_threads>, 2> shown{};
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

/// One thread of a block on the host: see DeviceThread.
class EmulatedThread {
public:
    static constexpr bool emulated = true;

    EmulatedThread(EmulatedBlock& block, unsigned thread) noexcept : block_(&block), thread_(thread) {}

    /// Elements of shared memory; every access is checked.
    template <class E>
    class Shared {
        static_assert(std::is_trivially_copyable_v<E>);

    public:
        /// Stands for one element, until the end of the expression: where a GPU would copy the value into a variable, this
        /// does not compile.
        class Element {
        public:
            // NOLINTNEXTLINE(google-explicit-constructor): it is to be used as an E
            operator E() const&& { return value(); }
            void operator=(const E& v) && {
                block_->shadow_.write(at_, sizeof(E), block_->who(thread_));
                std::memcpy(block_->shared_.get() + at_, &v, sizeof v);
            }
            void operator=(const Element& other) && { std::move(*this) = other.value(); }
            void operator+=(const E& v) && { std::move(*this) = value() + v; }
            void operator*=(const E& v) && { std::move(*this) = value() * v; }
            Element(const Element&) = delete;
            ~Element() = default;

        private:
            friend class Shared;
            Element(EmulatedBlock* block, unsigned thread, std::size_t at) noexcept
                : block_(block), thread_(thread), at_(at) {}
            [[nodiscard]] E value() const {
                block_->shadow_.read(at_, sizeof(E), block_->who(thread_));
                E v;
                std::memcpy(&v, block_->shared_.get() + at_, sizeof v);
                return v;
            }
            EmulatedBlock* block_;
            unsigned thread_;
            std::size_t at_;
        };

        Shared(EmulatedBlock* block, unsigned thread, std::size_t at, std::size_t end) noexcept
            : block_(block), thread_(thread), at_(at), end_(end) {}
        Element operator[](std::size_t i) const {
            const std::size_t at = at_ + i * sizeof(E);
            if (at + sizeof(E) > end_ || at % alignof(E) != 0) refuse(i);
            return {block_, thread_, at};
        }
        [[nodiscard]] Shared from(std::size_t i) const {
            return {block_, thread_, at_ + i * sizeof(E), end_};
        }
        template <class F>
        [[nodiscard]] Shared<F> as() const {
            return {block_, thread_, at_, end_};
        }

    private:
        friend class EmulatedThread;
        /// An atomic operation; the old value.
        template <class F>
        std::uint32_t change(std::size_t i, const F& f) const {
            static_assert(std::is_same_v<E, std::uint32_t>, "atomic operations take 32-bit numbers");
            const std::size_t at = at_ + i * sizeof(E);
            if (at + sizeof(E) > end_ || at % alignof(E) != 0) refuse(i);
            block_->shadow_.atomic(at, sizeof(E), block_->who(thread_));
            E old;
            std::memcpy(&old, block_->shared_.get() + at, sizeof old);
            const E now = f(old);
            std::memcpy(block_->shared_.get() + at, &now, sizeof now);
            return old;
        }
        [[noreturn]] void refuse(std::size_t i) const {
            throw Error(ErrorCode::internal,
                        text("thread ", thread_, " uses element ", i, " of ", sizeof(E), " bytes at byte ",
                             at_, " of shared memory: it has to end at ", end_, " and to be aligned"));
        }
        EmulatedBlock* block_;
        unsigned thread_;
        std::size_t at_;
        std::size_t end_;
    };

    [[nodiscard]] unsigned thread() const noexcept { return thread_; }
    [[nodiscard]] unsigned lane() const noexcept { return thread_ % warp_threads; }
    [[nodiscard]] unsigned warp() const noexcept { return thread_ / warp_threads; }
    [[nodiscard]] Index3 block() const noexcept { return block_->place_; }
    [[nodiscard]] Index3 blocks() const noexcept { return block_->launch_.blocks; }

    void sync() { block_->wait(thread_, EmulatedBlock::State::at_block); }
    void sync_warp() { block_->wait(thread_, EmulatedBlock::State::at_warp); }
    void fence() const noexcept {}

    template <class E>
    Shared<E> shared(std::size_t offset, std::size_t count) {
        const std::size_t end = offset + count * sizeof(E);
        if (end > block_->launch_.shared_bytes) {
            throw Error(ErrorCode::internal,
                        text("thread ", thread_, " names bytes ", offset, " to ", end,
                             " of shared memory, which has ", block_->launch_.shared_bytes));
        }
        return {block_, thread_, offset, end};
    }

    template <class V>
    V shuffle(V v, unsigned lane) {
        return show(v).template get<V>(lane % warp_threads);
    }
    template <class V>
    V shuffle_xor(V v, unsigned mask) {
        return show(v).template get<V>((lane() ^ mask) % warp_threads);
    }
    /// The top lanes get their own value.
    template <class V>
    V shuffle_down(V v, unsigned by) {
        const Shown shown = show(v);
        return lane() + by < warp_threads ? shown.template get<V>(lane() + by) : v;
    }
    std::uint32_t ballot(bool v) {
        const Shown shown = show(std::uint32_t{v});
        std::uint32_t bits = 0;
        for (unsigned i = 0; i < warp_threads; ++i) bits |= shown.get<std::uint32_t>(i) << i;
        return bits;
    }
    template <class V, class Op>
    V warp_reduce(V v, Op op) {
        for (unsigned mask = warp_threads / 2; mask > 0; mask /= 2) v = op(v, shuffle_xor(v, mask));
        return v;
    }
    template <unsigned Threads, class V, class Op>
    V block_reduce(V v, Op op) {
        const Board all = post<Threads>(
            Threads, [&](Board board) { board.set(thread_, v); },
            [&](Board board) {
                V sum = board.get<V>(0);
                for (unsigned i = 1; i < Threads; ++i) sum = op(sum, board.get<V>(i));
                board.set(0, sum);
            });
        return all.get<V>(0);
    }
    template <unsigned Threads, class V>
    V block_scan(V v, V& total) {
        const Board all = post<Threads>(
            Threads + 1, [&](Board board) { board.set(thread_, v); },
            [](Board board) {
                V sum{};
                for (unsigned i = 0; i < Threads; ++i) {
                    const V mine = board.get<V>(i);
                    board.set(i, sum);
                    sum = sum + mine;
                }
                board.set(Threads, sum);
            });
        total = all.get<V>(Threads);
        return all.get<V>(thread_);
    }
    template <unsigned Threads, unsigned Items, class K, class V>
    void block_sort_descending(K (&keys)[Items], V (&values)[Items]) {
        constexpr std::size_t count = std::size_t{Threads} * Items;
        const std::size_t first = std::size_t{thread_} * Items;
        const Board all = post<Threads>(
            count * 2,
            [&](Board board) {
                for (std::size_t i = 0; i < Items; ++i) {
                    board.set(first + i, keys[i]);
                    board.set(count + first + i, values[i]);
                }
            },
            [](Board board) {
                std::vector<std::pair<K, V>> pairs(count);
                for (std::size_t i = 0; i < count; ++i) pairs[i] = {board.get<K>(i), board.get<V>(count + i)};
                std::ranges::stable_sort(pairs,
                                         [](const auto& a, const auto& b) { return a.first > b.first; });
                for (std::size_t i = 0; i < count; ++i) {
                    board.set(i, pairs[i].first);
                    board.set(count + i, pairs[i].second);
                }
            });
        for (std::size_t i = 0; i < Items; ++i) {
            keys[i] = all.get<K>(first + i);
            values[i] = all.get<V>(count + first + i);
        }
    }

    template <class V>
    V load(const V* p) const {
        expect_aligned(p, alignof(V));
        return *p;
    }
    template <class V>
    V load_once(const V* p) const {
        return load(p);
    }
    template <class V>
    V load_fresh(const V* p) const {
        return load(p);
    }
    float atomic_add(float* p, float v) const noexcept { return std::exchange(*p, *p + v); }
    std::uint32_t atomic_add(std::uint32_t* p, std::uint32_t v) const noexcept {
        return std::exchange(*p, *p + v);
    }
    template <class E>
    std::uint32_t atomic_add(const Shared<E>& s, std::size_t i, std::uint32_t v) const {
        return s.change(i, [v](E old) { return old + v; });
    }
    template <class E>
    std::uint32_t atomic_or(const Shared<E>& s, std::size_t i, std::uint32_t v) const {
        return s.change(i, [v](E old) { return old | v; });
    }
    std::uint32_t atomic_max(std::uint32_t* p, std::uint32_t v) const noexcept {
        return std::exchange(*p, std::max(*p, v));
    }

    void copy_async(const Shared<Chunk>& to, const void* from, bool valid = true) {
        if (to.at_ + sizeof(Chunk) > to.end_ || to.at_ % sizeof(Chunk) != 0) to.refuse(0);
        if (valid) expect_aligned(from, sizeof(Chunk));
        block_->shadow_.begin_copy(to.at_, sizeof(Chunk), block_->who(thread_));
        block_->copies_[thread_].back().push_back({block_->shared_.get() + to.at_, to.at_, from, valid});
    }
    void commit() { block_->copies_[thread_].emplace_back(); }
    template <unsigned N>
    void wait() {
        auto& groups = block_->copies_[thread_];
        while (groups.size() - 1 > N) {
            for (const EmulatedBlock::Copy& copy : groups.front()) {
                if (copy.valid) {
                    std::memcpy(copy.to, copy.from, sizeof(Chunk));
                } else {
                    std::memset(copy.to, 0, sizeof(Chunk));
                }
                block_->shadow_.end_copy(copy.at, sizeof(Chunk), block_->who(thread_));
            }
            groups.erase(groups.begin());
        }
    }

    void mma(FragmentD& d, const FragmentA& a, const FragmentB& b) {
        multiply(d, a, b, [](std::uint32_t bits) { return static_cast<float>(half(bits)); });
    }
    FragmentD product(const FragmentA& a, const FragmentB& b) {
        FragmentD d{};
        mma(d, a, b);
        return d;
    }
    void mma_bf16(FragmentD& d, const FragmentA& a, const FragmentB& b) {
        multiply(d, a, b, [](std::uint32_t bits) { return std::bit_cast<float>(bits << 16); });
    }
    FragmentA ldmatrix(const Shared<Chunk>& row) { return load_matrices(row, false); }
    FragmentA ldmatrix_transposed(const Shared<Chunk>& row) { return load_matrices(row, true); }

    static std::uint32_t to_halves(float low, float high) noexcept {
        return f16(low).bits | static_cast<std::uint32_t>(f16(high).bits) << 16;
    }
    static std::uint32_t to_bfloats(float low, float high) noexcept {
        return bf16(low).bits | static_cast<std::uint32_t>(bf16(high).bits) << 16;
    }
    static float low(std::uint32_t pair) noexcept { return static_cast<float>(half(pair & 0xffffu)); }
    static float high(std::uint32_t pair) noexcept { return static_cast<float>(half(pair >> 16)); }
    static std::uint32_t half_fma(std::uint32_t a, std::uint32_t b, std::uint32_t c) noexcept {
        // Exact in double, so rounded once.
        return to_halves(once(double{low(a)} * double{low(b)} + double{low(c)}),
                         once(double{high(a)} * double{high(b)} + double{high(c)}));
    }
    static std::uint32_t half_add(std::uint32_t a, std::uint32_t b) noexcept {
        return to_halves(low(a) + low(b), high(a) + high(b));
    }
    static std::uint32_t half_mul(std::uint32_t a, std::uint32_t b) noexcept {
        return to_halves(low(a) * low(b), high(a) * high(b));
    }
    static std::uint32_t e4m3_to_halves(std::uint16_t codes) noexcept {
        return to_halves(e4m3(codes & 0xffu), e4m3(static_cast<unsigned>(codes) >> 8));
    }
    static float exp(float v) noexcept { return std::exp(v); }
    static double log(double v) noexcept { return std::log(v); }
    static std::uint32_t pick_bytes(std::uint32_t a, std::uint32_t b, std::uint32_t selector) noexcept {
        const std::uint64_t both = std::uint64_t{b} << 32 | a;
        std::uint32_t picked = 0;
        for (unsigned i = 0; i < 4; ++i) {
            const unsigned from = selector >> (4 * i) & 7u;
            picked |= static_cast<std::uint32_t>(both >> (8 * from) & 0xffu) << (8 * i);
        }
        return picked;
    }
    static std::uint32_t pick_bytes_or_signs(std::uint32_t a, std::uint32_t b,
                                             std::uint32_t selector) noexcept {
        std::uint32_t picked = pick_bytes(a, b, selector);
        for (unsigned i = 0; i < 4; ++i) {
            if ((selector >> (4 * i + 3) & 1u) == 0) continue;
            const std::uint32_t ones = 0xffu << (8 * i);
            picked = (picked >> (8 * i + 7) & 1u) != 0 ? picked | ones : picked & ~ones;
        }
        return picked;
    }
    static float nearest(float v) noexcept { return std::nearbyint(v); }
    static float exp2(float v) noexcept { return std::exp2(v); }
    static float log2(float v) noexcept { return std::log2(v); }
    static float rsqrt(float v) noexcept { return 1.0f / std::sqrt(v); }

private:
    /// What all lanes of the warp showed in one collective.
    struct Shown {
        const std::array<std::array<std::byte, 32>, warp_threads>* values;
        template <class V>
        [[nodiscard]] V get(unsigned lane) const noexcept {
            V v;
            std::memcpy(&v, (*values)[lane].data(), sizeof v);
            return v;
        }
    };
    template <class V>
    Shown show(const V& v) {
        static_assert(sizeof(V) <= 32 && std::is_trivially_copyable_v<V>);
        EmulatedBlock::Warp& warp = block_->warps_[this->warp()];
        auto& room = warp.shown[block_->lanes_[thread_].collectives++ % 2];
        std::memcpy(room[lane()].data(), &v, sizeof v);
        block_->wait(thread_, EmulatedBlock::State::at_collective);
        return {&room};
    }
    /// What the threads of the block showed in one operation.
    struct Board {
        std::uint64_t* slots;
        template <class V>
        [[nodiscard]] V get(std::size_t slot) const noexcept {
            V v;
            std::memcpy(&v, slots + slot, sizeof v);
            return v;
        }
        template <class V>
        void set(std::size_t slot, const V& v) const noexcept {
            static_assert(sizeof(V) <= sizeof *slots && std::is_trivially_copyable_v<V>);
            std::memcpy(slots + slot, &v, sizeof v);
        }
    };
    /// Each thread fills in its part of the slots; the one that comes last does the work for all.
    template <unsigned Threads, class Fill, class Work>
    Board post(std::size_t slots, const Fill& fill, const Work& work) {
        if (Threads != block_->launch_.threads) {
            throw Error(ErrorCode::internal, text("an operation of ", Threads, " threads in a block of ",
                                                  block_->launch_.threads));
        }
        auto& room = block_->boards_[block_->lanes_[thread_].block_operations++ % 2];
        if (room.size() < slots) room.resize(slots);
        const Board board{room.data()};
        fill(board);
        if (++block_->posted_ == Threads) {
            work(board);
            block_->posted_ = 0;
        }
        sync();
        return {room.data()};
    }
    void expect_aligned(const void* p, std::size_t alignment) const {
        if (reinterpret_cast<std::uintptr_t>(p) % alignment == 0) return;
        throw Error(ErrorCode::internal, text("thread ", thread_, " reads ", alignment,
                                              " bytes from an address that is no multiple of that"));
    }
    template <class Convert>
    void multiply(FragmentD& d, const FragmentA& a, const FragmentB& b, const Convert& convert) {
        struct Both {
            FragmentA a;
            FragmentB b;
        };
        const Shown shown = show(Both{a, b});
        const unsigned group = lane() / 4;
        const unsigned column = lane() % 4 * 2;
        for (unsigned i = 0; i < 4; ++i) {
            const unsigned row = group + (i < 2 ? 0 : 8);
            const unsigned col = column + i % 2;
            float sum = d.values[i];
            for (unsigned k = 0; k < 16; ++k) {
                const unsigned pair = k % 8 / 2;
                const Both of_a = shown.get<Both>(row % 8 * 4 + pair);
                const Both of_b = shown.get<Both>(col * 4 + pair);
                const std::uint32_t x = of_a.a.pairs[(row < 8 ? 0 : 1) + (k < 8 ? 0 : 2)];
                const std::uint32_t y = of_b.b.pairs[k < 8 ? 0 : 1];
                const unsigned shift = k % 2 * 16;
                sum += convert(x >> shift & 0xffffu) * convert(y >> shift & 0xffffu);
            }
            d.values[i] = sum;
        }
    }
    FragmentA load_matrices(const Shared<Chunk>& row, bool transposed) {
        const Chunk mine = row[0];
        struct Row {
            Chunk chunk;
        };
        const Shown shown = show(Row{mine});
        FragmentA r{};
        const auto element = [&](unsigned matrix, unsigned i, unsigned j) {
            const Row of = shown.get<Row>(matrix * 8 + i);
            return (of.chunk.words[j / 2] >> (j % 2 * 16)) & 0xffffu;
        };
        const unsigned i = lane() / 4;
        const unsigned j = lane() % 4 * 2;
        for (unsigned matrix = 0; matrix < 4; ++matrix) {
            const std::uint32_t first = transposed ? element(matrix, j, i) : element(matrix, i, j);
            const std::uint32_t second = transposed ? element(matrix, j + 1, i) : element(matrix, i, j + 1);
            r.pairs[matrix] = first | second << 16;
        }
        return r;
    }
    static f16 half(std::uint32_t bits) noexcept {
        return std::bit_cast<f16>(static_cast<std::uint16_t>(bits));
    }
    /// To float by rounding to odd, so that rounding the result to a half is rounding the double.
    static float once(double v) noexcept {
        auto f = static_cast<float>(v);
        const double back = f;
        if (back == v || !std::isfinite(f)) return f;
        auto bits = std::bit_cast<std::uint32_t>(f);
        if ((bits & 1u) == 0) {
            const bool away = std::fabs(back) < std::fabs(v);
            bits = away ? bits + 1 : bits - 1;
        }
        return std::bit_cast<float>(bits);
    }
    static float e4m3(unsigned code) noexcept {
        const unsigned magnitude = code & 0x7fu;
        if (magnitude == 0x7f) return std::numeric_limits<float>::quiet_NaN();
        const float value = magnitude >= 8 ? std::ldexp(static_cast<float>(8 + magnitude % 8),
                                                        static_cast<int>(magnitude / 8) - 10)
                                           : std::ldexp(static_cast<float>(magnitude), -9);
        return (code & 0x80u) != 0 ? -value : value;
    }

    EmulatedBlock* block_;
    unsigned thread_;
};

template <class K>
void EmulatedBlock::run(const K& kernel, Index3 place) {
    place_ = place;
    shadow_.begin(launch_.shared_bytes);
    for (auto& groups : copies_) groups.assign(1, {});
    for (Warp& warp : warps_) warp.epoch = 1;
    block_epoch_ = 1;
    posted_ = 0;
    for (unsigned i = 0; i < launch_.threads; ++i) {
        Lane& lane = lanes_[i];
        lane.state = State::ready;
        lane.collectives = 0;
        lane.block_operations = 0;
        const boost::context::stack_context stack = stacks_.allocate();
#if defined(__SANITIZE_ADDRESS__)
        lane.stack_bottom = static_cast<const std::byte*>(stack.sp) - stack.size;
        lane.stack_size = stack.size;
#endif
        lane.fiber = Fiber(std::allocator_arg, boost::context::preallocated(stack.sp, stack.size, stack),
                           stacks_, [this, &kernel, i](Fiber&& back) {
                               Lane& self = lanes_[i];
#if defined(__SANITIZE_ADDRESS__)
                               __sanitizer_finish_switch_fiber(nullptr, &host_bottom_, &host_size_);
#endif
                               self.back = std::move(back);
                               try {
                                   EmulatedThread thread(*this, i);
                                   if (!abandoned_) kernel(thread);
                               } catch (const Abandoned&) {
                                   // The error that it ends for is known.
                               } catch (...) {
                                   failure_ = std::current_exception();
                               }
                               self.state = State::done;
#if defined(__SANITIZE_ADDRESS__)
                               __sanitizer_start_switch_fiber(nullptr, host_bottom_, host_size_);
#endif
                               return std::move(self.back);
                           });
    }
    try {
        schedule();
    } catch (const Error& error) {
        abandon();
        throw Error(error.code(),
                    text("block (", place.x, ", ", place.y, ", ", place.z, "): ", error.what()));
    } catch (...) {
        abandon();
        throw;
    }
    for (std::size_t i = 0; i < copies_.size(); ++i) {
        for (const auto& group : copies_[i]) {
            if (group.empty()) continue;
            throw Error(ErrorCode::internal,
                        text("block (", place.x, ", ", place.y, ", ", place.z, "): thread ", i,
                             " ends with copies under way; wait for them"));
        }
    }
}

/// Launches on the host, at once. The first error is kept as a device's would be.
struct Emulated {
    template <Kernel K>
    static void launch(Stream& stream, const K& kernel) noexcept {
        const Launch l = kernel.launch();
        if (stream.failed() || l.blocks.x == 0 || l.blocks.y == 0 || l.blocks.z == 0) return;
        if (stream.recording() != nullptr) {
            stream.recording()->push_back([kernel](Stream& later) { launch(later, kernel); });
            return;
        }
        try {
            stream.count();
            EmulatedBlock::run_grid(kernel);
        } catch (const std::exception& error) {
            last_error() = error.what();
            stream.fail(1, last_error().c_str());
        }
    }
    /// What the first kernel that failed on this thread said.
    static std::string& last_error() {
        thread_local std::string text;
        return text;
    }
};

}  // namespace cuda
}  // namespace exec
}  // namespace zse::inline v1
