// SPDX-License-Identifier: Apache-2.0
// The GPU's page operations, run on the host: copies, page tables of many sequences as one list, pages that survive.
// rows: 64
// labels: cuda_host
#include <zse/exec/cuda/emulated.hpp>
#include <zse/kv/cuda/moves.hpp>

#include <gtest/gtest.h>
#include <support/random.hpp>

#include <algorithm>
#include <cstring>
#include <random>
#include <vector>

namespace {

using namespace zse::kv::cuda;
using zse::Bytes;
using zse::exec::gpu::Chunk;
using zse::exec::gpu::EmulatedBlock;
using zse::exec::gpu::Order;
using zse::kv::PageIndex;

constexpr Order orders[] = {Order::ascending, Order::descending, Order::shuffled};

/// Random bytes, aligned as pages are.
std::vector<Chunk> chunks(std::size_t bytes, unsigned seed) {
    const auto random = support::random_bytes(bytes, seed);
    std::vector<Chunk> v(bytes / sizeof(Chunk));
    std::memcpy(v.data(), random.data(), bytes);
    return v;
}
std::byte* at(std::vector<Chunk>& v, std::size_t bytes) {
    return reinterpret_cast<std::byte*>(v.data()) + bytes;
}

TEST(CudaMoves, CopiesAreWholeAndTouchNothingElse) {
    for (const Order order : orders) {
        for (const Bytes most : {Bytes{0}, Bytes{16}, MoveKernel::turn, MoveKernel::turn * 5}) {
            // Sizes around a turn of a block, none at all, and more than was announced; with gaps between.
            const std::vector<Bytes> sizes = {16,
                                              0,
                                              MoveKernel::turn - 16,
                                              MoveKernel::turn,
                                              MoveKernel::turn + 16,
                                              MoveKernel::turn * 5 + 48,
                                              4096};
            Bytes total = 0;
            for (const Bytes size : sizes) total += size + 32;
            std::vector<Chunk> from = chunks(total, 1);
            std::vector<Chunk> to = chunks(total, 2);
            std::vector<Chunk> expected = to;
            std::vector<PageMove> moves;
            Bytes place = 16;
            for (const Bytes size : sizes) {
                // What is read ends where what is written began.
                moves.push_back({at(from, total - place - size), at(to, place), size});
                std::memcpy(at(expected, place), moves.back().from, size);
                place += size + 32;
            }
            EmulatedBlock::run_grid(
                MoveKernel{{moves.data(), static_cast<std::uint32_t>(moves.size()), most}}, order);
            EXPECT_EQ(std::memcmp(to.data(), expected.data(), total), 0) << most;
        }
    }
}

TEST(CudaMoves, LaunchesFillTheDeviceAndNoMore) {
    EXPECT_EQ((MoveKernel{{nullptr, 3, 0}}).launch().blocks.x, 1u);
    EXPECT_EQ((MoveKernel{{nullptr, 3, MoveKernel::turn + 16}}).launch().blocks.x, 2u);
    EXPECT_EQ((MoveKernel{{nullptr, 3, zse::GB(1)}}).launch().blocks.x, 64u);
    EXPECT_EQ((MoveKernel{{nullptr, 3, zse::GB(1)}}).launch().blocks.y, 3u);
}

TEST(CudaMoves, TablesBecomeOneList) {
    std::mt19937 random(3);
    for (const std::size_t segments : {1u, 5u, 256u, 300u}) {
        std::vector<std::vector<PageIndex>> tables(segments);
        std::vector<const PageIndex*> pages;
        std::vector<std::uint32_t> counts;
        std::vector<PageIndex> flat;
        std::vector<std::uint32_t> offsets;
        for (auto& table : tables) {
            table.resize(random() % 4 == 0 ? 0 : random() % 200);
            for (auto& page : table) page = static_cast<PageIndex>(random());
            pages.push_back(table.data());
            counts.push_back(static_cast<std::uint32_t>(table.size()));
            offsets.push_back(static_cast<std::uint32_t>(flat.size()));
            flat.insert(flat.end(), table.begin(), table.end());
        }
        offsets.push_back(static_cast<std::uint32_t>(flat.size()));
        for (const Order order : orders) {
            std::vector<PageIndex> found(flat.size() + 1, 77u);
            std::vector<std::uint32_t> begins(segments + 2, 77u);
            const FlattenCall call{pages.data(), counts.data(), static_cast<std::uint32_t>(segments),
                                   begins.data(), found.data()};
            EmulatedBlock::run_grid(OffsetsKernel{call}, order);
            EmulatedBlock::run_grid(GatherPagesKernel{call}, order);
            EXPECT_EQ(found.back(), 77u);
            EXPECT_EQ(begins.back(), 77u);
            found.pop_back();
            begins.pop_back();
            EXPECT_EQ(found, flat);
            EXPECT_EQ(begins, offsets);
        }
    }
}

TEST(CudaMoves, SurvivorsKeepTheirOrder) {
    std::mt19937 random(4);
    for (const std::size_t count : {0u, 1u, 1023u, 1024u, 1025u, 5000u}) {
        std::vector<PageIndex> pages(count);
        std::vector<std::uint8_t> keep(count);
        std::vector<PageIndex> expected;
        for (std::size_t i = 0; i < count; ++i) {
            pages[i] = static_cast<PageIndex>(random());
            keep[i] = random() % 3 == 0 ? std::uint8_t{0} : static_cast<std::uint8_t>(random() | 2u);
            if (keep[i] != 0) expected.push_back(pages[i]);
        }
        for (const Order order : orders) {
            std::vector<PageIndex> kept(count + 1, 77u);
            std::uint32_t kept_count = 99;
            EmulatedBlock::run_grid(
                SelectPagesKernel{
                    {pages.data(), keep.data(), static_cast<std::uint32_t>(count), kept.data(), &kept_count}},
                order);
            ASSERT_EQ(kept_count, expected.size());
            EXPECT_TRUE(std::ranges::all_of(kept.begin() + kept_count, kept.end(),
                                            [](PageIndex page) { return page == 77u; }));
            kept.resize(kept_count);
            EXPECT_EQ(kept, expected);
        }
    }
}

TEST(CudaMoves, LaunchedThroughATable) {
    zse::exec::gpu::Stream stream;
    const PageLaunches& launches = page_launches<zse::exec::gpu::Emulated>;
    std::vector<Chunk> from = chunks(64, 5);
    std::vector<Chunk> to = chunks(64, 6);
    const PageMove move{at(from, 0), at(to, 0), 64};
    launches.move(stream, {&move, 1, 64});
    EXPECT_EQ(std::memcmp(to.data(), from.data(), 64), 0);

    const std::vector<PageIndex> table = {4, 5, 6};
    const PageIndex* pages = table.data();
    const std::uint32_t count = 3;
    std::vector<std::uint32_t> offsets(2);
    std::vector<PageIndex> flat(3);
    launches.flatten(stream, {&pages, &count, 1, offsets.data(), flat.data()});
    EXPECT_EQ(flat, table);

    const std::vector<std::uint8_t> keep = {0, 1, 0};
    std::uint32_t kept = 0;
    launches.select(stream, {table.data(), keep.data(), 3, flat.data(), &kept});
    EXPECT_EQ(kept, 1u);
    EXPECT_EQ(flat[0], 5u);
    launches.move(stream, {nullptr, 0, 64});  // nothing to do
    EXPECT_FALSE(stream.failed()) << stream.why();
    EXPECT_EQ(stream.kernels(), 4u);
}

}  // namespace
