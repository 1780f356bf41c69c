// SPDX-License-Identifier: Apache-2.0
// Arenas hold what the plan says, rounding included, on the pages that were asked for where the system gives them;
// carvers hand them out; all refuse what is not there.
#include <zse/memory/arena.hpp>

#include <gtest/gtest.h>
#include <support/expect_error.hpp>

#include <linux/capability.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>
#include <fstream>
#include <limits>
#include <string>
#include <type_traits>
#include <vector>

namespace {

using namespace zse::memory;
using zse::Bytes;
using zse::ErrorCode;
using zse::KiB;
using zse::MiB;

constexpr Bytes most = std::numeric_limits<Bytes>::max();

Arena arena(Ledger& ledger, Kind kind, Bytes bytes, const Mapping& how = {}) {
    return Arena(ledger.reserve(Tier::host, kind, bytes).value(), how);
}

/// Whether the system has a mapping over this address.
bool mapped(const void* pointer) {
    const auto address = reinterpret_cast<std::uintptr_t>(pointer);
    std::ifstream maps("/proc/self/maps");
    for (std::string line; std::getline(maps, line);) {
        const std::size_t dash = line.find('-');
        const std::uintptr_t first = std::stoull(line.substr(0, dash), nullptr, 16);
        const std::uintptr_t last = std::stoull(line.substr(dash + 1), nullptr, 16);
        if (first <= address && address < last) return true;
    }
    return false;
}

/// Bytes of address space, or of locked memory, that the process has ("VmSize", "VmLck").
Bytes of_process(const std::string& field) {
    std::ifstream status("/proc/self/status");
    for (std::string line; std::getline(status, line);) {
        if (line.starts_with(field + ":")) return KiB(std::stoull(line.substr(field.size() + 1)));
    }
    return 0;
}

/// Huge pages that are set aside and free.
std::uint64_t free_huge_pages() {
    std::ifstream info("/proc/meminfo");
    for (std::string line; std::getline(info, line);) {
        if (line.starts_with("HugePages_Free:")) return std::stoull(line.substr(line.find(':') + 1));
    }
    return 0;
}

/// Lowers a limit of the process until the end of a scope.
class Limited {
public:
    Limited(int resource, Bytes bytes) : resource_(resource) {
        getrlimit(static_cast<__rlimit_resource>(resource_), &before_);
        const rlimit lowered{std::min<rlim_t>(bytes, before_.rlim_max), before_.rlim_max};
        EXPECT_EQ(setrlimit(static_cast<__rlimit_resource>(resource_), &lowered), 0);
    }
    ~Limited() { setrlimit(static_cast<__rlimit_resource>(resource_), &before_); }
    Limited(const Limited&) = delete;
    Limited& operator=(const Limited&) = delete;

private:
    int resource_;
    rlimit before_{};
};

/// Takes the right to lock any memory from this thread until the end of a scope: root has it.
class Unprivileged {
public:
    Unprivileged() {
        syscall(SYS_capget, &header_, before_);
        __user_cap_data_struct lowered[2] = {before_[0], before_[1]};
        lowered[0].effective &= ~(1u << CAP_IPC_LOCK);
        EXPECT_EQ(syscall(SYS_capset, &header_, lowered), 0);
    }
    ~Unprivileged() { syscall(SYS_capset, &header_, before_); }
    Unprivileged(const Unprivileged&) = delete;
    Unprivileged& operator=(const Unprivileged&) = delete;

private:
    __user_cap_header_struct header_{_LINUX_CAPABILITY_VERSION_3, 0};
    __user_cap_data_struct before_[2] = {};
};

static_assert(!std::is_copy_constructible_v<Arena>);

TEST(Arena, MapsZeroedBytesAndCountsThemWithRounding) {
    Ledger ledger;
    const Arena a = arena(ledger, Kind::kv, 5000);
    EXPECT_EQ(a.size(), 5000u);
    EXPECT_EQ(a.bytes().size(), 5000u);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(a.data()) % 4096, 0u);
    EXPECT_EQ(ledger.held(Tier::host)[Kind::kv], 5000u);
    EXPECT_EQ(ledger.held(Tier::host)[Kind::rounding], 8192u - 5000u);
    for (std::byte& byte : a.bytes()) {
        EXPECT_EQ(byte, std::byte{0});
        byte = std::byte{0xff};
    }
}

TEST(Arena, IsWholeSmallPagesBelowAHugeOneAndWholeHugePagesFromThere) {
    struct Case {
        Bytes asked, whole;
    };
    constexpr Bytes huge = 2 * 1024 * 1024;
    for (const Case& c :
         {Case{0, 0}, Case{1, 4096}, Case{4096, 4096}, Case{4097, 8192}, Case{huge - 4096, huge - 4096},
          Case{huge - 4095, huge}, Case{huge - 1, huge}, Case{huge, huge}, Case{huge + 1, 2 * huge},
          Case{5'000'000, 3 * huge}, Case{3 * huge, 3 * huge}}) {
        EXPECT_EQ(arena_bytes(c.asked), c.whole) << c.asked;
        for (const Backing best : {Backing::plain, Backing::transparent, Backing::huge}) {
            Ledger ledger;
            const Bytes before = of_process("VmSize");
            const Arena a = arena(ledger, Kind::weights, c.asked, {best});
            EXPECT_EQ(ledger.reserved(Tier::host).total(), c.whole);
            EXPECT_EQ(ledger.held(Tier::host), ledger.reserved(Tier::host));
            if (c.whole == 0) continue;
            EXPECT_GE(of_process("VmSize"), before + c.whole);
            a.data()[c.whole - 1] = std::byte{1};  // all of it is there
            EXPECT_TRUE(mapped(a.data() + c.whole - 1));
        }
    }
}

TEST(Arena, LargeOnesBeginAtHugePages) {
    Ledger ledger;
    std::vector<Arena> arenas;
    for (const Bytes bytes : {MiB(2), MiB(2) + 1, MiB(5), MiB(6)}) {
        arenas.push_back(arena(ledger, Kind::weights, bytes));
        const Arena& a = arenas.back();
        EXPECT_EQ(reinterpret_cast<std::uintptr_t>(a.data()) % MiB(2), 0u);
        a.bytes().front() = a.bytes().back() = std::byte{1};
    }
    EXPECT_EQ(ledger.held(Tier::host)[Kind::weights], MiB(15) + 1);
    EXPECT_EQ(ledger.held(Tier::host).total(), MiB(2) + MiB(4) + MiB(6) + MiB(6));
}

TEST(Arena, LiesOnThePagesThatWereAskedForOrTheNextLowerOnes) {
    Ledger ledger;
    EXPECT_EQ(arena(ledger, Kind::kv, MiB(4), {Backing::plain}).backing(), Backing::plain);
    EXPECT_EQ(ledger.backing(Tier::host, Kind::kv), Backing::plain);
    const bool can_ask = std::ifstream("/sys/kernel/mm/transparent_hugepage/enabled").good();
    const Backing asked = can_ask ? Backing::transparent : Backing::plain;
    EXPECT_EQ(arena(ledger, Kind::kv, MiB(4)).backing(), asked);
    EXPECT_EQ(ledger.backing(Tier::host, Kind::kv), asked);
    EXPECT_EQ(ledger.backing(Tier::host, Kind::logits), Backing::plain) << "no arena yet";
    // More huge pages than are set aside, wherever this runs.
    const Bytes beyond = MiB(2) * (free_huge_pages() + 2);
    const Arena fallen = arena(ledger, Kind::weights, beyond, {Backing::huge});
    EXPECT_EQ(fallen.backing(), asked);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(fallen.data()) % MiB(2), 0u);
    EXPECT_EQ(ledger.held(Tier::host)[Kind::weights], beyond) << "which pages it has costs no byte";
    // What fills no huge page never asks for one.
    for (const Backing best : {Backing::transparent, Backing::huge}) {
        EXPECT_EQ(arena(ledger, Kind::kv, MiB(2) - 4096, {best}).backing(), Backing::plain);
    }
}

TEST(Arena, TakesHugePagesThatWereSetAside) {
    if (free_huge_pages() < 2) GTEST_SKIP() << "no huge pages are set aside here (vm.nr_hugepages)";
    Ledger ledger;
    const Arena a = arena(ledger, Kind::weights, MiB(4) - 1, {Backing::huge});
    EXPECT_EQ(a.backing(), Backing::huge);
    EXPECT_EQ(ledger.backing(Tier::host, Kind::weights), Backing::huge);
    a.bytes().back() = std::byte{1};
}

TEST(Arena, NamesItsPages) {
    EXPECT_EQ(name(Backing::plain), "plain");
    EXPECT_EQ(name(Backing::transparent), "transparent");
    EXPECT_EQ(name(Backing::huge), "huge");
}

TEST(Arena, StaysInMemoryWhereItIsLocked) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    GTEST_SKIP() << "sanitizers lock nothing";
#endif
    const Bytes before = of_process("VmLck");
    Ledger ledger;
    {
        const Unprivileged user;
        const Limited limit(RLIMIT_MEMLOCK, before + KiB(64));
        const Arena a = arena(ledger, Kind::kv, KiB(40) - 3, {Backing::plain, true});
        EXPECT_EQ(of_process("VmLck"), before + KiB(40));
    }
    EXPECT_EQ(of_process("VmLck"), before);
}

TEST(Arena, WhatTheSystemRefusesToLockIsAnErrorAndLeavesNothing) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    GTEST_SKIP() << "sanitizers lock nothing";
#endif
    Ledger ledger;
    const Bytes before = of_process("VmSize");
    {
        const Unprivileged user;
        const Limited limit(RLIMIT_MEMLOCK, of_process("VmLck") + KiB(64));
        for (const Backing best : {Backing::plain, Backing::transparent, Backing::huge}) {
            for (const Bytes bytes : {KiB(68), MiB(3)}) {
                support::expect_error(
                    [&] {
                        arena(ledger, Kind::logits, bytes, {best, true});
                    },
                    ErrorCode::out_of_memory, {"refused to lock", "bytes for logits", "ulimit -l"});
                EXPECT_NO_THROW(arena(ledger, Kind::logits, bytes, {best, false}));
            }
        }
    }
    EXPECT_EQ(ledger.held(Tier::host), TierPlan{});
    EXPECT_EQ(ledger.reserved(Tier::host), TierPlan{});
    EXPECT_LT(of_process("VmSize"), before + MiB(2)) << "a mapping stayed";
}

TEST(Arena, OfNoBytesHoldsNothing) {
    Ledger ledger;
    const Arena none = arena(ledger, Kind::scratch, 0);
    EXPECT_EQ(none.data(), nullptr);
    EXPECT_TRUE(none.bytes().empty());
    EXPECT_EQ(ledger.held(Tier::host), TierPlan{});
}

TEST(Arena, GivesBackMemoryHeldBytesAndReservation) {
    Caps caps;
    caps.host = MiB(8);
    Ledger ledger(caps);
    const std::byte* data = nullptr;
    {
        Arena a = arena(ledger, Kind::kv, MiB(6) + 5);
        data = a.data();
        EXPECT_TRUE(mapped(data));
        EXPECT_FALSE(ledger.reserve(Tier::host, Kind::kv, 1).ok());
    }
    EXPECT_FALSE(mapped(data));
    EXPECT_EQ(ledger.held(Tier::host), TierPlan{});
    EXPECT_EQ(ledger.reserved(Tier::host), TierPlan{});
    EXPECT_TRUE(ledger.reserve(Tier::host, Kind::kv, MiB(8)).ok());
}

TEST(Arena, TellsHowManyOfItsBytesAreInUse) {
    Ledger ledger;
    {
        Arena a = arena(ledger, Kind::kv, 1000);
        Arena b = arena(ledger, Kind::kv, 1000);
        a.uses(700);
        b.uses(100);
        a.uses(200);
        a.uses(200);
        b.uses(550);
        EXPECT_EQ(ledger.peak(Tier::host)[Kind::kv], 800u) << "700 + 100; later 200 + 550";
        Arena moved(std::move(a));
        moved.uses(900);
        EXPECT_EQ(ledger.peak(Tier::host)[Kind::kv], 1450u);
        Arena().uses(5);
    }
    ledger.reset_peaks();
    EXPECT_EQ(ledger.peak(Tier::host), TierPlan{}) << "what is given back is not in use";
}

TEST(Arena, MovesWithoutUnmapping) {
    Ledger ledger;
    Arena a = arena(ledger, Kind::kv, 100);
    std::byte* const data = a.data();
    Arena b(std::move(a));
    EXPECT_EQ(b.data(), data);
    EXPECT_EQ(a.data(), nullptr);  // NOLINT(bugprone-use-after-move)
    Arena c = arena(ledger, Kind::logits, 200);
    c = std::move(b);
    EXPECT_EQ(c.data(), data);
    EXPECT_EQ(ledger.held(Tier::host)[Kind::logits], 0u);
    EXPECT_EQ(ledger.held(Tier::host).total(), 4096u);
    c = Arena();
    EXPECT_EQ(ledger.held(Tier::host).total(), 0u);
}

TEST(Arena, WhatTheSystemRefusesIsAnErrorAndLeavesNothing) {
    Ledger ledger;
    // The last ones are rounded up past 64 bits.
    for (const Bytes bytes : {Bytes{1} << 60, most - 5000, most}) {
        for (const Backing best : {Backing::plain, Backing::transparent, Backing::huge}) {
            support::expect_error([&] { arena(ledger, Kind::kv, bytes, {best}); }, ErrorCode::out_of_memory,
                                  {"the system refused", "bytes for kv"});
        }
    }
    EXPECT_EQ(ledger.held(Tier::host), TierPlan{});
    EXPECT_EQ(ledger.reserved(Tier::host), TierPlan{});
}

TEST(Arena, ALimitOfAddressSpaceIsAnErrorAndLeavesNothing) {
    Ledger ledger;
    {
        const Limited limit(RLIMIT_AS, of_process("VmSize") + MiB(64));
        for (const Backing best : {Backing::plain, Backing::transparent, Backing::huge}) {
            support::expect_error([&] { arena(ledger, Kind::kv, MiB(96), {best}); }, ErrorCode::out_of_memory,
                                  {"the system refused", "bytes for kv"});
            EXPECT_NO_THROW(arena(ledger, Kind::kv, MiB(16), {best}));
        }
    }
    EXPECT_EQ(ledger.held(Tier::host), TierPlan{});
    EXPECT_EQ(ledger.reserved(Tier::host), TierPlan{});
    EXPECT_NO_THROW(arena(ledger, Kind::kv, MiB(96)));
}

TEST(Plan, AddsRoundingToWholeSystemPages) {
    Plan plan;
    plan.add(Tier::host, Kind::kv, 1);
    plan.add(Tier::host, Kind::kv, 4096);
    plan.add(Tier::host, Kind::logits, 0);
    plan.add(Tier::disk, Kind::weights, 3 * 4096 - 1);
    plan.add(Tier::gpu, Kind::kv, MiB(2) + 5);
    EXPECT_EQ(plan.host[Kind::kv], 4097u);
    EXPECT_EQ(plan.host[Kind::rounding], 4095u);
    EXPECT_EQ(plan[Tier::host].total(), 8192u);
    EXPECT_EQ(plan[Tier::disk].total(), 12288u);
    EXPECT_EQ(plan[Tier::gpu].total(), MiB(4));
    EXPECT_EQ(plan.total(), 8192 + 12288 + MiB(4));
    EXPECT_EQ(plan.of(Kind::kv), 4097 + MiB(2) + 5);
}

TEST(Plan, SaturatesInsteadOfWrapping) {
    Plan plan;
    plan.add(Tier::host, Kind::kv, most);
    plan.add(Tier::host, Kind::kv, most);
    EXPECT_EQ(plan.host[Kind::kv], most);
    EXPECT_EQ(plan.total(), most);
    EXPECT_EQ((plan + plan).of(Kind::kv), most);
    plan.pools[0] = {Tier::host, most, 3, most};
    plan.pools[1] = {Tier::host, 1, 1, 1};
    plan.pool_count = 2;
    EXPECT_EQ(plan.pools[0].bytes(), most);
    EXPECT_EQ(plan.kv_bytes_per_sequence(), most);
}

TEST(Plan, OfSeveralEnginesIsTheirSum) {
    Plan a, b;
    a.add(Tier::host, Kind::weights, 5000);
    a.parameters = 7;
    b.add(Tier::host, Kind::weights, 100);
    b.add(Tier::gpu, Kind::kv, 4096);
    b.parameters = 4;
    const Plan both = a + b;
    EXPECT_EQ(both.host[Kind::weights], 5100u);
    EXPECT_EQ(both.host.total(), 8192u + 4096u) << "each is whole pages of its own";
    EXPECT_EQ(both.gpu[Kind::kv], 4096u);
    EXPECT_EQ(both.parameters, 11u);
}

TEST(Plan, BytesOfASequenceAreThoseOfItsPagesInAllPools) {
    Plan plan;
    plan.pools[0] = {Tier::gpu, 100, 1000, 7};
    plan.pools[1] = {Tier::host, 10, 50, 3};
    plan.pools[2] = {Tier::host, 1, 1'000'000, 1};  // not in use
    plan.pool_count = 2;
    EXPECT_EQ(plan.kv_pools().size(), 2u);
    EXPECT_EQ(plan.kv_bytes_per_sequence(), 7150u);
    EXPECT_EQ(plan.kv_pools()[1].bytes(), 500u);
}

TEST(Plan, IsWhatArenasHold) {
    const std::vector<Bytes> sizes{1,       63,      4095,       4096,   4097,        12288,
                                   100'000, 131'072, MiB(2) - 1, MiB(2), MiB(3) + 17, 77};
    Plan plan;
    Ledger ledger;
    std::vector<Arena> arenas;
    for (std::size_t i = 0; i < sizes.size(); ++i) {
        const Kind kind = static_cast<Kind>(i % (kind_count - 1));  // every kind but rounding
        plan.add(Tier::host, kind, sizes[i]);
        arenas.push_back(arena(ledger, kind, sizes[i]));
    }
    EXPECT_EQ(ledger.held(Tier::host), plan.host);
    EXPECT_EQ(ledger.reserved(Tier::host), plan.host);
}

TEST(Plan, NamesItsTiersAndKinds) {
    EXPECT_EQ(name(Tier::gpu), "gpu");
    EXPECT_EQ(name(Tier::host), "host");
    EXPECT_EQ(name(Tier::disk), "disk");
    const std::vector<std::string_view> names{"weights",   "kv",       "prompt_cache", "scratch",
                                              "logits",    "sampling", "staging",      "page_tables",
                                              "tokenizer", "control",  "rounding"};
    ASSERT_EQ(names.size(), kind_count);
    EXPECT_EQ(name(Kind::weights), names[0]);
    EXPECT_EQ(name(Kind::page_tables), names[7]);
    for (std::size_t i = 0; i < kind_count; ++i) EXPECT_EQ(name(static_cast<Kind>(i)), names[i]);
}

TEST(Carver, HandsOutAlignedPiecesThatTheirFootprintsCount) {
    Ledger ledger;
    const Bytes planned = Carver::footprint<std::uint32_t>(5) + Carver::footprint<double>(8) +
                          Carver::footprint<char>(0) + Carver::footprint<char>(65);
    EXPECT_EQ(planned, 64u + 64u + 0u + 128u);
    const Arena a = arena(ledger, Kind::control, planned);
    Carver carver(a.bytes());
    const auto first = carver.take<std::uint32_t>(5);
    const auto second = carver.take<double>(8);
    const auto none = carver.take<char>(0);
    const auto last = carver.take<char>(65);
    EXPECT_EQ(first.size(), 5u);
    EXPECT_EQ(reinterpret_cast<std::byte*>(first.data()), a.data());
    EXPECT_EQ(reinterpret_cast<std::byte*>(second.data()), a.data() + 64);
    EXPECT_EQ(carver.taken(), 256u);
    EXPECT_TRUE(none.empty());
    EXPECT_EQ(reinterpret_cast<std::byte*>(last.data()), a.data() + 128);
    support::expect_error([&] { carver.take<char>(1); }, ErrorCode::internal,
                          {"holds 0 bytes", "64 are needed"});
}

TEST(Carver, RefusesCountsThatWouldWrap) {
    std::byte bytes[64];
    Carver carver(bytes);
    support::expect_error([&] { carver.take<std::uint64_t>(most / 4); }, ErrorCode::internal, {"are needed"});
    EXPECT_EQ(carver.take<char>(64).size(), 64u);
}

}  // namespace
