// SPDX-License-Identifier: Apache-2.0
// zse benchmark --metric memory: what is planned, held, and most in use, for one setting or a sweep of them.
#include "benchmark.hpp"

#include <fmt/core.h>

#include <zse/planning/suggested_batch.hpp>

#include <algorithm>

namespace zse_cli {
namespace {

/// The worst load that the plan knows: every sequence at once, first as prompts that fill the context (the last token
/// of an answer is never computed itself, that of a prompt is), then with answers up to its end.
void fill(zse::AnyEngine& engine, Watch& watch, std::uint32_t generation) {
    const zse::Limits& limits = engine.limits();
    for (const bool answers : {false, true}) {
        for (std::uint32_t i = 0; i < limits.batch; ++i) {
            zse::AnyEngine::Request request;
            const std::uint32_t answer = answers ? std::min(generation, limits.context - 1) : 0;
            // Answers end one after the other, so that every number of sequences occurs.
            request.tokens =
                tokens(limits.context - answer + (answers ? 9 * i % answer : 0), engine.spec().vocabulary);
            request.max_tokens = answers ? zse::AnyEngine::Request::unlimited : 0;
            request.ignore_end = true;
            engine.submit(std::move(request));
        }
        while (!engine.idle()) {
            engine.step();
            watch.between_steps();
        }
    }
}

/// Bytes by tier and kind: planned, held, reserved, most in use at once, and in use now that nothing runs.
nlohmann::json memory_rows(const zse::AnyEngine& engine) {
    nlohmann::json rows = nlohmann::json::array();
    const zse::memory::Ledger& ledger = engine.ledger();
    for (const auto tier : zse::memory::all_tiers) {
        const auto held = ledger.held(tier);
        const auto reserved = ledger.reserved(tier);
        const auto peak = ledger.peak(tier);
        const auto steady = ledger.used(tier);
        for (std::size_t i = 0; i < zse::memory::kind_count; ++i) {
            const auto kind = static_cast<zse::memory::Kind>(i);
            const zse::Bytes planned = engine.plan()[tier][kind];
            if (planned == 0 && held[kind] == 0) continue;
            const bool rounding = kind == zse::memory::Kind::rounding;
            const std::string backing(rounding ? "" : zse::memory::name(ledger.backing(tier, kind)));
            rows.push_back({{"tier", std::string(zse::memory::name(tier))},
                            {"kind", std::string(zse::memory::name(kind))},
                            {"planned", planned},
                            {"held", held[kind]},
                            {"reserved", reserved[kind]},
                            {"peak", peak[kind]},
                            {"steady", steady[kind]},
                            {"pages", backing}});
        }
    }
    return rows;
}

/// The same for each pair of a context and a batch, one engine after the other.
int memory_sweep(const BenchmarkOptions& options) {
    nlohmann::json sweep = nlohmann::json::array();
    if (!options.model.json) {
        fmt::print("{:>8} {:>6} {:>15} {:>15} {:>15} {:>15} {:>15}\n", "context", "batch", "planned", "held",
                   "peak", "steady", "resident");
    }
    std::vector<std::uint32_t> contexts = options.contexts;
    std::vector<std::uint32_t> batches = options.batches;
    if (contexts.empty()) contexts.push_back(options.model.context);
    if (batches.empty()) batches.push_back(options.model.batch);
    for (const std::uint32_t context : contexts) {
        for (const std::uint32_t batch : batches) {
            ModelOptions model = measured(options);
            model.context = context;
            model.batch = batch;
            const Chosen chosen = choose(model);
            const zse::Bytes before = resident_bytes();
            const auto engine = open(chosen);
            engine->ledger().reset_peaks();
            Watch watch(*engine, {});
            fill(*engine, watch, options.generation);
            const auto growth =
                static_cast<std::int64_t>(resident_bytes()) - static_cast<std::int64_t>(before);
            const nlohmann::json rows = memory_rows(*engine);
            const auto sum = [&](const char* what) {
                zse::Bytes bytes = 0;
                for (const auto& row : rows) bytes += row[what].get<zse::Bytes>();
                return bytes;
            };
            sweep.push_back({{"context", engine->limits().context},
                             {"batch", engine->limits().batch},
                             {"memory", rows},
                             {"planned", sum("planned")},
                             {"held", sum("held")},
                             {"peak", sum("peak")},
                             {"steady", sum("steady")},
                             {"resident_growth", growth}});
            if (options.model.json) continue;
            fmt::print("{:>8} {:>6} {:>15} {:>15} {:>15} {:>15} {:>15}\n", engine->limits().context,
                       engine->limits().batch, sum("planned"), sum("held"), sum("peak"), sum("steady"),
                       growth);
        }
    }
    if (options.model.json) fmt::print("{}\n", dump({{"memory_sweep", sweep}}));
    return 0;
}

/// Bytes by tier and kind: planned, held after the load, and most in use at once during it. Resident memory is the
/// process's and stands apart.
int memory(const BenchmarkOptions& options) {
    const Chosen chosen = choose(measured(options));
    const zse::Bytes before = resident_bytes();
    const auto engine = open(chosen);
    const zse::Bytes opened = resident_bytes();
    engine->ledger().reset_peaks();
    Watch watch(*engine, options.profile);
    fill(*engine, watch, options.generation);
    watch.finish();
    const zse::Bytes filled = resident_bytes();
    const zse::memory::Ledger& ledger = engine->ledger();
    const auto growth = [&](zse::Bytes now) {
        return static_cast<std::int64_t>(now) - static_cast<std::int64_t>(before);
    };
    const nlohmann::json rows = memory_rows(*engine);
    if (!options.model.json) {
        fmt::print("{}, context {}, batch {}, filled\n", engine->description(), engine->limits().context,
                   engine->limits().batch);
        fmt::print("{:<5} {:<13} {:>15} {:>15} {:>15}  {}\n", "tier", "kind", "planned", "held", "peak",
                   "pages");
        for (const auto& row : rows) {
            fmt::print("{:<5} {:<13} {:>15} {:>15} {:>15}  {}\n", row["tier"].get<std::string>(),
                       row["kind"].get<std::string>(), row["planned"].get<zse::Bytes>(),
                       row["held"].get<zse::Bytes>(), row["peak"].get<zse::Bytes>(),
                       row["pages"].get<std::string>());
        }
    }
    const auto& counts = engine->scheduling();
    zse::Bytes kv_held = 0;
    zse::Bytes kv_peak = 0;
    for (const auto tier : zse::memory::all_tiers) {
        kv_held += ledger.held(tier)[zse::memory::Kind::kv];
        kv_peak += ledger.peak(tier)[zse::memory::Kind::kv];
    }
    const double kv_use =
        static_cast<double>(kv_peak) / static_cast<double>(std::max<zse::Bytes>(kv_held, 1));
    const std::uint32_t batch =
        zse::planning::suggested_batch(kv_use, counts.preempted, engine->limits().batch);
    if (options.model.json) {
        fmt::print("{}\n", dump({{"memory", rows},
                                 {"resident",
                                  {{"before_open", before},
                                   {"growth_after_open", growth(opened)},
                                   {"growth_after_load", growth(filled)}}},
                                 {"planned_total", engine->plan().total()},
                                 {"eviction",
                                  {{"policy", std::string(counts.policy)},
                                   {"preempted", counts.preempted},
                                   {"pages", counts.evicted_pages},
                                   {"tokens", counts.evicted_tokens},
                                   {"recomputed_rows", counts.recomputed_rows}}},
                                 {"tiers", json_of(engine->tier_traffic())},
                                 {"suggested_batch", batch},
                                 {"context", engine->limits().context},
                                 {"batch", engine->limits().batch},
                                 {"engine", engine->description()}}));
        return 0;
    }
    fmt::print("planned in all: {}\n", zse::human(engine->plan().total()));
    fmt::print("evicted ({}): {} pages of {} sequences, {} tokens; suggested --max-batch {}\n", counts.policy,
               counts.evicted_pages, counts.preempted, counts.evicted_tokens, batch);
    print_traffic(stdout, engine->tier_traffic());
    fmt::print(
        "resident memory of the process: {} before open, {:+.2f} MB once open, {:+.2f} MB after the load\n",
        zse::human(before), static_cast<double>(growth(opened)) / 1e6,
        static_cast<double>(growth(filled)) / 1e6);
    return 0;
}

}  // namespace

int benchmark_memory(const BenchmarkOptions& options) {
    return options.contexts.empty() && options.batches.empty() ? memory(options) : memory_sweep(options);
}

}  // namespace zse_cli
