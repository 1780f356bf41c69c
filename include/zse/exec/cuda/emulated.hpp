// SPDX-License-Identifier: Apache-2.0
// The vocabulary of kernels on the host, where no GPU is: each thread of a block is a fiber, and what a GPU would only
// sometimes get wrong is an error here. For tests; a program that includes it links Boost.Context.
#pragma once

#include <zse/core/error.hpp>
#include <zse/exec/cuda/emulated_block.hpp>
#include <zse/exec/cuda/emulated_numbers.hpp>
#include <zse/exec/cuda/stream.hpp>

#include <algorithm>
#include <array>
#include <cstring>
#include <exception>
#include <string>
#include <utility>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

namespace zse::inline v1 {
namespace exec {
namespace gpu {

/// One thread of a block on the host: see DeviceThread.
class EmulatedThread : public EmulatedNumbers {
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
            // NOLINTNEXTLINE(bugprone-unhandled-self-assignment): it stands for memory, which is read before it is written
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
        multiply(d, a, b, [](std::uint32_t bits) { return low(bits); });
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

private:
    /// What all lanes of the warp showed in one collective.
    struct Shown {
        const EmulatedBlock::Shows* values;
        /// In place, as a type that was shown.
        template <class V>
        [[nodiscard]] const V& at(unsigned lane) const noexcept {
            return *std::launder(reinterpret_cast<const V*>((*values)[lane].bytes));
        }
        template <class V>
        [[nodiscard]] V get(unsigned lane) const noexcept {
            V v;
            std::memcpy(&v, (*values)[lane].bytes, sizeof v);
            return v;
        }
    };
    template <class V>
    Shown show(const V& v) {
        static_assert(sizeof(V) <= sizeof(EmulatedBlock::Show) && std::is_trivially_copyable_v<V>);
        EmulatedBlock::Warp& warp = block_->warps_[this->warp()];
        auto& room = warp.shown[block_->lanes_[thread_].collectives++ % 2];
        ::new (static_cast<void*>(room[lane()].bytes)) V(v);
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
        // Each lane converts what it holds, once for all that read it.
        struct Floats {
            float a[8];
            float b[4];
        };
        Floats mine;
        for (unsigned i = 0; i < 8; ++i) mine.a[i] = convert(a.pairs[i / 2] >> (i % 2 * 16) & 0xffffu);
        for (unsigned i = 0; i < 4; ++i) mine.b[i] = convert(b.pairs[i / 2] >> (i % 2 * 16) & 0xffffu);
        const Shown shown = show(mine);
        const unsigned group = lane() / 4;
        const unsigned column = lane() % 4 * 2;
        for (unsigned high = 0; high < 2; ++high) {  // k 0 to 7, then 8 to 15
            for (unsigned pair = 0; pair < 4; ++pair) {
                const Floats& of_a = shown.at<Floats>(group * 4 + pair);
                for (unsigned col = 0; col < 2; ++col) {
                    const Floats& of_b = shown.at<Floats>((column + col) * 4 + pair);
                    for (unsigned k = 0; k < 2; ++k) {
                        const float y = of_b.b[2 * high + k];
                        d.values[col] += of_a.a[4 * high + k] * y;
                        d.values[2 + col] += of_a.a[4 * high + 2 + k] * y;
                    }
                }
            }
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

}  // namespace gpu
}  // namespace exec
}  // namespace zse::inline v1
