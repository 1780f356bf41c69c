// SPDX-License-Identifier: Apache-2.0
// Choosing and opening an engine, and reports about its memory.
#include "opening.hpp"

#include "offload.hpp"
#include "refusal.hpp"

#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>

namespace zse_cli {

using zse::memory::Kind;
using zse::memory::Tier;

void BudgetOptions::declare(CLI::App& command) {
    const auto size = [&command](const char* names, std::optional<zse::Size>& to, const char* what) {
        command
            .add_option_function<std::string>(
                names, [&to](const std::string& text) { to = zse::parse_size(text).value(); }, what)
            ->type_name("SIZE")
            ->group("Memory");
    };
    size("--gpu-mem", request.gpu,
         "bytes of the gpu tier (64MB, 10GiB, auto: the card's free memory); default: none. Without a GPU it "
         "is an arena of host memory that stands in for one");
    size("--host-mem", request.host, "bytes of host memory; default, auto: what is free less the headroom");
    size("--disk-mem", request.disk,
         "bytes of the disk tier; default: what --kv-tier disk states, else none");
    command
        .add_option_function<double>(
            "--swap-space",
            [this](double gigabytes) {
                swap_space = static_cast<zse::Bytes>(gigabytes * 1024) * zse::MiB(1);
            },
            "GiB of host memory for KV that the gpu tier has no room for, as vLLM spells it: --kv-tier cpu "
            "says the "
            "same in any unit")
        ->check(CLI::Range(0.0, 1e6))
        ->type_name("GIB")
        ->group("Memory");
    command
        .add_option_function<double>(
            "--headroom", [this](double share) { request.headroom = share; },
            "share of each tier that stays free; default: 0.2 of host memory and 0.1 of a card where their "
            "size is measured, 0 where it is stated")
        ->group("Memory");
    command
        .add_option_function<double>(
            "--gpu-memory-utilization", [this](double share) { request.utilization = share; },
            "share of the first tier's memory that may be used: 0.9 is a headroom of 0.1")
        ->group("Memory");
    command
        .add_option_function<std::string>(
            "--reserve",
            [this](const std::string& text) {
                const zse::Size stated = zse::parse_size(text).value();
                if (stated.automatic)
                    throw zse::Error(zse::ErrorCode::usage, "--reserve is a size, such as 4GB; auto is none");
                request.reserve = stated.bytes;
            },
            "bytes of the first tier that are left to the system and to others; default: 0")
        ->type_name("SIZE")
        ->group("Memory");
    command.add_flag("--unified", request.unified, "the gpu tier lies in host memory, which is counted once")
        ->group("Memory");
    size("--kv-cache-memory", kv,
         "bytes of all pages of KV, auto: what the tier has left; default: batch times context");
    declare_kv_tiers(command);
    command
        .add_option_function<std::string>(
            "--gpu-layers,--n-gpu-layers",
            [this](const std::string& text) {
                if (text == "auto") {
                    gpu_layers.reset();
                } else if (text == "all") {
                    gpu_layers = all_layers;
                } else {
                    const auto count = zse::parse_count(text);
                    if (!count || count.value() > 1u << 20) {
                        throw zse::Error(
                            zse::ErrorCode::usage,
                            zse::text("--gpu-layers is a number of layers, all or auto, found ", text));
                    }
                    gpu_layers = static_cast<std::uint32_t>(count.value());
                }
            },
            "last layers in the gpu tier, and with any of them the output matrix (also -ngl); all, or auto: "
            "as many as fit (default)")
        ->type_name("N")
        ->group("Memory");
    offload.declare(command);
}

void KvOptions::declare(CLI::App& command) {
    const CLI::IsMember one({"none", "f32", "f16", "fp8", "int8", "int8-plain", "int4", "int4-plain"});
    const CLI::IsMember side({"f32", "f16", "fp8", "int8", "int8-plain", "int4", "int4-plain"});
    command.add_option("--kv-quant", both, "precision of keys and values; int8 and int4 are rotated")
        ->check(one)
        ->capture_default_str()
        ->group("KV");
    command.add_option("--cache-type-k", k, "precision of keys (also -ctk)")->check(side)->group("KV");
    command.add_option("--cache-type-v", v, "precision of values (also -ctv)")->check(side)->group("KV");
    command
        .add_option(
            "--kv-old", old,
            "precision of keys and values of tokens more than 1,024 back; none: the same as of recent "
            "ones")
        ->check(one)
        ->capture_default_str()
        ->group("KV");
    const auto count = [&command](const char* name, std::uint32_t& to, const char* what) {
        command.add_option(name, to, what)
            ->check(CLI::Range(0u, 1u << 30))
            ->capture_default_str()
            ->group("KV");
    };
    count("--kv-recent", recent,
          "drop tokens that lie further back than this, a multiple of 1,024; 0: none is dropped");
    count("--kv-sinks", sinks, "of dropped tokens, the first ones that stay, at most 256");
    count(
        "--kv-heavy", heavy,
        "of dropped tokens, those that stay because they were attended to most: a multiple of 1,024 for each "
        "key head");
    declare_prompt_cache(command);
}

void KvOptions::declare_prompt_cache(CLI::App& command) {
    command
        .add_flag("--enable-prefix-caching,!--no-enable-prefix-caching,!--no-prompt-cache", prompt_cache,
                  "keep pages of prompts and answers for prompts that begin alike (default), or do not")
        ->group("KV");
    command
        .add_option_function<std::string>(
            "--prompt-cache",
            [this](const std::string& directory) {
                for (const char* word : {"", "true", "false", "yes", "no", "on", "off"}) {
                    if (directory == word) {
                        throw zse::Error(
                            zse::ErrorCode::usage,
                            zse::text("--prompt-cache is a directory, found '", directory,
                                      "'; whether prompts are kept at all is --enable-prefix-caching"));
                    }
                }
                prompt_cache_directory = directory;
            },
            "keep them in a file in this directory too, which later runs find; default: in memory alone")
        ->type_name("DIR")
        ->group("KV");
    command
        .add_option_function<std::string>(
            "--prompt-cache-size",
            [this](const std::string& text) {
                prompt_cache_size = zse::parse_size(text).value();
                if (prompt_cache_size->automatic || prompt_cache_size->bytes == 0) {
                    throw zse::Error(zse::ErrorCode::usage,
                                     zse::text("--prompt-cache-size is a size, such as 4GB, found ", text));
                }
            },
            "bytes of that file, taken when it is made; default: 1GiB")
        ->type_name("SIZE")
        ->group("KV");
}

zse::Bytes KvOptions::prompt_cache_disk() const {
    if (!prompt_cache || (prompt_cache_directory.empty() && !prompt_cache_size)) return 0;
    return prompt_cache_size ? prompt_cache_size->bytes : default_prompt_cache_size;
}

std::string KvOptions::name() const {
    const std::string one = both == "none" ? "f16" : both;
    const std::string keys = k.empty() ? one : k;
    const std::string values = v.empty() ? one : v;
    const std::string recents = keys == values ? keys : zse::text(keys, "/", values);
    return old == "none" || old == recents ? recents : zse::text(recents, "-then-", old);
}

void RunningOptions::declare(CLI::App& command) {
    command
        .add_option_function<std::string>(
            "--huge-pages",
            [this](const std::string& pages) {
                using zse::memory::Backing;
                mapping.best = pages == "explicit" ? Backing::huge
                                                   : (pages == "off" ? Backing::plain : Backing::transparent);
            },
            "pages of 2 MiB: explicit ones that were set aside (vm.nr_hugepages), else transparent ones; "
            "off: "
            "plain pages")
        ->check(CLI::IsMember({"transparent", "explicit", "off"}))
        ->default_str("transparent")
        ->group("Memory");
    command.add_flag("--mlock", mapping.locked, "keep all memory of the model out of swap")->group("Memory");
    command
        .add_option_function<std::string>(
            "--admission",
            [this](const std::string& when) {
                using zse::scheduler::Admission;
                admission = when == "reserve" ? Admission::reserve : Admission::prompt;
            },
            "a request begins once its prompt and one page are free, and gives way if pages run short; or "
            "once its worst case is free")
        ->check(CLI::IsMember({"prompt", "reserve"}))
        ->default_str("prompt");
    command
        .add_option_function<std::string>(
            "--kv-eviction",
            [this](const std::string& policy) {
                eviction = policy == "cost" ? zse::kv::Eviction::cost : zse::kv::Eviction::lru;
            },
            "which pages leave a tier that is full: the least recently used, or those that are used least "
            "often and "
            "computed again fastest")
        ->check(CLI::IsMember({"lru", "cost"}))
        ->default_str("lru");
    command.add_flag("--enforce-eager", enforce_eager,
                     "enqueue every step anew instead of running captured ones");
}

void ModelOptions::declare(CLI::App& command) {
    command.add_option("MODEL,-m,--model", model, "model file (.gguf)");
    declare_settings(command);
}

void ModelOptions::declare_settings(CLI::App& command) {
    // A step of advice can be added at the end of a command: what is said last counts.
    command.option_defaults()->take_last();
    declare_config(command);
    budget.declare(command);
    command.add_option("--weights", weights, "precision of weights")
        ->check(CLI::IsMember({"as-stored", "f32", "f16", "bf16", "int8", "nf4", "q4_0", "q4_1", "q8_0"}))
        ->capture_default_str();
    kv.declare(command);
    running.declare(command);
    command.add_option("--attention", attention, "attention kernel")
        ->check(CLI::IsMember({"flash", "reference"}))
        ->capture_default_str();
    command
        .add_option_function<std::string>(
            "-c,--max-context,--max-model-len",
            [this](const std::string& text) {
                const std::uint64_t tokens = zse::parse_tokens(text).value();
                if (tokens == 0 || tokens > 1u << 30) {
                    throw zse::Error(zse::ErrorCode::usage,
                                     zse::text("--max-context ", text, ": a context has 1 to 2^30 tokens"));
                }
                context = static_cast<std::uint32_t>(tokens);
            },
            "tokens of prompt and answer, such as 4096 or 128K (131072); default: the smaller of the trained "
            "length and what fits")
        ->type_name("TOKENS");
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
    command.option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::Throw);
}

zse::engine::Choice choice_of(const ModelOptions& options) {
    zse::engine::Choice choice;
    choice.weights = options.weights;
    choice.kv = options.kv.name();
    choice.attention = options.attention;
    return choice;
}

zse::Limits limits_of(const ModelOptions& options, const zse::system::Hardware& machine,
                      std::uint32_t output_rows) {
    zse::Limits limits;
    limits.context = options.context;
    limits.batch = options.batch;
    limits.step_tokens = std::max(options.step_tokens, options.batch);
    limits.output_rows = std::clamp(output_rows, options.batch, limits.step_tokens);
    limits.page_tokens = options.page_tokens;
    limits.threads = options.threads != 0 ? options.threads : machine.usable_threads();
    limits.gpu_layers = options.budget.gpu_layers.value_or(0);
    limits.kv_recent = options.kv.recent;
    limits.kv_sinks = options.kv.sinks;
    limits.kv_heavy = options.kv.heavy;
    limits.prompt_cache = options.kv.prompt_cache;
    limits.prompt_cache_disk = options.kv.prompt_cache_disk();
    limits.enforce_eager = options.running.enforce_eager;
    return limits;
}

zse::planning::MachineMemory memory_of(const zse::system::Hardware& machine) {
    zse::planning::MachineMemory memory;
    memory.host_free = machine.usable_memory();
    memory.host_total = std::max(machine.memory.total, memory.host_free);
    if (machine.cgroup.limit) memory.host_total = std::min(memory.host_total, *machine.cgroup.limit);
    if (!machine.gpus.empty()) {
        memory.gpu_free = machine.gpus.front().free;
        memory.gpu_total = machine.gpus.front().total;
    }
    return memory;
}

zse::memory::Plan plan_of(const zse::engine::Choice& choice, const zse::ModelSpec& spec,
                          const zse::Limits& limits) {
    static const std::vector<zse::engine::Built> built = zse_matrix::zse_engines::built();
    for (const zse::engine::Built& candidate : built) {
        if (candidate.is(choice)) return candidate.plan(spec, limits);
    }
    return zse_matrix::zse_engines::find(choice).plan(spec, limits);  // which says what to do
}

zse::planning::Planner planner_of(const zse::ModelSpec& spec, const std::string& attention) {
    return [spec, attention](const zse::planning::Setting& setting) {
        return plan_of({setting.weights, setting.kv, attention}, spec, setting.limits);
    };
}

Chosen consider(const ModelOptions& options, std::uint32_t output_rows, std::uint32_t least_context) {
    Chosen chosen{zse::io::Gguf::open(options.file()),
                  {},
                  choice_of(options),
                  {},
                  {},
                  {},
                  options.running,
                  options.budget.offload,
                  options.budget.disk_directory(),
                  options.kv.prompt_cache_directory,
                  false,
                  {}};
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
    BudgetOptions budget = options.budget;
    zse::planning::BudgetRequest& request = budget.request;
    if (request.gpu && request.gpu->automatic) {
        throw zse::Error(
            zse::ErrorCode::usage,
            "--gpu-mem auto is for zse plan: this build computes on the CPU, so state the size of the arena "
            "that stands in for a GPU, such as --gpu-mem 1GiB");
    }
    // The gpu tier is an arena of host memory here: where the host's size is measured, both draw on it.
    request.unified = request.unified || !request.host || request.host->automatic;
    chosen.budget = budget.on(memory_of(machine), options.kv.prompt_cache_disk());
    zse::planning::Wish wish;
    wish.setting = {chosen.choice.weights, chosen.choice.kv, limits_of(options, machine, output_rows)};
    wish.kv = options.budget.kv;
    wish.kv_caps = options.budget.kv_caps();
    wish.layers = chosen.spec.layers;
    wish.trained_context = chosen.spec.trained_context;
    wish.least_context = least_context;
    budget.place_layers(chosen.budget, wish);
    chosen.gpu_layers_open = wish.gpu_layers_open;
    const auto plan = planner_of(chosen.spec, chosen.choice.attention);
    chosen.limits = zse::planning::settle(plan, wish, chosen.budget).limits;
    return chosen;
}

Chosen choose(const ModelOptions& options, std::uint32_t output_rows, std::uint32_t least_context) {
    if (options.kv.prompt_cache_size && options.kv.prompt_cache_directory.empty()) {
        throw zse::Error(zse::ErrorCode::usage,
                         "--prompt-cache-size is the size of a file; name its directory with --prompt-cache");
    }
    Chosen chosen = consider(options, output_rows, least_context);
    const auto plan = planner_of(chosen.spec, chosen.choice.attention);
    if (!chosen.budget.holds(plan(chosen.setting()))) {
        const auto ask =
            chosen.gpu_layers_open ? zse::planning::filling(plan, chosen.budget, chosen.spec.layers) : plan;
        const auto advice =
            advice_on(ask, chosen.setting(), chosen.budget, chosen.spec, chosen.choice.attention);
        throw Refused(plan(chosen.setting()), chosen.setting(), chosen.budget, advice);
    }
    expect_objective(chosen.offload, plan, chosen.setting(), chosen.budget, chosen.spec.layers);
    return chosen;
}

std::unique_ptr<zse::AnyEngine> open(const Chosen& chosen) {
    zse::engine::Options options;
    options.limits = chosen.limits;
    options.isa = chosen.isa;
    options.mapping = chosen.running.mapping;
    options.admission = chosen.running.admission;
    options.eviction = chosen.running.eviction;
    options.disk_directory = chosen.disk_directory;
    if (plan_of(chosen.choice, chosen.spec, chosen.limits).disk[Kind::kv] != 0) {
        std::error_code refused;  // what is lacking then is said where the file cannot be made
        std::filesystem::create_directories(chosen.disk_directory, refused);
    }
    announce(chosen);
    if (options.mapping.locked)
        options.mapping.locked = can_lock(plan_of(chosen.choice, chosen.spec, chosen.limits));
    if (chosen.limits.prompt_cache_disk != 0) {
        options.prompt_cache_directory = chosen.prompt_cache;
        if (plan_of(chosen.choice, chosen.spec, chosen.limits).disk[Kind::prompt_cache] == 0) {
            fmt::print(stderr,
                       "note: --prompt-cache has no effect: layers that drop tokens or code them anew "
                       "keep no pages\n");
        }
    }
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
    auto ledger = std::make_shared<zse::memory::Ledger>(chosen.budget.caps());
    const auto vocabulary = zse::engine::vocabulary_from_gguf(chosen.file, chosen.spec.vocabulary,
                                                              std::move(ledger), options.mapping);
    const auto open_within = [&](const zse::Limits& limits) {
        options.limits = limits;
        return chosen.engine.open(chosen.file, chosen.spec, vocabulary, options);
    };
    auto engine = chosen.gpu_layers_open ? zse::planning::open_with_fewer_layers(chosen.limits, open_within)
                                         : open_within(chosen.limits);
    if (terminal) fmt::print(stderr, "\r\033[K");
    hint(chosen, engine->limits());
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

nlohmann::json json_of(const zse::kv::TierTraffic& traffic) {
    return {{"spilled_to_host", traffic.spilled_to_host},
            {"spilled_to_disk", traffic.spilled_to_disk},
            {"fetched_from_host", traffic.fetched_from_host},
            {"fetched_from_disk", traffic.fetched_from_disk},
            {"staged_bytes", traffic.staged_bytes}};
}

void print_traffic(std::FILE* out, const zse::kv::TierTraffic& traffic) {
    if (traffic.spilled_to_host + traffic.spilled_to_disk == 0) return;
    fmt::print(out,
               "KV pages: {} spilled to host, {} to disk; {} fetched back from host, {} from disk; {} read "
               "from disk to "
               "be attended to\n",
               traffic.spilled_to_host, traffic.spilled_to_disk, traffic.fetched_from_host,
               traffic.fetched_from_disk, zse::human(traffic.staged_bytes));
}

nlohmann::json held_by(const zse::memory::Ledger& ledger) {
    nlohmann::json tiers = nlohmann::json::object();
    for (const Tier tier : zse::memory::all_tiers) {
        if (ledger.held(tier).total() != 0)
            tiers[std::string(zse::memory::name(tier))] = json_of(ledger.held(tier));
    }
    return tiers;
}

nlohmann::json json_of(const zse::model::RingCounts& streamed) {
    return {{"images", streamed.fetches}, {"rows", streamed.rows},     {"bytes", streamed.bytes},
            {"hits", streamed.hits},      {"misses", streamed.misses}, {"retries", streamed.retries}};
}

std::string dump(const nlohmann::json& value) {
    return value.dump(2, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace zse_cli
