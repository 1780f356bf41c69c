// SPDX-License-Identifier: Apache-2.0
// Pages on a GPU without attention: batches of copies, page tables of many sequences as one list, pages that survive.
#pragma once

#include <zse/exec/cuda/stream.hpp>
#include <zse/kv/page.hpp>
#include <zse/policy/list.hpp>

#include <cstddef>
#include <cstdint>

namespace zse::inline v1 {
namespace kv {
namespace cuda {

/// One copy. Addresses and bytes are multiples of 16, as those of pages are; `from` may be host memory that the device
/// reaches.
struct PageMove {
    const std::byte* from = nullptr;
    std::byte* to = nullptr;
    Bytes bytes = 0;  ///< 0: none, which fills up a batch of fixed size
};

/// Copies in no order: none may write what another reads or writes.
struct MoveCall {
    const PageMove* moves = nullptr;  ///< `[count]`, device memory
    std::uint32_t count = 0;          ///< at most 65535
    Bytes most_bytes = 0;             ///< of one of them; more are copied too, only with fewer blocks
};

/// The pages of several sequences one after the other.
struct FlattenCall {
    const PageIndex* const* pages = nullptr;  ///< `[segments]`, each to its page table
    const std::uint32_t* counts = nullptr;    ///< `[segments]`: pages of each
    std::uint32_t segments = 0;
    std::uint32_t* offsets =
        nullptr;                ///< `[segments + 1]`: where each begins in `flat`; the last is their sum
    PageIndex* flat = nullptr;  ///< `[sum of counts]`
};

/// Which of a list stay, in their order.
struct SelectCall {
    const PageIndex* pages = nullptr;    ///< `[count]`
    const std::uint8_t* keep = nullptr;  ///< `[count]`: not 0 where it stays
    std::uint32_t count = 0;
    PageIndex* kept = nullptr;  ///< `[count]`, of which the first `*kept_count` are set; not `pages`
    std::uint32_t* kept_count = nullptr;  ///< one number
};

/// Blocks of 256 threads with four loads of 16 bytes each: two of them on a multiprocessor keep the 32 KB under way that
/// the latency of memory asks for. A block goes on until its part of the move is done.
struct MoveKernel {
    static constexpr unsigned threads = 256;
    static constexpr unsigned blocks_per_sm = 2;
    static constexpr std::uint32_t loads = 4;
    static constexpr Bytes chunk = sizeof(exec::gpu::Chunk);
    static constexpr Bytes turn = threads * loads * chunk;
    /// A page of a few MB takes all multiprocessors for a moment, and a batch of them is shared out by pages.
    static constexpr Bytes most_blocks = 64;

    MoveCall call;

    [[nodiscard]] exec::gpu::Launch launch() const noexcept {
        const Bytes turns = ceil_div(call.most_bytes, turn);
        const auto blocks = static_cast<unsigned>(turns > most_blocks ? most_blocks : turns == 0 ? 1 : turns);
        return {{blocks, call.count, 1}, threads, 0};
    }

    template <class T>
    ZSE_DEVICE void operator()(T& t) const {
        const PageMove move = call.moves[t.block().y];
        const auto* from = reinterpret_cast<const exec::gpu::Chunk*>(move.from);
        auto* to = reinterpret_cast<exec::gpu::Chunk*>(move.to);
        const Bytes chunks = move.bytes / chunk;
        const Bytes step = Bytes{t.blocks().x} * threads * loads;
        for (Bytes at = Bytes{t.block().x} * threads * loads + t.thread(); at < chunks; at += step) {
            exec::gpu::Chunk held[loads];
            ZSE_UNROLL
            for (std::uint32_t i = 0; i < loads; ++i) {
                if (at + i * threads < chunks) held[i] = t.load_once(from + at + i * threads);
            }
            ZSE_UNROLL
            for (std::uint32_t i = 0; i < loads; ++i) {
                if (at + i * threads < chunks) to[at + i * threads] = held[i];
            }
        }
    }
};

/// offsets = exclusive sums of counts. One block: a batch has hundreds of segments, not millions.
struct OffsetsKernel {
    static constexpr unsigned threads = 256;

    FlattenCall call;

    [[nodiscard]] exec::gpu::Launch launch() const noexcept { return {{1, 1, 1}, threads, 0}; }

    template <class T>
    ZSE_DEVICE void operator()(T& t) const {
        std::uint32_t below = 0;
        for (std::uint32_t first = 0; first < call.segments; first += threads) {
            const std::uint32_t segment = first + t.thread();
            const std::uint32_t count = segment < call.segments ? t.load(call.counts + segment) : 0;
            std::uint32_t total = 0;
            const std::uint32_t before = t.template block_scan<threads>(count, total);
            if (segment < call.segments) call.offsets[segment] = below + before;
            below += total;
        }
        if (t.thread() == 0) call.offsets[call.segments] = below;
    }
};

/// One block a segment puts its pages where OffsetsKernel says.
struct GatherPagesKernel {
    static constexpr unsigned threads = 128;

    FlattenCall call;

    [[nodiscard]] exec::gpu::Launch launch() const noexcept { return {{call.segments, 1, 1}, threads, 0}; }

    template <class T>
    ZSE_DEVICE void operator()(T& t) const {
        const unsigned segment = t.block().x;
        const PageIndex* from = call.pages[segment];
        PageIndex* to = call.flat + t.load(call.offsets + segment);
        const std::uint32_t count = t.load(call.counts + segment);
        for (std::uint32_t i = t.thread(); i < count; i += threads) to[i] = t.load(from + i);
    }
};

/// One block, 1024 pages a turn.
struct SelectPagesKernel {
    static constexpr unsigned threads = 256;
    static constexpr std::uint32_t items = 4;

    SelectCall call;

    [[nodiscard]] exec::gpu::Launch launch() const noexcept { return {{1, 1, 1}, threads, 0}; }

    template <class T>
    ZSE_DEVICE void operator()(T& t) const {
        std::uint32_t kept = 0;
        for (std::uint32_t first = 0; first < call.count; first += threads * items) {
            const std::uint32_t mine = first + t.thread() * items;
            bool keep[items];
            std::uint32_t count = 0;
            ZSE_UNROLL
            for (std::uint32_t i = 0; i < items; ++i) {
                keep[i] = mine + i < call.count && t.load(call.keep + mine + i) != 0;
                count += keep[i] ? 1u : 0u;
            }
            std::uint32_t total = 0;
            std::uint32_t at = kept + t.template block_scan<threads>(count, total);
            ZSE_UNROLL
            for (std::uint32_t i = 0; i < items; ++i) {
                if (keep[i]) call.kept[at++] = t.load(call.pages + mine + i);
            }
            kept += total;
        }
        if (t.thread() == 0) *call.kept_count = kept;
    }
};

/// The launches of this file.
struct PageLaunches {
    void (*move)(exec::gpu::Stream&, const MoveCall&) noexcept = nullptr;
    void (*flatten)(exec::gpu::Stream&, const FlattenCall&) noexcept = nullptr;
    void (*select)(exec::gpu::Stream&, const SelectCall&) noexcept = nullptr;
};

/// For exec::gpu::instantiate.
using PageKernelList = policy::List<MoveKernel, OffsetsKernel, GatherPagesKernel, SelectPagesKernel>;

/// Launcher: exec::gpu::Native or exec::gpu::Emulated.
template <class Launcher>
inline constexpr PageLaunches page_launches{[](exec::gpu::Stream& stream, const MoveCall& call) noexcept {
                                                Launcher::launch(stream, MoveKernel{call});
                                            },
                                            [](exec::gpu::Stream& stream, const FlattenCall& call) noexcept {
                                                Launcher::launch(stream, OffsetsKernel{call});
                                                Launcher::launch(stream, GatherPagesKernel{call});
                                            },
                                            [](exec::gpu::Stream& stream, const SelectCall& call) noexcept {
                                                Launcher::launch(stream, SelectPagesKernel{call});
                                            }};

}  // namespace cuda
}  // namespace kv
}  // namespace zse::inline v1
