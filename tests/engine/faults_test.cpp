// SPDX-License-Identifier: Apache-2.0
// Memory that is refused at every single site in turn: an error, and then everything goes on as if nothing had been.
// rows: 90
// timeout: 300
#include <gtest/gtest.h>
#include <support/tiny_engine.hpp>

#include <dlfcn.h>
#include <sys/mman.h>

#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <new>
#include <optional>
#include <tuple>

namespace {

/// Allocations that succeed before one fails; negative: none fails.
std::atomic<long> allowed_news{-1};
std::atomic<long> allowed_maps{-1};
thread_local bool counts = false;  ///< only the test's own thread is refused, and only where it asks for it

bool refuses(std::atomic<long>& allowed) {
    return counts && allowed.load() >= 0 && allowed.fetch_sub(1) == 0;
}

}  // namespace

[[gnu::noinline]] void* operator new(std::size_t size) {
    if (!refuses(allowed_news)) {
        if (void* memory = std::malloc(size == 0 ? 1 : size)) return memory;
    }
    throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* memory) noexcept {
    std::free(memory);
}
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept {
    std::free(memory);
}

// Stands before the C library's.
extern "C" void* mmap(void* address, std::size_t length, int protection, int flags, int file,
                      off_t offset) noexcept {
    using Function = void* (*)(void*, std::size_t, int, int, int, off_t);
    static const auto real = reinterpret_cast<Function>(::dlsym(RTLD_NEXT, "mmap"));
    if (refuses(allowed_maps)) {
        errno = ENOMEM;
        return MAP_FAILED;
    }
    return real(address, length, protection, flags, file, offset);
}

namespace {

using support::Tiny;
using Engine = zse::Engine<zse::kv::sliding<zse::kv::int8<16>, zse::kv::int4<16>>,
                           zse::tiers::chain<zse::tiers::host, zse::tiers::disk>>;

const Tiny& tiny() {
    static const Tiny model({.context = 2048});
    return model;
}

constexpr zse::Limits limits{
    .context = 1500, .batch = 3, .step_tokens = 128, .threads = 1, .kv_tokens = 1500};

/// Counts while it lives.
struct Counting {
    Counting() { counts = true; }
    ~Counting() { counts = false; }
};

/// Runs `body` again and again, with one more allocation allowed each time, until nothing was refused. Says how often
/// it was refused.
template <class Body>
long until_nothing_is_refused(std::atomic<long>& allowed, const Body& body) {
    for (long n = 0; n < 100'000; ++n) {
        allowed = n;
        body();
        const bool refused = allowed.load() < 0;
        allowed = -1;
        if (!refused) return n;
    }
    ADD_FAILURE() << "it never ends";
    return -1;
}

std::vector<std::vector<std::int32_t>> answers(zse::AnyEngine& engine) {
    std::vector<std::vector<std::int32_t>> all(4);
    std::vector<zse::engine::RequestId> ids;
    for (std::uint64_t i = 0; i < all.size(); ++i) {
        zse::AnyEngine::Request request;
        request.tokens = support::tiny_prompt(i, 200 + 100 * i);
        request.max_tokens = 30;
        request.ignore_end = true;
        ids.push_back(engine.submit(std::move(request)));
    }
    while (!engine.idle()) {
        for (const auto& event : engine.step()) {
            for (std::size_t i = 0; i < ids.size(); ++i) {
                if (event.id == ids[i] && event.token >= 0) all[i].push_back(event.token);
            }
        }
    }
    return all;
}

const std::vector<std::vector<std::int32_t>>& expected() {
    static const auto tokens = answers(*tiny().open<Engine>(limits));
    return tokens;
}

// Opening takes memory from the system and from the heap; whichever is refused, nothing stays behind.
void opening_fails_cleanly(const zse::Limits& wanted) {
    ASSERT_EQ(expected()[3].size(), 30u);
    for (auto* allowed : {&allowed_maps, &allowed_news}) {
        const auto ledger = std::make_shared<zse::memory::Ledger>();
        std::unique_ptr<zse::AnyEngine> engine;
        const long sites = until_nothing_is_refused(*allowed, [&] {
            engine.reset();
            for (const auto tier : zse::memory::all_tiers) {
                ASSERT_EQ(ledger->held(tier).total(), 0u);
                ASSERT_EQ(ledger->reserved(tier).total(), 0u);
            }
            try {
                const Counting counting;
                engine = tiny().open<Engine>(wanted, {}, ledger);
            } catch (const zse::Error& error) {
                EXPECT_EQ(error.code(), zse::ErrorCode::out_of_memory) << error.what();
            } catch (const std::bad_alloc&) {
            }
        });
        EXPECT_GE(sites, 8) << "an arena for each kind, at least";
        ASSERT_NE(engine, nullptr);
        EXPECT_EQ(answers(*engine), expected());
    }
}

TEST(Faults, OpeningFailsCleanlyAtEverySite) {
    opening_fails_cleanly(limits);
}
TEST(Faults, AlsoWhereWeightsAreOnTheirWayToTheDisk) {
    zse::Limits streamed = limits;
    streamed.disk_layers = 1;
    streamed.disk_output = true;
    opening_fails_cleanly(streamed);
}

// A request that finds no memory is refused or fails alone; the engine, and the request after it, know nothing of it.
TEST(Faults, RequestsFailAloneAtEverySite) {
    const auto engine = tiny().open<Engine>(limits);
    long refused = 0;
    const long sites = until_nothing_is_refused(allowed_news, [&] {
        zse::AnyEngine::Request mate;  // runs before, during and after
        mate.tokens = support::tiny_prompt(3, 500);
        mate.max_tokens = 30;
        mate.ignore_end = true;
        const auto mate_id = engine->submit(std::move(mate));
        std::vector<std::int32_t> heard;
        const auto listen = [&] {
            for (const auto& event : engine->step()) {
                if (event.id == mate_id && event.token >= 0) heard.push_back(event.token);
            }
        };
        listen();
        zse::AnyEngine::Request request;
        request.tokens = support::tiny_prompt(1, 40);
        request.stop = {"a text that never comes"};
        request.max_tokens = 10;
        std::optional<zse::engine::RequestId> id;
        for (int i = 0; i < 30 && heard.size() < 30; ++i) {
            try {
                const Counting counting;
                if (!id) id = engine->submit(request);
                const auto events = engine->step();
                counts = false;
                for (const auto& event : events) {
                    if (event.id == mate_id && event.token >= 0) heard.push_back(event.token);
                }
            } catch (const std::bad_alloc&) {
                ++refused;
            }
        }
        while (!engine->idle()) listen();
        EXPECT_EQ(heard, expected()[3]);
        EXPECT_EQ(engine->page_use().used, 0u);
    });
    EXPECT_GT(sites, 3);
    EXPECT_GT(refused, 3);
    EXPECT_EQ(answers(*engine), expected());
}

TEST(Faults, ForksFailAloneAtEverySite) {
    const auto engine = tiny().open<Engine>(limits);
    const long sites = until_nothing_is_refused(allowed_news, [&] {
        zse::AnyEngine::Request request;
        request.tokens = support::tiny_prompt(3, 500);
        request.max_tokens = 30;
        request.ignore_end = true;
        const auto id = engine->submit(std::move(request));
        std::vector<std::int32_t> heard;
        while (!engine->idle()) {
            for (const auto& event : engine->step()) {
                if (event.id == id && event.token >= 0) heard.push_back(event.token);
            }
            if (heard.size() != 5) continue;
            try {
                const Counting counting;
                std::ignore = engine->fork(id, {.seed = 9});
            } catch (const std::bad_alloc&) {
            }
        }
        EXPECT_EQ(heard, expected()[3]);
        EXPECT_EQ(engine->page_use().used, 0u);
    });
    EXPECT_GT(sites, 0);
}

}  // namespace
