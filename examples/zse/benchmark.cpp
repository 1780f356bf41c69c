// SPDX-License-Identifier: Apache-2.0
// zse benchmark: tokens per second of prompts and of generation, medians of several repetitions.
#include "opening.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <chrono>

namespace zse_cli {
namespace {

struct BenchmarkOptions {
    ModelOptions model;
    std::uint32_t prompt = 512;
    std::uint32_t generation = 128;
    std::uint32_t depth = 0;
    std::uint32_t repetitions = 5;
};

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

/// Tokens that any vocabulary has, different enough to be no special case.
std::vector<std::int32_t> tokens(std::size_t count, std::uint32_t vocabulary) {
    std::vector<std::int32_t> made(count);
    std::uint32_t state = 1;
    for (auto& token : made) {
        state = state * 1664525u + 1013904223u;
        token = static_cast<std::int32_t>((state >> 8) % vocabulary);
    }
    return made;
}

/// Steps until the request ends; returns seconds of the rows after the first `skipped`, a step that spans the
/// border counting by its share of rows.
double seconds_after(zse::AnyEngine& engine, zse::AnyEngine::Request request, std::uint64_t skipped) {
    const std::uint64_t before = engine.counters().rows;
    engine.submit(std::move(request));
    double seconds = 0;
    while (!engine.idle()) {
        const std::uint64_t from = engine.counters().rows - before;
        const auto start = std::chrono::steady_clock::now();
        engine.step();
        const double taken = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
        const std::uint64_t to = engine.counters().rows - before;
        if (to <= skipped || to == from) continue;
        seconds += taken * static_cast<double>(to - std::max(from, skipped)) / static_cast<double>(to - from);
    }
    return seconds;
}

int benchmark(const BenchmarkOptions& options) {
    ModelOptions model = options.model;
    if (model.context == 0)
        model.context = options.depth + std::max(options.prompt, options.generation + 1) + 1;
    const Chosen chosen = choose(model);
    const auto engine = open(chosen);
    const std::uint32_t vocabulary = engine->spec().vocabulary;
    Rates prompt;
    Rates generation;
    for (std::uint32_t repetition = 0; repetition <= options.repetitions;
         ++repetition) {  // the first warms up
        if (options.prompt > 0) {
            zse::AnyEngine::Request request;
            request.tokens = tokens(options.depth + options.prompt, vocabulary);
            request.max_tokens = 0;
            const double seconds = seconds_after(*engine, std::move(request), options.depth);
            if (repetition > 0) prompt.values.push_back(options.prompt / seconds);
        }
        if (options.generation > 0) {
            zse::AnyEngine::Request request;
            request.tokens = tokens(std::max(options.depth, 1u), vocabulary);
            request.max_tokens = options.generation + 1;  // the first comes with the prompt
            request.ignore_end = true;
            const std::size_t skipped = request.tokens.size();
            const double seconds = seconds_after(*engine, std::move(request), skipped);
            if (repetition > 0) generation.values.push_back(options.generation / seconds);
        }
    }
    if (options.model.json) {
        const nlohmann::json out{{"prompt_tokens_per_second", prompt.median()},
                                 {"prompt_tokens_per_second_spread", prompt.spread()},
                                 {"generation_tokens_per_second", generation.median()},
                                 {"generation_tokens_per_second_spread", generation.spread()},
                                 {"prompt", options.prompt},
                                 {"generation", options.generation},
                                 {"depth", options.depth},
                                 {"repetitions", options.repetitions},
                                 {"threads", engine->limits().threads},
                                 {"engine", engine->description()}};
        fmt::print("{}\n", dump(out));
        return 0;
    }
    fmt::print("{}, {} threads, depth {}, median of {} (least to most)\n", engine->description(),
               engine->limits().threads, options.depth, options.repetitions);
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
    CLI::App* command = app.add_subcommand("benchmark", "measure tokens per second");
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
    command->add_option("--repetitions", options->repetitions, "after one that warms up")
        ->check(CLI::Range(1u, 1000u))
        ->capture_default_str();
    command->callback([options, &action] { action = [options] { return benchmark(*options); }; });
}

}  // namespace zse_cli
