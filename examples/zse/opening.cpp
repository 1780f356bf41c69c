// SPDX-License-Identifier: Apache-2.0
// Choosing and opening an engine, and reports about its memory.
#include "opening.hpp"

#include "offload.hpp"
#include "refusal.hpp"

#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>

namespace zse_cli {

using zse::memory::Kind;
using zse::memory::Tier;

zse::engine::Choice choice_of(const ModelOptions& options, const Device& device) {
    zse::engine::Choice choice;
    choice.weights = options.weights;
    choice.kv = options.kv.name();
    choice.attention = options.attention;
    choice.exec = device.exec;
    return choice;
}

Device device_of(const ModelOptions& options) {
    Device device;
    const std::string& asked = options.device;
    const std::string gpu = options.numerics == "invariant" ? "cuda-invariant" : "cuda";
    if (asked == "auto") {
        const auto built = zse_matrix::zse_engines::built();
        const bool kernels =
            std::ranges::any_of(built, [&](const auto& engine) { return engine.exec == gpu; });
        if (kernels && !options.budget.request.gpu && !zse::system::probe().gpus.empty()) device.exec = gpu;
        return device;
    }
    if (asked == "cpu") return device;
    const std::string_view number =
        std::string_view(asked).substr(0, 5) == "cuda:" ? std::string_view(asked).substr(5) : "";
    const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), device.gpu);
    const bool numbered = !number.empty() && error == std::errc() && end == number.data() + number.size();
    if (asked != "cuda" && !numbered) {
        throw zse::Error(zse::ErrorCode::usage,
                         zse::text("--device is cpu, cuda, cuda:N or auto; found '", asked, "'"));
    }
    device.exec = gpu;
    return device;
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

zse::planning::MachineMemory memory_of(const zse::system::Hardware& machine, int gpu) {
    zse::planning::MachineMemory memory;
    memory.host_free = machine.usable_memory();
    memory.host_total = std::max(machine.memory.total, memory.host_free);
    if (machine.cgroup.limit) memory.host_total = std::min(memory.host_total, *machine.cgroup.limit);
    if (const auto index = static_cast<std::size_t>(gpu); index < machine.gpus.size()) {
        memory.gpu_free = machine.gpus[index].free;
        memory.gpu_total = machine.gpus[index].total;
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

zse::planning::Planner planner_of(const zse::ModelSpec& spec, const zse::engine::Choice& choice) {
    return [spec, choice](const zse::planning::Setting& setting) {
        return plan_of({setting.weights, setting.kv, choice.attention, choice.exec}, spec, setting.limits);
    };
}

/// Bytes of a GPU that its driver takes once an engine is open, as measured there before or as assumed.
static zse::Bytes driver_takes(const std::string& gpu, std::uint32_t batch, bool eager) {
    auto bytes = zse::system::DriverBytes::assumed();
    if (const auto file = zse::system::DriverRecords::usual_place()) {
        bytes = zse::system::DriverRecords(*file).find(gpu).value_or(bytes);
    }
    return bytes.context + (eager ? 0 : bytes.per_graph * zse::exec::Buckets::count(batch));
}

/// Remembers what the driver of an open engine took beyond what others had before.
static void remember_driver(const Chosen& chosen, const zse::AnyEngine& engine) {
    auto bytes = engine.driver_bytes();
    const auto file = zse::system::DriverRecords::usual_place();
    if (!bytes || !file || chosen.gpu_name.empty()) return;
    const zse::Bytes others = chosen.gpu_total - std::min(chosen.gpu_total, chosen.gpu_free);
    bytes->context -= std::min(bytes->context, others);
    zse::system::DriverRecords(*file).store(chosen.gpu_name, *bytes);
}

Chosen consider(const ModelOptions& options, std::uint32_t output_rows, std::uint32_t least_context) {
    Chosen chosen{zse::io::Gguf::open(options.file()),
                  {},
                  {},
                  {},
                  {},
                  {},
                  options.running,
                  options.budget.offload,
                  options.budget.disk_directory(),
                  options.kv.prompt_cache_directory,
                  false,
                  {},
                  0,
                  {},
                  0,
                  0};
    const Device device = device_of(options);
    chosen.choice = choice_of(options, device);
    chosen.gpu = device.gpu;
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
    const bool on_gpu = chosen.choice.exec != "cpu";
    const zse::system::Hardware machine = on_gpu ? zse::system::probe() : zse::system::probe_host();
    BudgetOptions budget = options.budget;
    zse::planning::BudgetRequest& request = budget.request;
    if (on_gpu && static_cast<std::size_t>(chosen.gpu) >= machine.gpus.size()) {
        const std::string found =
            machine.gpus.empty() ? machine.gpu_note : zse::text("there are ", machine.gpus.size(), " GPUs");
        throw zse::Error(zse::ErrorCode::unsupported,
                         zse::text("--device ", options.device, " cannot be used: ", found,
                                   "; leave it out, or use --device cpu"));
    }
    if (on_gpu && !request.gpu) request.gpu = zse::Size{true, 0};
    if (!on_gpu && request.gpu && request.gpu->automatic) {
        throw zse::Error(zse::ErrorCode::usage,
                         "--gpu-mem auto is for zse plan and for --device cuda: the CPU computes here, so "
                         "state the size of the "
                         "arena that stands in for a GPU, such as --gpu-mem 1GiB");
    }
    // The gpu tier is an arena of host memory here: where the host's size is measured, both draw on it.
    request.unified = request.unified || (!on_gpu && (!request.host || request.host->automatic));
    zse::planning::MachineMemory memory = memory_of(machine, chosen.gpu);
    if (on_gpu && memory.gpu_free) {
        chosen.gpu_name = machine.gpus[static_cast<std::size_t>(chosen.gpu)].name;
        const zse::Bytes driver = driver_takes(chosen.gpu_name, options.batch, options.running.enforce_eager);
        memory.gpu_free = *memory.gpu_free - std::min(driver, *memory.gpu_free);
        chosen.gpu_free = memory.gpu_free.value() + driver;
        chosen.gpu_total = memory.gpu_total.value_or(chosen.gpu_free);
    }
    chosen.budget = budget.on(memory, options.kv.prompt_cache_disk());
    zse::planning::Wish wish;
    wish.setting = {chosen.choice.weights, chosen.choice.kv, limits_of(options, machine, output_rows)};
    wish.kv = options.budget.kv;
    wish.kv_caps = options.budget.kv_caps();
    wish.layers = chosen.spec.layers;
    wish.trained_context = chosen.spec.trained_context;
    wish.least_context = least_context;
    budget.place_layers(chosen.budget, wish);
    chosen.gpu_layers_open = wish.gpu_layers_open;
    const auto plan = planner_of(chosen.spec, chosen.choice);
    chosen.limits = zse::planning::settle(plan, wish, chosen.budget).limits;
    return chosen;
}

Chosen choose(const ModelOptions& options, std::uint32_t output_rows, std::uint32_t least_context) {
    if (options.kv.prompt_cache_size && options.kv.prompt_cache_directory.empty()) {
        throw zse::Error(zse::ErrorCode::usage,
                         "--prompt-cache-size is the size of a file; name its directory with --prompt-cache");
    }
    Chosen chosen = consider(options, output_rows, least_context);
    const auto plan = planner_of(chosen.spec, chosen.choice);
    if (!chosen.budget.holds(plan(chosen.setting()))) {
        const auto ask =
            chosen.gpu_layers_open ? zse::planning::filling(plan, chosen.budget, chosen.spec.layers) : plan;
        const auto advice = advice_on(ask, chosen.setting(), chosen.budget, chosen.spec, chosen.choice);
        throw Refused(plan(chosen.setting()), chosen.setting(), chosen.budget, advice);
    }
    expect_objective(chosen.offload, plan, chosen.setting(), chosen.budget, chosen.spec.layers);
    return chosen;
}

std::unique_ptr<zse::AnyEngine> open(const Chosen& chosen) {
    zse::engine::Options options;
    options.limits = chosen.limits;
    options.isa = chosen.isa;
    options.gpu = chosen.gpu;
    options.mapping = chosen.running.mapping;
    options.admission = chosen.running.admission;
    options.eviction = chosen.running.eviction;
    options.disk_directory = chosen.disk_directory;
    const zse::memory::Plan plan = plan_of(chosen.choice, chosen.spec, chosen.limits);
    if (plan.disk[Kind::kv] != 0) {
        std::error_code refused;  // what is lacking then is said where the file cannot be made
        std::filesystem::create_directories(chosen.disk_directory, refused);
    }
    announce(chosen);
    if (options.mapping.locked) options.mapping.locked = can_lock(plan);
    if (chosen.limits.prompt_cache_disk != 0) {
        options.prompt_cache_directory = chosen.prompt_cache;
        if (plan.disk[Kind::prompt_cache] == 0) {
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
    remember_driver(chosen, *engine);
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
    return {{"policy", std::string(zse::kv::name(traffic.policy))},
            {"spilled_to_host", traffic.spilled_to_host},
            {"spilled_to_disk", traffic.spilled_to_disk},
            {"fetched_from_host", traffic.fetched_from_host},
            {"fetched_from_disk", traffic.fetched_from_disk},
            {"staged_bytes", traffic.staged_bytes}};
}

void print_traffic(std::FILE* out, const zse::kv::TierTraffic& traffic) {
    if (traffic.spilled_to_host + traffic.spilled_to_disk == 0) return;
    fmt::print(out,
               "KV pages ({}): {} spilled to host, {} to disk; {} fetched back from host, {} from disk; {} "
               "read from "
               "disk to be attended to\n",
               zse::kv::name(traffic.policy), traffic.spilled_to_host, traffic.spilled_to_disk,
               traffic.fetched_from_host, traffic.fetched_from_disk, zse::human(traffic.staged_bytes));
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
