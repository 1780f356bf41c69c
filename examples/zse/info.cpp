// SPDX-License-Identifier: Apache-2.0
// zse info: what a model is and what it needs, before anything is loaded.
#include "opening.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <vector>

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
    const Chosen chosen = consider(options);
    const zse::memory::Plan plan = chosen.engine.plan(chosen.spec, chosen.limits);
    const zse::Bytes weights = plan.of(zse::memory::Kind::weights);
    const double parameters = static_cast<double>(plan.parameters);
    const double bits = 8.0 * static_cast<double>(weights) / parameters;
    const zse::ModelSpec& spec = chosen.spec;
    const std::uint32_t largest = zse::planning::largest_context(
        planner_of(spec, chosen.choice), chosen.setting(), chosen.budget, spec.trained_context);
    const zse::Bytes room = chosen.budget.unified
                                ? chosen.budget.host.cap
                                : zse::saturating_add(chosen.budget.gpu.cap, chosen.budget.host.cap);
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
        out["memory_budget_bytes"] = room;
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
    fmt::print("largest that fits   {} tokens in {}\n", largest, zse::human(room));
    return 0;
}

}  // namespace

void declare_info(CLI::App& app, Action& action) {
    auto options = std::make_shared<ModelOptions>();
    CLI::App* command = app.add_subcommand("info", "say what a model is and what it needs");
    options->declare(*command);
    command->callback([options, &action] { action = [options] { return info(*options); }; });
}

}  // namespace zse_cli
