// SPDX-License-Identifier: Apache-2.0
// The demo model's plan beside what the process really grew by: within 5 % under full load, nothing on the ledger,
// and an allocation that nobody planned shows.
// rows: 84 86
// labels: slow
// timeout: 300
#include <gtest/gtest.h>
#include <support/smollm2.hpp>

#include <zse/memory/measured.hpp>
#include <zse/system/process.hpp>

#include <algorithm>
#include <memory>

namespace {

using zse::Bytes;
using zse::MiB;
using zse::memory::Measured;
using zse::memory::Tier;

Bytes resident() {
    return zse::system::read_process().value().resident;
}

Measured measured(const zse::AnyEngine& engine, Bytes before) {
    return {engine.plan().total(), zse::memory::in_use(engine.ledger()), before, resident()};
}

TEST(Measured, IsThePlanUnderFullLoadAndShowsWhatNobodyPlanned) {
    zse::engine::Options options;
    options.limits = {.context = 1024, .batch = 1, .step_tokens = 256, .threads = 2};
    // A first engine brings in what the process needs once: code, libraries, buffers of the allocator.
    support::open_smollm2<zse::Engine<>>(options);
    const Bytes before = resident();
    const auto engine = support::open_smollm2<zse::Engine<>>(options);
    EXPECT_EQ(engine->ledger().held(Tier::host), engine->plan().host) << "0 on the ledger";

    zse::AnyEngine::Request request;
    request.tokens.assign(1000, 500);
    request.max_tokens = 20;
    request.ignore_end = true;
    engine->submit(request);
    while (!engine->idle()) engine->step();
    const Measured full = measured(*engine, before);
    const auto planned = static_cast<double>(full.planned);
    EXPECT_LT(std::abs(static_cast<double>(full.beyond_plan())), 0.05 * planned) << full.growth();

    constexpr Bytes planted_bytes = MiB(24);
    const auto planted = std::make_unique<char[]>(planted_bytes);
    std::fill_n(planted.get(), planted_bytes, 'x');
    asm volatile("" : : "r"(planted.get()) : "memory");
    const Measured with = measured(*engine, before);
    EXPECT_NEAR(static_cast<double>(with.beyond_plan() - full.beyond_plan()),
                static_cast<double>(planted_bytes), MiB(1));
    EXPECT_EQ(engine->ledger().held(Tier::host), engine->plan().host) << "the ledger knows nothing of it";

    engine->ledger().reset_peaks();
    const auto used = engine->ledger().used(Tier::host);
    EXPECT_EQ(engine->ledger().peak(Tier::host), used);
    EXPECT_EQ(used[zse::memory::Kind::kv], 0u) << "the request has ended";
    EXPECT_GT(used[zse::memory::Kind::weights], MiB(50));
}

}  // namespace
