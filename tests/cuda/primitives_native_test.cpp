// SPDX-License-Identifier: Apache-2.0
// Pages by our own kernels, on a GPU and on the host in its place; by CUB's device-wide primitives, on a GPU.
// rows: 64
// labels: cuda_host cuda_device
#include <gtest/gtest.h>
#include <cuda/place.hpp>
#include <cuda/primitives.hpp>
#include <support/random.hpp>

#include <algorithm>
#include <type_traits>

namespace {

using namespace zse_test;
namespace kv = zse::kv::cuda;
using zse::kv::PageIndex;

/// Our kernels where `Kernels` is true, else CUB.
template <bool Kernels, class Where>
void check_moves(Place<Where>& place) {
    constexpr std::uint32_t count = 5;
    constexpr std::size_t page = 4'096 + 16;
    const std::vector<std::byte> from = support::random_bytes(count * page, 1);
    const std::byte* const from_at = place.put(from);
    auto* const to = place.template zeros<std::byte>(count * page);
    std::vector<kv::PageMove> moves;
    for (std::uint32_t i = 0; i < count; ++i)  // the last one is none
        moves.push_back({from_at + i * page, to + (count - 1 - i) * page, i + 1 < count ? page : 0});
    const kv::MoveCall call{place.put(moves), count, page};
    if constexpr (Kernels) {
        kv::page_launches<typename Where::Launcher>.move(place.stream(), call);
    } else {
        const zse::Bytes bytes = move_batched_bytes(count);
        move_batched(place.stream(), {place.template zeros<std::byte>(bytes), bytes}, call);
    }
    const std::vector<std::byte> found = place.get(to, count * page);
    for (std::size_t i = 0; i < count; ++i) {
        for (std::size_t j = 0; j < page; ++j) {
            const std::byte wanted = i + 1 < count ? from[i * page + j] : std::byte{0};
            ASSERT_EQ(found[(count - 1 - i) * page + j], wanted) << i << ", " << j;
        }
    }
}

template <bool Kernels, class Where>
void check_offsets(Place<Where>& place) {
    constexpr std::uint32_t segments = 300;
    std::vector<std::uint32_t> counts(segments);
    std::vector<const PageIndex*> tables(segments);
    std::vector<std::uint32_t> wanted(segments + 1);
    std::vector<PageIndex> wanted_pages;
    for (std::uint32_t i = 0; i < segments; ++i) {
        counts[i] = i * 7 % 5;
        std::vector<PageIndex> pages(counts[i]);
        for (std::uint32_t j = 0; j < counts[i]; ++j) pages[j] = static_cast<PageIndex>(i * 10 + j);
        wanted_pages.insert(wanted_pages.end(), pages.begin(), pages.end());
        tables[i] = place.put(pages);
        wanted[i + 1] = wanted[i] + counts[i];
    }
    kv::FlattenCall call;
    call.pages = place.put(tables);
    call.counts = place.put(counts);
    call.segments = segments;
    call.offsets = place.template zeros<std::uint32_t>(segments + 1);
    call.flat = place.template zeros<PageIndex>(wanted_pages.size());
    if constexpr (Kernels) {
        kv::page_launches<typename Where::Launcher>.flatten(place.stream(), call);
        EXPECT_EQ(place.get(call.flat, wanted_pages.size()), wanted_pages);
    } else {
        const zse::Bytes bytes = flatten_scanned_bytes(segments);
        flatten_scanned(place.stream(), {place.template zeros<std::byte>(bytes), bytes}, call);
    }
    EXPECT_EQ(place.get(call.offsets, segments + 1), wanted);
}

template <bool Kernels, class Where>
void check_selection(Place<Where>& place) {
    constexpr std::uint32_t count = 3'000;
    std::vector<PageIndex> pages(count);
    std::vector<std::uint8_t> keep(count);
    std::vector<PageIndex> wanted;
    for (std::uint32_t i = 0; i < count; ++i) {
        pages[i] = static_cast<PageIndex>(count - i);
        keep[i] = static_cast<std::uint8_t>(i * 11 % 3);
        if (keep[i] != 0) wanted.push_back(pages[i]);
    }
    kv::SelectCall call;
    call.pages = place.put(pages);
    call.keep = place.put(keep);
    call.count = count;
    call.kept = place.template zeros<PageIndex>(count);
    call.kept_count = place.template zeros<std::uint32_t>(1);
    if constexpr (Kernels) {
        kv::page_launches<typename Where::Launcher>.select(place.stream(), call);
    } else {
        const zse::Bytes bytes = select_flagged_bytes(count);
        select_flagged(place.stream(), {place.template zeros<std::byte>(bytes), bytes}, call);
    }
    ASSERT_EQ(place.get(call.kept_count, 1)[0], wanted.size());
    EXPECT_EQ(place.get(call.kept, wanted.size()), wanted);
}

void check_greedy(Place<OnDevice>& place) {
    constexpr std::uint32_t rows = 3;
    constexpr std::uint32_t vocabulary = 9'001;
    std::vector<float> logits = support::gaussian(std::size_t{rows} * vocabulary, 1);
    logits[17] = logits[4'711] = 9;  // the lower of equals is chosen
    zse::sampling::cuda::SampleCall call;
    call.logits = place.put(logits);
    call.stride = vocabulary;
    call.rows = rows;
    call.vocabulary = vocabulary;
    Best* const best = place.zeros<Best>(rows);
    const zse::Bytes bytes = greedy_rows_bytes(rows);
    greedy_rows(place.stream(), {place.zeros<std::byte>(bytes), bytes}, call, best);
    const std::vector<Best> found = place.get(best, rows);
    for (std::size_t row = 0; row < rows; ++row) {
        const auto first = logits.begin() + static_cast<std::ptrdiff_t>(row * vocabulary);
        const auto greatest = std::max_element(first, first + vocabulary);
        EXPECT_EQ(found[row].at, greatest - first);
        EXPECT_EQ(found[row].logit, *greatest);
    }
}

template <class Where>
constexpr Check<Where> checks[] = {{"moves", check_moves<true>},
                                   {"page tables", check_offsets<true>},
                                   {"pages that stay", check_selection<true>}};
constexpr Check<OnDevice> cub_checks[] = {{"moves", check_moves<false>},
                                          {"offsets", check_offsets<false>},
                                          {"pages that stay", check_selection<false>},
                                          {"greatest logits", check_greedy}};

TEST(PagesOnHost, AgreeWithTheirReferences) {
    agree<OnHost>(*OnHost::open(), checks<OnHost>);
}
TEST(PagesOnDevice, AgreeWithTheirReferences) {
    const auto runtime = OnDevice::open();
    if (runtime == nullptr) GTEST_SKIP();
    agree<OnDevice>(*runtime, checks<OnDevice>);
}
TEST(PagesOnDevice, AgreeByPrimitivesOfCub) {
    const auto runtime = OnDevice::open();
    if (runtime == nullptr) GTEST_SKIP();
    agree<OnDevice>(*runtime, cub_checks);
}
TEST(PagesOnDevice, LeaveMemoryAsItWas) {
    const auto runtime = OnDevice::open();
    if (runtime == nullptr) GTEST_SKIP();
    leave_memory<OnDevice>(*runtime, checks<OnDevice>);
    leave_memory<OnDevice>(*runtime, cub_checks);
}

}  // namespace
