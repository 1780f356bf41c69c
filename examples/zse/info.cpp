// SPDX-License-Identifier: Apache-2.0
// zse info and zse plan: what a model needs, before anything is loaded.
#include "opening.hpp"

#include <fmt/core.h>

#include <filesystem>

namespace zse_cli {
namespace {

std::string formats_of(const zse::ModelSpec& spec) {
    std::vector<std::string> names;
    const auto add = [&](zse::weights::Format format) {
        const std::string name = zse::weights::name(format);
        if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
    };
    for (std::uint32_t run = 0; run < spec.run_count; ++run) {
        const auto& f = spec.runs[run].formats;
        for (const auto format : {f.q, f.k, f.v, f.o, f.gate, f.up, f.down}) add(format);
    }
    add(spec.embedding_format);
    add(spec.output_format);
    std::string joined;
    for (const std::string& name : names) joined += (joined.empty() ? "" : ", ") + name;
    return joined;
}

int info(const ModelOptions& options) {
    const Chosen chosen = choose(options);
    const zse::memory::Plan plan = chosen.engine.plan(chosen.spec, chosen.limits);
    const zse::Bytes weights = plan.host[zse::memory::Kind::weights];
    const double parameters = static_cast<double>(plan.parameters);
    const double bits = 8.0 * static_cast<double>(weights) / parameters;
    const std::uint32_t largest = largest_context(chosen.engine, chosen.spec, chosen.limits, chosen.budget);
    const zse::ModelSpec& spec = chosen.spec;
    if (options.json) {
        nlohmann::json out;
        out["architecture"] = std::string(zse::model::name(spec.architecture));
        out["parameters"] = plan.parameters;
        out["formats"] = formats_of(spec);
        out["file_bytes"] = chosen.file.file_bytes();
        out["weights_bytes"] = weights;
        out["bits_per_weight"] = bits;
        out["ratio_to_16_bit"] = 16.0 / bits;
        out["ratio_to_32_bit"] = 32.0 / bits;
        out["kv_bytes_per_token"] = plan.kv_bytes_per_token;
        out["layers"] = spec.layers;
        out["hidden"] = spec.hidden;
        out["heads"] = spec.heads;
        out["kv_heads"] = spec.kv_heads;
        out["head_dim"] = spec.head_dim;
        out["feed_forward"] = spec.feed_forward;
        out["vocabulary"] = spec.vocabulary;
        out["trained_context"] = spec.trained_context;
        out["largest_context"] = largest;
        out["memory_budget_bytes"] = chosen.budget;
        out["engine"] = chosen.choice.spelled();
        fmt::print("{}\n", dump(out));
        return 0;
    }
    fmt::print("architecture        {}\n", zse::model::name(spec.architecture));
    fmt::print("parameters          {} ({:.1f} million)\n", plan.parameters, parameters / 1e6);
    fmt::print(
        "shape               {} layers, hidden {}, {} heads over {} key heads of {}, feed-forward {}, "
        "vocabulary {}\n",
        spec.layers, spec.hidden, spec.heads, spec.kv_heads, spec.head_dim, spec.feed_forward,
        spec.vocabulary);
    fmt::print("stored as           {}\n", formats_of(spec));
    fmt::print("file                {} bytes, {}\n", chosen.file.file_bytes(),
               zse::human(chosen.file.file_bytes()));
    fmt::print("weights in memory   {} bytes, {}, as {}\n", weights, zse::human(weights),
               chosen.choice.weights);
    fmt::print(
        "bits per weight     {:.3f}, scales included: {:.2f}x smaller than 16 bits, {:.2f}x than 32 bits\n",
        bits, 16.0 / bits, 32.0 / bits);
    fmt::print("KV per token        {} bytes ({})\n", plan.kv_bytes_per_token, chosen.choice.kv);
    fmt::print("trained context     {} tokens\n", spec.trained_context);
    fmt::print("largest that fits   {} tokens in {} free\n", largest, zse::human(chosen.budget));
    return 0;
}

int plan(const ModelOptions& options) {
    const Chosen chosen = choose(options);
    const zse::memory::Plan plan = chosen.engine.plan(chosen.spec, chosen.limits);
    if (options.json) {
        nlohmann::json out;
        out["tiers"] = json_of(plan);
        out["total"] = plan.total();
        out["context"] = chosen.limits.context;
        out["batch"] = chosen.limits.batch;
        out["step_tokens"] = chosen.limits.step_tokens;
        out["threads"] = chosen.limits.threads;
        out["kv_pages"] = plan.pools[0].pages;
        out["kv_page_bytes"] = plan.pools[0].page_bytes;
        out["kv_bytes_per_token"] = plan.kv_bytes_per_token;
        out["budget"] = chosen.budget;
        out["fits"] = plan.total() <= chosen.budget;
        out["engine"] = chosen.choice.spelled();
        fmt::print("{}\n", dump(out));
        return 0;
    }
    fmt::print("{}: context {}, batch {}, {} rows a step, {} threads\n", chosen.choice.spelled(),
               chosen.limits.context, chosen.limits.batch, chosen.limits.step_tokens, chosen.limits.threads);
    for (const auto tier : {zse::memory::Tier::gpu, zse::memory::Tier::host, zse::memory::Tier::disk}) {
        const zse::Bytes total = plan[tier].total();
        if (total == 0) continue;
        fmt::print("{}\n", zse::memory::name(tier));
        for (std::size_t i = 0; i < zse::memory::kind_count; ++i) {
            fmt::print("  {:<12} {:>15} bytes {:>5.1f} %\n",
                       zse::memory::name(static_cast<zse::memory::Kind>(i)), plan[tier].kinds[i],
                       100.0 * static_cast<double>(plan[tier].kinds[i]) / static_cast<double>(total));
        }
    }
    fmt::print("total          {:>15} bytes, {}: {} {} free\n", plan.total(), zse::human(plan.total()),
               plan.total() <= chosen.budget ? "fits in" : "does not fit in", zse::human(chosen.budget));
    return 0;
}

void declare(CLI::App& app, Action& action, const char* name, const char* what,
             int (*function)(const ModelOptions&)) {
    auto options = std::make_shared<ModelOptions>();
    CLI::App* command = app.add_subcommand(name, what);
    options->declare(*command);
    command->callback(
        [options, function, &action] { action = [options, function] { return function(*options); }; });
}

}  // namespace

void declare_info(CLI::App& app, Action& action) {
    declare(app, action, "info", "say what a model is and what it needs", info);
}

void declare_plan(CLI::App& app, Action& action) {
    declare(app, action, "plan", "say what an engine would hold, to the byte", plan);
}

}  // namespace zse_cli
