// SPDX-License-Identifier: Apache-2.0
// Scratch layout: buffers that live together never overlap, gaps are used again, and equal calls give equal
// offsets.
#include <zse/memory/scratch.hpp>

#include <gtest/gtest.h>
#include <support/expect_error.hpp>

#include <algorithm>
#include <random>
#include <vector>

namespace {

using zse::Bytes;
using zse::memory::ScratchLayout;

TEST(ScratchLayout, UsesFreedGapsFirst) {
    ScratchLayout layout;
    const Bytes a = layout.allocate(100);
    const Bytes b = layout.allocate(64);
    const Bytes c = layout.allocate(1);
    EXPECT_EQ(a, 0u);
    EXPECT_EQ(b, 128u);
    EXPECT_EQ(c, 192u);
    EXPECT_EQ(layout.peak(), 256u);
    layout.release(a);
    EXPECT_EQ(layout.allocate(129), 256u) << "the gap of 128 bytes is too narrow";
    EXPECT_EQ(layout.allocate(64), 0u);
    EXPECT_EQ(layout.allocate(64), 64u) << "the rest of the gap";
    EXPECT_EQ(layout.live(), 5u);
    EXPECT_EQ(layout.peak(), 256u + 192u);
}

TEST(ScratchLayout, PeakIsTheGreatestEndAndStays) {
    ScratchLayout layout;
    const Bytes a = layout.allocate(1000);
    layout.release(a);
    const Bytes b = layout.allocate(64);
    EXPECT_EQ(b, 0u);
    EXPECT_EQ(layout.peak(), 1024u);
    layout.release(b);
    EXPECT_EQ(layout.live(), 0u);
    EXPECT_EQ(layout.peak(), 1024u);
}

TEST(ScratchLayout, EmptyBuffersHaveAnOffsetOfTheirOwn) {
    ScratchLayout layout;
    const Bytes a = layout.allocate(0);
    const Bytes b = layout.allocate(0);
    EXPECT_NE(a, b);
    layout.release(a);
    EXPECT_EQ(layout.live(), 1u);
}

TEST(ScratchLayout, ReleasingWhatIsNotLiveChangesNothing) {
    ScratchLayout layout;
    const Bytes a = layout.allocate(64);
    layout.release(a + 64);
    EXPECT_EQ(layout.live(), 1u);
    layout.release(a);
    layout.release(a);
    EXPECT_EQ(layout.live(), 0u);
}

TEST(ScratchLayout, TooManyLiveBuffersAreRefused) {
    ScratchLayout layout;
    for (std::size_t i = 0; i < ScratchLayout::most_live; ++i) layout.allocate(64);
    support::expect_error([&] { layout.allocate(64); }, zse::ErrorCode::internal, {"16", "scratch"});
    layout.release(64);
    EXPECT_EQ(layout.allocate(64), 64u);
}

constexpr Bytes peak_of_three() {
    ScratchLayout layout;
    const Bytes a = layout.allocate(10);
    layout.allocate(100);
    layout.release(a);
    layout.allocate(20);
    return layout.peak();
}
static_assert(peak_of_three() == 192);

struct Live {
    Bytes offset;
    Bytes bytes;
};

/// Offsets of a random sequence of calls, with every overlap reported.
std::vector<Bytes> random_calls(unsigned seed, Bytes& peak) {
    std::mt19937 random(seed);
    ScratchLayout layout;
    std::vector<Live> live;
    std::vector<Bytes> offsets;
    Bytes greatest_end = 0;
    for (int step = 0; step < 500; ++step) {
        const bool allocate = live.empty() || (live.size() < ScratchLayout::most_live && random() % 2 == 0);
        if (allocate) {
            const Bytes bytes = random() % 5000;
            const Bytes offset = layout.allocate(bytes);
            EXPECT_EQ(offset % ScratchLayout::alignment, 0u);
            for (const Live& other : live) {
                EXPECT_TRUE(offset + bytes <= other.offset || other.offset + other.bytes <= offset)
                    << offset << "+" << bytes << " and " << other.offset << "+" << other.bytes;
            }
            live.push_back({offset, bytes});
            offsets.push_back(offset);
            greatest_end = std::max(greatest_end, offset + bytes);
        } else {
            const std::size_t victim = random() % live.size();
            layout.release(live[victim].offset);
            live.erase(live.begin() + static_cast<std::ptrdiff_t>(victim));
        }
        EXPECT_EQ(layout.live(), live.size());
    }
    peak = layout.peak();
    EXPECT_GE(peak, greatest_end);
    EXPECT_LT(peak, greatest_end + ScratchLayout::alignment);
    return offsets;
}

TEST(ScratchLayout, LiveBuffersNeverOverlapAndEqualCallsGiveEqualOffsets) {
    for (unsigned seed = 0; seed < 50; ++seed) {
        Bytes first_peak = 0;
        Bytes second_peak = 0;
        const std::vector<Bytes> offsets = random_calls(seed, first_peak);
        EXPECT_EQ(offsets, random_calls(seed, second_peak));
        EXPECT_EQ(first_peak, second_peak);
    }
}

}  // namespace
