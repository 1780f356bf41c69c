// SPDX-License-Identifier: Apache-2.0
// Layers come back from the disk tier as they were written, before they are asked for, or not at all.
// rows: 49 56
#include <gtest/gtest.h>
#include <support/temporary_directory.hpp>

#include <zse/model/weight_ring.hpp>

#include <dlfcn.h>

#include <chrono>
#include <thread>
#include <vector>

namespace {

std::atomic<int> failing_reads{0};  ///< so many reads fail from now on
std::atomic<int> flipped_reads{0};  ///< so many come back with a wrong byte
std::atomic<int> read_delay_us{0};

}  // namespace

// Stands before the C library's.
extern "C" ssize_t pread(int file, void* to, std::size_t bytes, off_t offset) {
    using Function = ssize_t (*)(int, void*, std::size_t, off_t);
    static const auto real = reinterpret_cast<Function>(::dlsym(RTLD_NEXT, "pread"));
    if (const int us = read_delay_us.load(); us != 0)
        std::this_thread::sleep_for(std::chrono::microseconds(us));
    if (failing_reads.load() > 0 && failing_reads.fetch_sub(1) > 0) {
        errno = EIO;
        return -1;
    }
    const ssize_t moved = real(file, to, bytes, offset);
    if (moved > 0 && flipped_reads.load() > 0 && flipped_reads.fetch_sub(1) > 0) {
        static_cast<std::byte*>(to)[moved / 2] ^= std::byte{1};
    }
    return moved;
}

namespace {

using zse::Bytes;
using zse::KiB;
using zse::memory::Kind;
using zse::memory::Tier;
using zse::model::RingLayout;
using zse::model::WeightRing;

/// A ring over layers of these sizes, each full of its own bytes.
class Ring {
public:
    explicit Ring(std::vector<Bytes> sizes) : sizes_(std::move(sizes)) {
        RingLayout layout;
        for (const Bytes bytes : sizes_) layout.add_layers(bytes, 1);
        layout_ = layout;
        control_ =
            zse::memory::Arena(ledger_.reserve(Tier::host, Kind::control, layout.control_bytes(1)).value());
        zse::memory::Carver carver(control_.bytes());
        ring_.emplace(
            layout,
            zse::memory::DiskArena(ledger_.reserve(Tier::disk, Kind::weights, layout.disk_bytes).value(),
                                   directory_.path()),
            zse::memory::Arena(ledger_.reserve(Tier::host, Kind::staging, layout.staging_bytes()).value()),
            carver);
        EXPECT_EQ(carver.taken(), layout.control_bytes(1));
        for (std::uint32_t layer = 0; layer < sizes_.size(); ++layer) {
            const auto image = ring_->begin_image(sizes_[layer]);
            places_.push_back(image);
            for (std::size_t i = 0; i < image.size(); ++i) image[i] = value(layer, i);
            ring_->store_image();
        }
        ring_->finish_storing();
    }
    WeightRing& operator*() noexcept { return *ring_; }
    WeightRing* operator->() noexcept { return &*ring_; }
    [[nodiscard]] const RingLayout& layout() const noexcept { return layout_; }
    [[nodiscard]] zse::memory::Ledger& ledger() noexcept { return ledger_; }

    static std::byte value(std::uint32_t layer, std::size_t i) {
        return static_cast<std::byte>(i * 7 + i / 251 + layer * 31);
    }
    /// Whether a layer lies where it was put, whole.
    [[nodiscard]] bool is_there(std::uint32_t layer) const {
        const auto place = places_[layer];
        for (std::size_t i = 0; i < place.size(); ++i) {
            if (place[i] != value(layer, i)) return false;
        }
        return true;
    }
    /// A step comes to a layer, or behind the last one: it is done with the one before.
    void reach(std::uint32_t layer) {
        ring_->pass(layer == 0 ? WeightRing::none : layer - 1,
                    layer < sizes_.size() ? layer : WeightRing::none);
    }
    /// A step through all layers; the number of those that were whole.
    std::uint32_t step() {
        std::uint32_t whole = 0;
        for (std::uint32_t layer = 0; layer < sizes_.size(); ++layer) {
            reach(layer);
            whole += is_there(layer) ? 1 : 0;
        }
        reach(static_cast<std::uint32_t>(sizes_.size()));
        return whole;
    }

private:
    std::vector<Bytes> sizes_;
    RingLayout layout_;
    support::TemporaryDirectory directory_;
    zse::memory::Ledger ledger_;
    zse::memory::Arena control_;
    std::vector<std::span<std::byte>> places_;
    std::optional<WeightRing> ring_;
};

TEST(WeightRing, EveryLayerComesBackAsItWasWritten) {
    for (const std::vector<Bytes>& sizes : {std::vector<Bytes>{KiB(100)},
                                            {KiB(700), 5},
                                            {KiB(700), 4096, KiB(1300) + 17},
                                            {1, 2, 3, 4},
                                            std::vector<Bytes>(7, KiB(513))}) {
        Ring ring(sizes);
        const auto count = static_cast<std::uint32_t>(sizes.size());
        for (int step = 0; step < 5; ++step) EXPECT_EQ(ring.step(), count) << count << " layers";
        EXPECT_FALSE(ring->failure().has_value());
    }
}

TEST(WeightRing, ATierHoldsWhatTheLayoutSays) {
    Ring ring({KiB(700), 4096, KiB(1300) + 17});
    EXPECT_EQ(ring.layout().slot_bytes, KiB(1304));
    EXPECT_EQ(ring.layout().disk_bytes, KiB(700 + 4 + 1304));
    EXPECT_EQ(ring.layout().staging_bytes(), 2 * KiB(1304));
    EXPECT_EQ(ring.layout().pieces, 2 + 1 + 3u);
    EXPECT_EQ(ring.ledger().held(Tier::disk)[Kind::weights], ring.layout().disk_bytes);
    EXPECT_EQ(ring.ledger().peak(Tier::disk)[Kind::weights], ring.layout().disk_bytes);
    EXPECT_EQ(ring.ledger().peak(Tier::host)[Kind::staging], ring.layout().staging_bytes());
    EXPECT_GE(ring->disk().allocated(), ring.ledger().held(Tier::disk).total());
}

TEST(WeightRing, LargeLayersHaveABoundedNumberOfPieces) {
    EXPECT_EQ(RingLayout::pieces_of(KiB(512)), 1u);
    EXPECT_EQ(RingLayout::pieces_of(KiB(516)), 2u);
    for (Bytes image = KiB(4); image < zse::GiB(8); image = image * 3 / 4096 * 4096 + 4096) {
        EXPECT_LE(RingLayout::pieces_of(image), RingLayout::most_pieces);
        EXPECT_EQ(RingLayout::piece_bytes(image) % 4096, 0u);
        EXPECT_GE(RingLayout::pieces_of(image) * RingLayout::piece_bytes(image), image);
    }
}

TEST(WeightRing, TilesHoldAMatrixInWholeGroups) {
    zse::kernels::Matrix matrix;
    matrix.format = zse::weights::format::q8_0;
    matrix.columns = 576;
    for (const std::uint32_t rows : {1u, 16u, 17u, 1000u, 49152u}) {
        matrix.rows = rows;
        for (const Bytes bytes : {Bytes{1}, KiB(30), KiB(2200), zse::MiB(64)}) {
            const zse::model::TileLayout tiles(matrix, bytes);
            EXPECT_EQ(tiles.each % 2, 0u);
            Bytes sum = 0;
            for (std::uint32_t i = 0; i < tiles.count(); ++i) {
                EXPECT_LE(tiles.bytes(i), std::max(bytes, 2 * tiles.group_bytes));
                EXPECT_LT(tiles.first_row(i), rows);
                sum += tiles.bytes(i);
            }
            EXPECT_EQ(sum, matrix.bytes());
            EXPECT_GE(tiles.first_row(tiles.count()), rows);
        }
    }
    // An output matrix of its own, and an embedding behind it; one that is both lies there once.
    for (const bool tied : {false, true}) {
        RingLayout layout;
        layout.add_layers(KiB(2200), 3);
        layout.add_output(matrix, matrix, tied);
        EXPECT_EQ(layout.slot_bytes, KiB(2200)) << "tiles need no larger slots";
        EXPECT_EQ(layout.streamed(), 3 + layout.output.count());
        EXPECT_EQ(layout.images(), 3 + layout.output.count() * (tied ? 1 : 2));
        EXPECT_GE(layout.disk_bytes, 3 * KiB(2200) + matrix.bytes() * (tied ? 1 : 2));
    }
}

// What is read is what does not stay: a slot with one layer keeps it.
TEST(WeightRing, CountsWhatItReads) {
    const auto fetches = [](std::uint32_t layers, int steps) {
        Ring ring(std::vector<Bytes>(layers, KiB(8)));
        for (int i = 0; i < steps; ++i) ring.step();
        const auto counts = ring->counts();
        EXPECT_EQ(counts.bytes, counts.fetches * KiB(8));
        EXPECT_EQ(counts.hits + counts.misses, static_cast<std::uint64_t>(steps) * layers);
        EXPECT_EQ(counts.retries, 0u);
        return counts.fetches;
    };
    EXPECT_EQ(fetches(1, 4), 1u);
    EXPECT_EQ(fetches(2, 4), 2u);
    EXPECT_EQ(fetches(3, 4), 2 + 4 * 2u) << "the second layer has a slot for itself";
    EXPECT_EQ(fetches(4, 4), 2 + 4 * 4u);
    EXPECT_EQ(fetches(30, 4), 2 + 4 * 30u);
}

// Row 56: with a copy of 1 ms and 3 ms of work on each layer, reading is hidden behind the work. On a machine that others
// use too, one of several tries has to show it.
TEST(WeightRing, TheNextLayerIsReadWhileThisOneIsComputed) {
    using std::chrono::microseconds;
    constexpr std::uint32_t layers = 8;
    constexpr int steps = 5;
    read_delay_us = 1000;
    Ring ring(std::vector<Bytes>(layers, KiB(64)));
    ring.step();
    std::uint64_t hits = 0;
    std::chrono::steady_clock::duration least = std::chrono::hours(1);
    for (int attempt = 0;
         attempt < 10 && (hits < (layers - 1) * steps || least >= microseconds(3900) * layers * steps);
         ++attempt) {
        const auto before = ring->counts();
        const auto start = std::chrono::steady_clock::now();
        for (int step = 0; step < steps; ++step) {
            for (std::uint32_t layer = 0; layer < layers; ++layer) {
                ring.reach(layer);
                std::this_thread::sleep_for(microseconds(3000));
            }
            ring.reach(layers);
        }
        least = std::min(least, std::chrono::steady_clock::now() - start);
        hits = std::max(hits, ring->counts().hits - before.hits);
        EXPECT_EQ(ring->counts().fetches - before.fetches, layers * steps);
    }
    read_delay_us = 0;
    EXPECT_GE(hits, (layers - 1) * steps);
    EXPECT_LT(least, microseconds(3900) * layers * steps) << "less than both one after the other";
}

TEST(WeightRing, AReadThatFailsOnceIsReadAgain) {
    for (std::atomic<int>* fault : {&failing_reads, &flipped_reads}) {
        Ring ring(std::vector<Bytes>(5, KiB(16)));
        EXPECT_EQ(ring.step(), 5u);
        ring.reach(0);  // waits, so that no read is under way when the next one is to fail
        *fault = 1;
        EXPECT_EQ(ring.step(), 5u);
        EXPECT_EQ(ring.step(), 5u);
        EXPECT_EQ(ring->counts().retries, 1u);
        EXPECT_FALSE(ring->failure().has_value());
    }
}

TEST(WeightRing, AReadThatFailsTwiceIsToldAndTheNextStepBeginsAnew) {
    for (const bool checksum : {false, true}) {
        Ring ring(std::vector<Bytes>(5, KiB(16)));
        EXPECT_EQ(ring.step(), 5u);
        (checksum ? flipped_reads : failing_reads) = 1000;
        EXPECT_LT(ring.step(), 5u);
        (checksum ? flipped_reads : failing_reads) = 0;
        const auto failure = ring->failure();
        ASSERT_TRUE(failure.has_value());
        EXPECT_EQ(failure->code(), zse::ErrorCode::unreadable);
        const std::string_view message = failure->what();
        EXPECT_NE(message.find("disk tier"), std::string_view::npos) << message;
        EXPECT_EQ(message.find("checksum") != std::string_view::npos, checksum) << message;
        EXPECT_FALSE(ring->failure().has_value()) << "told once";
        EXPECT_EQ(ring.step(), 5u);
        EXPECT_FALSE(ring->failure().has_value());
    }
}

// A step that stopped anywhere leaves nothing behind that a later one could take for its own.
TEST(WeightRing, AnyOrderOfLayersIsRight) {
    Ring ring(std::vector<Bytes>(6, KiB(600)));
    std::uint32_t state = 1;
    for (int i = 0; i < 300; ++i) {
        state = state * 1664525u + 1013904223u;
        const std::uint32_t layer = (state >> 16) % 7;
        ring.reach(layer);
        if (layer < 6) {
            EXPECT_TRUE(ring.is_there(layer)) << i;
        }
    }
    EXPECT_EQ(ring.step(), 6u);
}

}  // namespace
