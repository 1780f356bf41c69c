// SPDX-License-Identifier: Apache-2.0
// The vocabulary of kernels on the host, where no GPU is: each thread of a block is a fiber, and what a GPU would only
// sometimes get wrong is an error here. For tests; a program that includes it links Boost.Context.
#pragma once

#include <zse/core/dtype.hpp>
#include <zse/core/error.hpp>
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

/// In which order the threads that can go on do so: a correct kernel gives the same with all of them.
enum class Order : std::uint8_t { ascending, descending, shuffled };

namespace detail {

/// What the bytes of shared memory have seen, and whether the next access is in order. Two accesses of which one writes
/// have to be separated by a barrier of the block, or by one of the warp where both threads are of one.
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
            if (cell.pending) refuse(at, who, "reads what a copy that was not waited for is writing to");
            if (!cell.written) refuse(at, who, "reads what no thread has written to");
            if (!ordered(cell.writer, who)) race(at, who, "reads", cell.writer, "wrote");
            note_reader(cell, who);
        }
    }
    void write(std::size_t at, std::size_t bytes, const Who& who) {
        claim(at, bytes, who);
        for (Cell& cell : cells(at, bytes)) {
            cell.written = true;
            cell.pending = false;
        }
    }
    /// A copy begins that will write at any time until it is waited for.
    void begin_copy(std::size_t at, std::size_t bytes, const Who& who) {
        claim(at, bytes, who);
        for (Cell& cell : cells(at, bytes)) cell.pending = true;
    }
    void end_copy(std::size_t at, std::size_t bytes, const Who& who) {
        for (Cell& cell : cells(at, bytes)) {
            cell.writer = who;
            cell.readers = Readers::none;
            cell.written = true;
            cell.pending = false;
        }
    }

private:
    enum class Readers : std::uint8_t { none, one, warp, several };
    struct Cell {
        Who writer{};
        Who reader{};  ///< the latest
        Readers readers = Readers::none;
        bool written = false;
        bool pending = false;
    };

    static bool ordered(const Who& before, const Who& now) noexcept {
        if (before.thread == now.thread || before.block_epoch != now.block_epoch) return true;
        return before.thread / warp_threads == now.thread / warp_threads &&
               before.warp_epoch != now.warp_epoch;
    }
    static void note_reader(Cell& cell, const Who& who) noexcept {
        const bool old = cell.readers == Readers::none || cell.reader.block_epoch != who.block_epoch;
        if (old) {
            cell.readers = Readers::one;
        } else if (cell.reader.thread / warp_threads != who.thread / warp_threads) {
            cell.readers = Readers::several;
        } else if (cell.reader.thread != who.thread && cell.readers == Readers::one) {
            cell.readers = Readers::warp;
        }
        cell.reader = who;
    }
    void claim(std::size_t at, std::size_t bytes, const Who& who) {
        check(at, bytes, who, "writes");
        for (Cell& cell : cells(at, bytes)) {
            if (cell.pending) refuse(at, who, "writes where a copy that was not waited for writes");
            if (cell.written && !ordered(cell.writer, who)) race(at, who, "writes", cell.writer, "wrote");
            const bool now = cell.readers != Readers::none && cell.reader.block_epoch == who.block_epoch;
            if (now) {
                const bool same_warp = cell.reader.thread / warp_threads == who.thread / warp_threads;
                const bool fine = (cell.readers == Readers::one && cell.reader.thread == who.thread) ||
                                  (cell.readers != Readers::several && same_warp &&
                                   cell.reader.warp_epoch != who.warp_epoch);
                if (!fine) race(at, who, "writes", cell.reader, "read");
            }
            cell.writer = who;
            cell.readers = Readers::none;
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
    [[noreturn]] static void refuse(std::size_t at, const Who& who, const char* what) {
        throw Error(ErrorCode::internal,
                    text("thread ", who.thread, " ", what, ", at byte ", at, " of shared memory"));
    }
    [[noreturn]] static void race(std::size_t at, const Who& who, const char* what, const Who& other,
                                  const char* other_what) {
        throw Error(ErrorCode::internal,
                    text("thread ", who.thread, " ", what, " byte ", at, " of shared memory, which thread ",
                         other.thread, " ", other_what, " since the last barrier of both"));
    }

    std::vector<Cell> cells_;
    std::size_t bytes_ = 0;
};

}  // namespace detail

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
        for (unsigned z = 0; z < launch.blocks.z; ++z) {
            for (unsigned y = 0; y < launch.blocks.y; ++y) {
                for (unsigned x = 0; x < launch.blocks.x; ++x) block.run(kernel, {x, y, z});
            }
        }
    }

    /// What a block of the smallest supported GPU may ask for (compute capability 8.6 and 8.9: 99 KiB).
    static constexpr unsigned most_shared_bytes = 99 * 1024;

private:
    friend class EmulatedThread;
    using Fiber = boost::context::fiber;

    enum class State : std::uint8_t { ready, at_block, at_warp, done };
    struct Lane {
        Fiber fiber;
        Fiber back;
        State state = State::ready;
        std::uint32_t collectives = 0;  ///< of the warp, that this lane has reached
#if defined(__SANITIZE_ADDRESS__)
        const void* stack_bottom = nullptr;
        std::size_t stack_size = 0;
        void* fake = nullptr;
#endif
    };
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
            if (order_ == Order::shuffled) {
                for (std::size_t i = turn_.size() - 1; i > 0; --i) {
                    random_ = random_ * 6364136223846793005u + 1442695040888963407u;
                    std::swap(turn_[i], turn_[(random_ >> 33) % (i + 1)]);
                }
            }
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
    /// All threads wait or are done: lets go those whose barrier is complete. False where all are done.
    bool release() {
        bool any = false;
        for (std::size_t w = 0; w < warps_.size(); ++w) {
            const auto lanes = std::span(lanes_).subspan(w * warp_threads, warp_threads);
            if (!std::ranges::all_of(lanes, [](const Lane& l) { return l.state == State::at_warp; }))
                continue;
            ++warps_[w].epoch;
            for (Lane& lane : lanes) lane.state = State::ready;
            any = true;
        }
        if (any) return true;
        if (std::ranges::all_of(lanes_, [](const Lane& l) { return l.state == State::done; })) return false;
        if (std::ranges::all_of(lanes_, [](const Lane& l) { return l.state == State::at_block; })) {
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
                         "; done, first ", first(State::done)));
    }

    void resume(unsigned i) {
        current_ = i;
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
    unsigned current_ = 0;
    std::exception_ptr failure_;
    std::vector<std::uint64_t> board_;  ///< what threads show the block, 8 bytes each
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
        /// Stands for one element.
        class Element {
        public:
            operator E() const {  // NOLINT(google-explicit-constructor): it is to be used as an E
                block_->shadow_.read(at_, sizeof(E), block_->who(thread_));
                E value;
                std::memcpy(&value, block_->shared_.get() + at_, sizeof value);
                return value;
            }
            Element& operator=(const E& value) {
                block_->shadow_.write(at_, sizeof(E), block_->who(thread_));
                std::memcpy(block_->shared_.get() + at_, &value, sizeof value);
                return *this;
            }
            Element& operator=(const Element& other) { return *this = static_cast<E>(other); }
            Element(const Element&) = default;
            ~Element() = default;
            Element& operator+=(const E& value) { return *this = static_cast<E>(*this) + value; }
            Element& operator*=(const E& value) { return *this = static_cast<E>(*this) * value; }

        private:
            friend class Shared;
            Element(EmulatedBlock* block, unsigned thread, std::size_t at) noexcept
                : block_(block), thread_(thread), at_(at) {}
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
        expect_threads(Threads);
        post(v);
        V all = posted<V>(0);
        for (unsigned i = 1; i < Threads; ++i) all = op(all, posted<V>(i));
        sync();
        return all;
    }
    template <unsigned Threads, class V>
    V block_scan(V v, V& total) {
        expect_threads(Threads);
        post(v);
        V before{};
        total = V{};
        for (unsigned i = 0; i < Threads; ++i) {
            if (i == thread_) before = total;
            total = total + posted<V>(i);
        }
        sync();
        return before;
    }
    template <unsigned Threads, unsigned Items, class K, class V>
    void block_sort_descending(K (&keys)[Items], V (&values)[Items]) {
        expect_threads(Threads);
        std::vector<std::pair<K, V>> all;
        K mine_keys[Items];
        V mine_values[Items];
        std::vector<std::array<K, Items>> every_keys(Threads);
        std::vector<std::array<V, Items>> every_values(Threads);
        for (unsigned item = 0; item < Items; ++item) {
            mine_keys[item] = keys[item];
            mine_values[item] = values[item];
            post(mine_keys[item]);
            for (unsigned i = 0; i < Threads; ++i) every_keys[i][item] = posted<K>(i);
            sync();
            post(mine_values[item]);
            for (unsigned i = 0; i < Threads; ++i) every_values[i][item] = posted<V>(i);
            sync();
        }
        for (unsigned i = 0; i < Threads; ++i) {
            for (unsigned item = 0; item < Items; ++item)
                all.emplace_back(every_keys[i][item], every_values[i][item]);
        }
        std::ranges::stable_sort(all, [](const auto& a, const auto& b) { return a.first > b.first; });
        for (unsigned item = 0; item < Items; ++item) {
            keys[item] = all[std::size_t{thread_} * Items + item].first;
            values[item] = all[std::size_t{thread_} * Items + item].second;
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
    float atomic_add(float* p, float v) const noexcept { return std::exchange(*p, *p + v); }
    std::uint32_t atomic_add(std::uint32_t* p, std::uint32_t v) const noexcept {
        return std::exchange(*p, *p + v);
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
                sum += k % 2 == 0 ? low(x) * low(y) : high(x) * high(y);
            }
            d.values[i] = sum;
        }
    }
    FragmentA ldmatrix(const Shared<Chunk>& row) { return load_matrices(row, false); }
    FragmentA ldmatrix_transposed(const Shared<Chunk>& row) { return load_matrices(row, true); }

    static std::uint32_t to_halves(float low, float high) noexcept {
        return f16(low).bits | static_cast<std::uint32_t>(f16(high).bits) << 16;
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
        sync_warp();
        return {&room};
    }
    template <class V>
    void post(const V& v) {
        static_assert(sizeof(V) <= sizeof(std::uint64_t));
        block_->board_.resize(block_->launch_.threads);
        std::memcpy(&block_->board_[thread_], &v, sizeof v);
        sync();
    }
    template <class V>
    V posted(unsigned thread) const noexcept {
        V v;
        std::memcpy(&v, &block_->board_[thread], sizeof v);
        return v;
    }
    void expect_threads(unsigned threads) const {
        if (threads == block_->launch_.threads) return;
        throw Error(ErrorCode::internal,
                    text("an operation of ", threads, " threads in a block of ", block_->launch_.threads));
    }
    void expect_aligned(const void* p, std::size_t alignment) const {
        if (reinterpret_cast<std::uintptr_t>(p) % alignment == 0) return;
        throw Error(ErrorCode::internal, text("thread ", thread_, " reads ", alignment,
                                              " bytes from an address that is no multiple of that"));
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
    for (unsigned i = 0; i < launch_.threads; ++i) {
        Lane& lane = lanes_[i];
        lane.state = State::ready;
        lane.collectives = 0;
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
                                   kernel(thread);
                               } catch (const boost::context::detail::forced_unwind&) {
                                   throw;
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
        for (Lane& lane : lanes_) lane.fiber = Fiber();
        throw Error(error.code(),
                    text("block (", place.x, ", ", place.y, ", ", place.z, "): ", error.what()));
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
