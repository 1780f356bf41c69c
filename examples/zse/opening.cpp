// SPDX-License-Identifier: Apache-2.0
// Choosing and opening an engine, and reports about its memory.
#include "opening.hpp"

#include <fmt/core.h>
#include <unistd.h>

#include <zse/system/hardware.hpp>

#include <algorithm>
#include <fstream>

namespace zse_cli {

using zse::memory::Kind;
using zse::memory::Tier;

void ModelOptions::declare(CLI::App& command) {
    command.add_option("MODEL", model, "model file (.gguf)")->required();
    command.add_option("--weights", weights, "precision of weights")
        ->check(CLI::IsMember({"as-stored", "f32", "f16", "bf16", "int8", "nf4", "q4_0", "q4_1", "q8_0"}))
        ->capture_default_str();
    command.add_option("--kv-quant", kv, "precision of keys and values; int4 is rotated")
        ->check(CLI::IsMember({"none", "f32", "f16", "int8", "int4", "int4-plain"}))
        ->capture_default_str();
    const CLI::IsMember sides({"f32", "f16", "int8", "int4", "int4-plain"});
    command.add_option("--cache-type-k", k, "precision of keys (also -ctk)")->check(sides);
    command.add_option("--cache-type-v", v, "precision of values (also -ctv)")->check(sides);
    command.add_option("--attention", attention, "attention kernel")
        ->check(CLI::IsMember({"flash", "reference"}))
        ->capture_default_str();
    command
        .add_option("-c,--max-context,--max-model-len", context,
                    "tokens of prompt and answer; default: the smaller of the trained length and what fits")
        ->check(CLI::Range(1u, 1u << 30));
    command.add_option("--max-batch,--max-num-seqs", batch, "sequences at once")
        ->check(CLI::Range(1u, 4096u))
        ->capture_default_str();
    command
        .add_option("--step-tokens,--max-num-batched-tokens", step_tokens,
                    "rows that one step computes at most")
        ->check(CLI::Range(1u, 65536u))
        ->capture_default_str();
    command.add_option("--block-size", page_tokens, "tokens of a KV page")
        ->check(CLI::IsMember({1, 8, 16, 32}))
        ->capture_default_str();
    command.add_option("-t,--threads", threads, "threads; default: one per usable core")
        ->check(CLI::Range(1u, 256u));
    command.add_option("--isa", isa, "instruction set of the kernels; default: the widest of this processor")
        ->check(CLI::IsMember({"portable", "avx2", "avx512", "avx512_vnni", "neon"}));
    command.add_flag("--json", json, "print JSON on standard output");
}

namespace {

zse::engine::Choice choice_of(const ModelOptions& options) {
    zse::engine::Choice choice;
    choice.weights = options.weights;
    const std::string both = options.kv == "none" ? "f16" : options.kv;
    const std::string k = options.k.empty() ? both : options.k;
    const std::string v = options.v.empty() ? both : options.v;
    choice.kv = k == v ? k : zse::text(k, "/", v);
    choice.attention = options.attention;
    return choice;
}

}  // namespace

std::uint32_t largest_context(const zse::engine::Built& engine, const zse::ModelSpec& spec,
                              zse::Limits limits, zse::Bytes budget) {
    const auto fits = [&](std::uint32_t context) {
        limits.context = context;
        return engine.plan(spec, limits).total() <= budget;
    };
    std::uint32_t low = 0;  // fits, or nothing does
    std::uint32_t high = spec.trained_context;
    if (fits(high)) return high;
    while (high - low > 1) {
        const std::uint32_t middle = low + (high - low) / 2;
        (fits(middle) ? low : high) = middle;
    }
    return low;
}

Chosen choose(const ModelOptions& options, std::uint32_t output_rows, std::uint32_t least_context) {
    Chosen chosen{zse::io::Gguf::open(options.model), {}, choice_of(options), {}, {}, 0, {}};
    if (!options.isa.empty()) {
        chosen.isa = zse::kernels::isa_called(options.isa);
        if (!chosen.isa) {
            throw zse::Error(zse::ErrorCode::unsupported,
                             zse::text("this program has no ", options.isa, " kernels; use one of ",
                                       zse::kernels::usable_names(), ", or leave --isa out"));
        }
    }
    chosen.spec = zse::model::spec_from_gguf(chosen.file);
    chosen.engine = zse_matrix::zse_engines::find(chosen.choice);
    const zse::system::Hardware machine = zse::system::probe_host();
    chosen.budget = machine.usable_memory();
    chosen.limits.batch = options.batch;
    chosen.limits.step_tokens = std::max(options.step_tokens, options.batch);
    chosen.limits.output_rows = std::clamp(output_rows, options.batch, chosen.limits.step_tokens);
    chosen.limits.page_tokens = options.page_tokens;
    chosen.limits.threads = options.threads != 0 ? options.threads : machine.usable_threads();
    chosen.limits.context = options.context;
    if (options.context == 0) {
        chosen.limits.context = largest_context(chosen.engine, chosen.spec, chosen.limits, chosen.budget);
        if (chosen.limits.context == 0) {
            chosen.limits.context = 1;
            const zse::Bytes least = chosen.engine.plan(chosen.spec, chosen.limits).total();
            throw zse::Error(zse::ErrorCode::out_of_memory,
                             zse::text("the model needs ", least, " bytes for a context of one token, and ",
                                       chosen.budget, " are free; use a smaller model or fewer bits"));
        }
    }
    if (options.context == 0 && least_context > chosen.limits.context) chosen.limits.context = least_context;
    return chosen;
}

std::unique_ptr<zse::AnyEngine> open(const Chosen& chosen) {
    zse::engine::Options options;
    options.limits = chosen.limits;
    options.isa = chosen.isa;
    const bool terminal = ::isatty(STDERR_FILENO) == 1;
    int shown = -1;
    if (terminal) {
        options.progress = [&shown](zse::Bytes done, zse::Bytes total) {
            const int percent = static_cast<int>(100 * done / std::max<zse::Bytes>(total, 1));
            if (percent == shown) return;
            shown = percent;
            fmt::print(stderr, "\rloading weights [{:<40}] {:3}%",
                       std::string(static_cast<std::size_t>(percent * 2 / 5), '#'), percent);
            std::fflush(stderr);
        };
    }
    auto vocabulary = zse::engine::vocabulary_from_gguf(chosen.file, chosen.spec.vocabulary);
    auto engine = chosen.engine.open(chosen.file, chosen.spec, std::move(vocabulary), options);
    if (terminal) fmt::print(stderr, "\r\033[K");
    return engine;
}

nlohmann::json json_of(const zse::memory::TierPlan& tier) {
    nlohmann::json kinds;
    for (std::size_t i = 0; i < zse::memory::kind_count; ++i) {
        kinds[std::string(zse::memory::name(static_cast<Kind>(i)))] = tier.kinds[i];
    }
    kinds["total"] = tier.total();
    return kinds;
}

nlohmann::json json_of(const zse::memory::Plan& plan) {
    nlohmann::json tiers = nlohmann::json::object();
    for (const Tier tier : {Tier::gpu, Tier::host, Tier::disk}) {
        if (plan[tier].total() != 0) tiers[std::string(zse::memory::name(tier))] = json_of(plan[tier]);
    }
    return tiers;
}

void print_memory(std::FILE* out, const zse::AnyEngine& engine) {
    const zse::memory::TierPlan& planned = engine.plan().host;
    const zse::memory::TierPlan held = engine.ledger().held(Tier::host);
    fmt::print(out, "{:<12} {:>15} {:>15} {:>12}\n", "memory", "planned", "held", "difference");
    const auto line = [&](std::string_view what, zse::Bytes p, zse::Bytes h) {
        fmt::print(out, "{:<12} {:>15} {:>15} {:>12}\n", what, p, h,
                   static_cast<std::int64_t>(h) - static_cast<std::int64_t>(p));
    };
    for (std::size_t i = 0; i < zse::memory::kind_count; ++i) {
        line(zse::memory::name(static_cast<Kind>(i)), planned.kinds[i], held.kinds[i]);
    }
    line("total bytes", planned.total(), held.total());
    fmt::print(out, "{:<12} {:>15}\n", "", zse::human(planned.total()));
    fmt::print(out, "resident: {}, the rest being the program, its tokenizer and pages of the model file\n",
               zse::human(resident_bytes()));
}

zse::Bytes resident_bytes() {
    std::ifstream statm("/proc/self/statm");
    zse::Bytes total = 0;
    zse::Bytes resident = 0;
    statm >> total >> resident;
    return resident * static_cast<zse::Bytes>(::sysconf(_SC_PAGESIZE));
}

std::string dump(const nlohmann::json& value) {
    return value.dump(2, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace zse_cli
