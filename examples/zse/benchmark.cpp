// SPDX-License-Identifier: Apache-2.0
// zse benchmark: tokens per second of prompts and of generation, medians of several repetitions.
#include "benchmark.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <set>

namespace zse_cli {

std::vector<std::int32_t> tokens(std::size_t count, std::uint32_t vocabulary) {
    std::vector<std::int32_t> made(count);
    std::uint32_t state = 1;
    for (auto& token : made) {
        state = state * 1664525u + 1013904223u;
        token = static_cast<std::int32_t>((state >> 8) % vocabulary);
    }
    return made;
}

ModelOptions measured(const BenchmarkOptions& options) {
    ModelOptions model = options.model;
    model.kv.prompt_cache = false;
    return model;
}

namespace {

struct Rates {
    std::vector<double> values;

    [[nodiscard]] double median() const {
        if (values.empty()) return 0;
        std::vector<double> sorted = values;
        std::sort(sorted.begin(), sorted.end());
        const std::size_t half = sorted.size() / 2;
        return sorted.size() % 2 == 1 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
    }
    [[nodiscard]] std::vector<double> spread() const {
        if (values.empty()) return {0, 0};
        return {*std::min_element(values.begin(), values.end()),
                *std::max_element(values.begin(), values.end())};
    }
};

double timed_step(zse::AnyEngine& engine, Watch& watch) {
    const auto start = std::chrono::steady_clock::now();
    engine.step();
    const double taken = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    watch.between_steps();
    return taken;
}

/// Tokens a second of a prompt, after `depth` tokens. A step that spans the border counts by its share of rows.
double prompt_rate(zse::AnyEngine& engine, Watch& watch, std::uint32_t prompt, std::uint32_t depth) {
    const std::uint64_t before = engine.counters().rows;
    zse::AnyEngine::Request request;
    request.tokens = tokens(depth + prompt, engine.spec().vocabulary);
    request.max_tokens = 0;
    engine.submit(std::move(request));
    double seconds = 0;
    while (!engine.idle()) {
        const std::uint64_t from = engine.counters().rows - before;
        const double taken = timed_step(engine, watch);
        const std::uint64_t to = engine.counters().rows - before;
        if (to <= depth || to == from) continue;
        const std::uint64_t counted = to - std::max<std::uint64_t>(from, depth);
        seconds += taken * static_cast<double>(counted) / static_cast<double>(to - from);
    }
    return prompt / seconds;
}

/// Tokens a second of all sequences together, over `steps` steps in which each of them makes a token; the first
/// token of each comes with its prompt.
double generation_rate(zse::AnyEngine& engine, Watch& watch, std::uint32_t steps, std::uint32_t depth,
                       std::uint32_t sequences) {
    std::vector<zse::AnyEngine::RequestId> ids;
    for (std::uint32_t i = 0; i < sequences; ++i) {
        zse::AnyEngine::Request request;
        request.tokens = tokens(std::max(depth, 1u), engine.spec().vocabulary);
        request.ignore_end = true;
        ids.push_back(engine.submit(std::move(request)));
    }
    std::set<zse::AnyEngine::RequestId> begun;
    while (begun.size() < sequences) {
        for (const auto& event : engine.step()) begun.insert(event.id);
    }
    const std::uint64_t before = engine.counters().rows;
    double seconds = 0;
    for (std::uint32_t step = 0; step < steps; ++step) seconds += timed_step(engine, watch);
    const std::uint64_t made = engine.counters().rows - before;
    for (const auto id : ids) engine.cancel(id);
    return static_cast<double>(made) / seconds;
}

/// Tokens that one sequence makes at most while the prompts of the others are still computed.
std::uint32_t head_start(const BenchmarkOptions& options) {
    const std::uint32_t sequences = options.sequences;
    const std::uint32_t rows = std::max(options.model.step_tokens, sequences + 1) - sequences;
    return sequences - 1 + (sequences - 1) * options.depth / rows;
}

/// Speed of generation with fewer and fewer layers in memory, the others being streamed from disk.
int offload_sweep(const BenchmarkOptions& options) {
    // Speeds that tables of other engines give for layers that are left on the card.
    struct Share {
        std::uint32_t percent;
        double stated;
    };
    constexpr std::array<Share, 5> shares{{{100, 1.0}, {75, 0.6}, {50, 0.4}, {25, 0.2}, {0, 0.1}}};

    ModelOptions model = measured(options);
    if (model.context == 0) model.context = options.depth + options.generation + 2;
    if (!model.budget.request.disk) model.budget.request.disk = zse::Size{true, 0};
    Chosen chosen = consider(model);
    const std::uint32_t layers = chosen.spec.layers;
    const auto plan = planner_of(chosen.spec, chosen.choice);
    nlohmann::json rows = nlohmann::json::array();
    if (!options.model.json) {
        fmt::print("{:<10} {:>6} {:>24} {:>24} {:>10} {:>8} {:>7}\n", "in memory", "layers",
                   "weights in memory", "streamed a step", "tokens/s", "measured", "stated");
    }
    double whole = 0;
    for (const auto& [percent, stated] : shares) {
        chosen.limits.gpu_layers = 0;
        chosen.limits.disk_layers = layers - layers * percent / 100;
        const zse::memory::Plan planned = plan(chosen.setting());
        nlohmann::json row{{"percent", percent},
                           {"layers", layers - chosen.limits.disk_layers},
                           {"weights_in_memory", zse::planning::host_weights(planned)},
                           {"streamed_bytes", zse::planning::streamed_bytes(planned)},
                           {"stated", stated},
                           {"fits", chosen.budget.holds(planned)}};
        Rates rates;
        if (chosen.budget.holds(planned)) {
            const auto engine = open(chosen);
            Watch watch(*engine, {});
            for (std::uint32_t repetition = 0; repetition <= options.repetitions; ++repetition) {
                const double rate = generation_rate(*engine, watch, options.generation, options.depth, 1);
                if (repetition != 0) rates.values.push_back(rate);
            }
            row["streamed"] = json_of(engine->counters().streamed);
            if (whole == 0) whole = rates.median();
        }
        const double share = whole == 0 ? 0 : rates.median() / whole;
        row["tokens_per_second"] = rates.median();
        row["share"] = share;
        rows.push_back(row);
        if (options.model.json) continue;
        fmt::print("{:<10} {:>6} {:>24} {:>24} {:>10.1f} {:>8.2f} {:>7.1f}{}\n", fmt::format("{} %", percent),
                   layers - chosen.limits.disk_layers, zse::human(zse::planning::host_weights(planned)),
                   zse::human(zse::planning::streamed_bytes(planned)), rates.median(), share, stated,
                   rates.values.empty() ? "  does not fit" : "");
    }
    if (options.model.json) fmt::print("{}\n", dump({{"offload_sweep", rows}}));
    return 0;
}

int benchmark(const BenchmarkOptions& options) {
    if (options.offload_sweep) return offload_sweep(options);
    if (options.metric == "memory") return benchmark_memory(options);
    ModelOptions model = measured(options);
    model.batch = std::max(model.batch, options.sequences);
    if (model.context == 0) {
        const std::uint32_t generated = options.generation + head_start(options) + 1;
        model.context = options.depth + std::max(options.prompt, generated) + 1;
    }
    const Chosen chosen = choose(model);
    const auto engine = open(chosen);
    Watch watch(*engine, options.profile);
    Rates prompt;
    Rates generation;
    for (std::uint32_t repetition = 0; repetition <= options.repetitions; ++repetition) {
        const bool warms_up = repetition == 0;  // which needs no depth
        const std::uint32_t depth = warms_up ? 0 : options.depth;
        if (options.prompt > 0) {
            const double rate = prompt_rate(*engine, watch, options.prompt, depth);
            if (!warms_up) prompt.values.push_back(rate);
        }
        if (options.generation > 0) {
            const double rate = generation_rate(*engine, watch, options.generation, depth, options.sequences);
            if (!warms_up) generation.values.push_back(rate);
        }
    }
    watch.finish();
    if (options.model.json) {
        const nlohmann::json out{{"prompt_tokens_per_second", prompt.median()},
                                 {"prompt_tokens_per_second_spread", prompt.spread()},
                                 {"generation_tokens_per_second", generation.median()},
                                 {"generation_tokens_per_second_spread", generation.spread()},
                                 {"prompt", options.prompt},
                                 {"generation", options.generation},
                                 {"depth", options.depth},
                                 {"sequences", options.sequences},
                                 {"repetitions", options.repetitions},
                                 {"streamed", json_of(engine->counters().streamed)},
                                 {"threads", engine->limits().threads},
                                 {"engine", engine->description()}};
        fmt::print("{}\n", dump(out));
        return 0;
    }
    fmt::print("{}, {} threads, depth {}, {} sequences, median of {} (least to most)\n",
               engine->description(), engine->limits().threads, options.depth, options.sequences,
               options.repetitions);
    const auto line = [](const char* what, std::uint32_t count, const Rates& rates) {
        fmt::print("{:<10} {:>6} tokens {:>10.1f} tokens/s ({:.1f} to {:.1f})\n", what, count, rates.median(),
                   rates.spread()[0], rates.spread()[1]);
    };
    line("prompt", options.prompt, prompt);
    line("generation", options.generation, generation);
    return 0;
}

}  // namespace

void declare_benchmark(CLI::App& app, Action& action) {
    auto options = std::make_shared<BenchmarkOptions>();
    CLI::App* command = app.add_subcommand("benchmark", "measure tokens per second, or memory");
    options->model.declare(*command);
    const CLI::Range count(0u, 1u << 24);
    command->add_option("--prompt", options->prompt, "tokens of the prompt")
        ->check(count)
        ->capture_default_str();
    command->add_option("--generation", options->generation, "tokens to generate")
        ->check(count)
        ->capture_default_str();
    command->add_option("--depth", options->depth, "tokens already in the cache")
        ->check(count)
        ->capture_default_str();
    command->add_option("--sequences", options->sequences, "that generate at once; the speed is that of all")
        ->check(CLI::Range(1u, 4096u))
        ->capture_default_str();
    command->add_option("--repetitions", options->repetitions, "after one that warms up")
        ->check(CLI::Range(1u, 1000u))
        ->capture_default_str();
    command
        ->add_option("--metric", options->metric,
                     "speed, or memory: fills the context and says what was held")
        ->check(CLI::IsMember({"speed", "memory"}))
        ->capture_default_str();
    command->add_flag(
        "--offload-sweep", options->offload_sweep,
        "the speed of generation with 100, 75, 50, 25 and 0 % of the layers in memory, the others "
        "streamed from disk");
    const auto list = [command](const char* name, std::vector<std::uint32_t>& to, const char* what) {
        command
            ->add_option_function<std::vector<std::string>>(
                name,
                [&to, name](const std::vector<std::string>& values) {
                    for (const std::string& value : values) {
                        const std::uint64_t number = zse::parse_tokens(value).value();
                        if (number == 0 || number > 1u << 30) {
                            throw zse::Error(zse::ErrorCode::usage,
                                             zse::text(name, " ", value, " is no count from 1 to 2^30"));
                        }
                        to.push_back(static_cast<std::uint32_t>(number));
                    }
                },
                what)
            ->delimiter(',')
            ->allow_extra_args(false);
    };
    list("--contexts", options->contexts, "with --metric memory: a run for each of these, such as 512,4K");
    list("--batches", options->batches, "with --metric memory: a run for each of these, such as 1,4");
    options->profile.declare(*command);
    command->callback([options, &action] { action = [options] { return benchmark(*options); }; });
}

}  // namespace zse_cli
