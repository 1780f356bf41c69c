// SPDX-License-Identifier: Apache-2.0
// zse plan: what engines would hold, to the byte, for files, public models by name, or shapes from a few numbers.
#include "offload.hpp"
#include "plan_report.hpp"

#include <fmt/core.h>

#include <zse/model/names.hpp>

namespace zse_cli {
namespace {

struct PlanOptions {
    ModelOptions model;
    std::vector<std::string> models, more;
    std::string parameters;
    zse::planning::Rough rough;
    std::uint32_t bits = 0;
    zse::planning::Adapters adapters{0, 16};
    std::string solve;
    std::string sweep;
    bool list = false;
};

/// "4K..128K": from one to the other by doublings; "4K,8K,32K": these.
std::vector<std::uint32_t> contexts_of(const std::string& sweep) {
    std::vector<std::uint32_t> contexts;
    const auto tokens = [](std::string_view text) {
        const std::uint64_t count = zse::parse_tokens(text).value();
        if (count == 0 || count > 1u << 30) {
            throw zse::Error(zse::ErrorCode::usage,
                             "a context of the sweep has 1 to 2^30 tokens; write --sweep 4K..128K");
        }
        return static_cast<std::uint32_t>(count);
    };
    if (const auto dots = sweep.find(".."); dots != std::string::npos) {
        const std::uint32_t first = tokens(std::string_view(sweep).substr(0, dots));
        const std::uint32_t last = tokens(std::string_view(sweep).substr(dots + 2));
        if (first > last)
            throw zse::Error(zse::ErrorCode::usage,
                             "the sweep ends before it begins; write --sweep 4K..128K");
        for (std::uint64_t context = first; context < last; context *= 2) {
            contexts.push_back(static_cast<std::uint32_t>(context));
        }
        contexts.push_back(last);
        return contexts;
    }
    for (std::size_t at = 0; at <= sweep.size();) {
        const std::size_t comma = std::min(sweep.find(',', at), sweep.size());
        contexts.push_back(tokens(std::string_view(sweep).substr(at, comma - at)));
        at = comma + 1;
    }
    return contexts;
}

std::vector<Subject> subjects_of(const PlanOptions& options) {
    std::vector<Subject> subjects;
    for (const auto* names : {&options.models, &options.more}) {
        for (const std::string& name : *names) subjects.push_back(subject_called(name));
    }
    zse::planning::Rough rough = options.rough;
    if (!options.parameters.empty()) rough.parameters = zse::parse_count(options.parameters).value();
    if (!rough.empty()) {
        zse::planning::Completed completed = zse::planning::complete(rough);
        subjects.push_back({options.parameters.empty() ? "shape" : options.parameters, completed.spec, 0,
                            rough.parameters == 0 ? completed.spec.parameters() : rough.parameters,
                            std::move(completed.assumed)});
    }
    if (subjects.empty()) {
        throw zse::Error(
            zse::ErrorCode::usage,
            "nothing to plan; give a file, a model's name (--models lists them), or --params 7B");
    }
    return subjects;
}

/// Settles what is left open. Where not even one token fits, the plan is of a context that is of some use.
zse::planning::Setting settled(const Planned& planned, const PlanOptions& options, zse::planning::Wish wish) {
    zse::planning::Setting setting = zse::planning::settle(planned.planner, wish, planned.budget);
    if (options.model.context != 0 || planned.budget.holds(planned.planner(setting))) return setting;
    wish.setting.limits.context = std::min(wish.trained_context, 4096u);
    return zse::planning::settle(planned.planner, wish, planned.budget);
}

Planned planned_of(const PlanOptions& options) {
    Planned planned;
    planned.subjects = subjects_of(options);
    planned.adapters = options.adapters;
    ModelOptions model = options.model;
    if (options.bits != 0) {
        if (model.weights != "as-stored") {
            throw zse::Error(zse::ErrorCode::usage,
                             zse::text("--bits ", options.bits, " and --weights ", model.weights,
                                       " both choose the precision; give one of them"));
        }
        model.weights =
            options.bits == 4 ? "nf4" : (options.bits == 8 ? "int8" : (options.bits == 16 ? "f16" : "f32"));
    }
    const Device device = device_of(model);
    const auto choice = choice_of(model, device);
    planned.choice = choice;
    if (!options.sweep.empty()) planned.contexts = contexts_of(options.sweep);

    const auto& request = model.budget.request;
    const bool on_gpu = choice.exec != "cpu";
    if (on_gpu && !request.gpu) model.budget.request.gpu = zse::Size{true, 0};
    const bool looks_for_gpu = request.gpu && request.gpu->automatic;
    const auto machine = looks_for_gpu ? zse::system::probe() : zse::system::probe_host();
    planned.budget = model.budget.on(memory_of(machine, device.gpu), model.kv.prompt_cache_disk());
    zse::planning::Wish wish;
    wish.setting = {choice.weights, choice.kv, limits_of(model, machine, 0)};
    wish.kv = model.budget.kv;
    wish.kv_caps = model.budget.kv_caps();
    wish.layers = planned.layers();
    wish.trained_context = planned.trained_context();
    model.budget.place_layers(planned.budget, wish);
    const bool open_context = model.context == 0 && planned.contexts.empty();
    planned.planner = planner_of(planned.subjects, planned.choice, planned.adapters, open_context);
    planned.setting = settled(planned, options, wish);
    planned.questions = wish.gpu_layers_open
                            ? zse::planning::filling(planned.planner, planned.budget, wish.layers)
                            : planned.planner;
    planned.plan = planned.planner(planned.setting);
    if (planned.fits()) {
        expect_objective(model.budget.offload, planned.planner, planned.setting, planned.budget,
                         planned.layers());
    }
    return planned;
}

/// Prints the one answer that was asked for: a number or a name. Status 1 where nothing fits.
int solve(const std::string& what, const Planned& planned, bool json) {
    const Largest most = largest(planned);
    nlohmann::json answer;
    if (what == "context") answer = most.context;
    if (what == "batch") answer = most.batch;
    if (what == "layers" && most.gpu_layers) answer = *most.gpu_layers;
    if (what == "weights" && !most.weights.empty()) answer = most.weights;
    const bool found = !answer.is_null() && answer != 0u;
    if (json) {
        fmt::print("{}\n", dump({{what, answer}, {"fits", found || what == "layers"}}));
    } else if (answer.is_string()) {
        fmt::print("{}\n", answer.get<std::string>());
    } else if (!answer.is_null()) {
        fmt::print("{}\n", answer.get<std::uint32_t>());
    } else if (what == "layers" && planned.budget.gpu.cap == 0) {
        throw zse::Error(zse::ErrorCode::usage,
                         "--solve layers needs a gpu tier; state its size with --gpu-mem");
    } else {
        fmt::print(stderr, "zse: no {} fits\n", what == "layers" ? "number of layers" : "precision");
    }
    return found || (what == "layers" && most.gpu_layers) ? 0 : 1;
}

int list_models(bool json) {
    nlohmann::json out = nlohmann::json::array();
    for (const auto& model : zse::models::all) {
        const zse::ModelSpec& spec = *model.spec;
        out.push_back({{"name", std::string(model.name)},
                       {"parameters", spec.parameters()},
                       {"layers", spec.layers},
                       {"hidden", spec.hidden},
                       {"kv_heads", spec.kv_heads},
                       {"head_dim", spec.head_dim},
                       {"trained_context", spec.trained_context}});
        if (!json) {
            fmt::print("{:<17} {:>7.2f} billion parameters, {:>3} layers, {:>6} tokens\n", model.name,
                       static_cast<double>(spec.parameters()) / 1e9, spec.layers, spec.trained_context);
        }
    }
    if (json) fmt::print("{}\n", dump(out));
    return 0;
}

int plan(const PlanOptions& options) {
    if (options.list) return list_models(options.model.json);
    const Planned planned = planned_of(options);
    if (!options.solve.empty()) return solve(options.solve, planned, options.model.json);
    if (options.model.json) {
        fmt::print("{}\n", dump(json_report(planned)));
    } else {
        print_report(planned);
    }
    return planned.fits() ? 0 : 1;
}

void declare_shape(CLI::App& command, PlanOptions& options) {
    zse::planning::Rough& rough = options.rough;
    const auto count = [&command](const char* name, std::uint32_t& to, const char* what) {
        command.add_option(name, to, what)->check(CLI::Range(1u, 1u << 24))->group("Shape");
    };
    command
        .add_option("--params", options.parameters,
                    "parameters of a shape without a file, such as 7B; what is not stated of the shape is "
                    "derived, and said")
        ->group("Shape");
    count("--layers", rough.layers, "layers");
    count("--hidden", rough.hidden, "hidden size");
    count("--heads", rough.heads, "attention heads");
    count("--kv-heads", rough.kv_heads, "key heads; default: one for each head");
    count("--head-dim", rough.head_dim, "values of a head");
    count("--feed-forward", rough.feed_forward,
          "feed-forward width; default: what makes the parameters come out");
    count("--vocab", rough.vocabulary, "tokens of the vocabulary; default: 32000");
    count("--trained-context", rough.context, "tokens that it was trained on; default: 32768");
    count("--experts", rough.experts, "feed-forward blocks of a layer; default: one, and no router");
    command.add_flag("--tied", rough.tied_output, "the output matrix is the embedding")->group("Shape");
    command.add_option("--bits", options.bits, "bits of a weight: 4 is nf4, 8 is int8, 16 is f16, 32 is f32")
        ->check(CLI::IsMember({4u, 8u, 16u, 32u}))
        ->group("Shape");
    command.add_option("--adapters", options.adapters.count, "LoRA adapters to plan for")
        ->check(CLI::Range(0u, 65536u))
        ->group("Shape");
    command.add_option("--adapter-rank", options.adapters.rank, "rank of each of them")
        ->check(CLI::Range(1u, 4096u))
        ->capture_default_str()
        ->group("Shape");
}

}  // namespace

void declare_plan(CLI::App& app, Action& action) {
    auto options = std::make_shared<PlanOptions>();
    CLI::App* command = app.add_subcommand("plan", "say what an engine would hold, to the byte");
    command->add_option("MODEL", options->models,
                        "files, or public models by name (llama3-8b); several are planned together");
    command->add_option("-m,--model,--and", options->more, "the same, one at a time")
        ->allow_extra_args(false);
    options->model.declare_settings(*command);
    declare_shape(*command, *options);
    command
        ->add_option("--solve", options->solve,
                     "print one answer only: the largest context or batch, the most layers in the gpu tier, "
                     "or the finest weights that fit the budget; without it the report has all four")
        ->check(CLI::IsMember({"context", "batch", "layers", "weights"}));
    command->add_option("--sweep", options->sweep,
                        "a table over contexts: 4K..128K doubles, 4K,8K,32K lists; K is 1024");
    command->add_flag("--models", options->list, "list the public models that are known by name");
    command->footer(
        "The exit status is 0 where the plan fits its budget, 1 where it does not, with steps that would "
        "help, and 2 where options contradict each other.");
    command->callback([options, &action] { action = [options] { return plan(*options); }; });
}

}  // namespace zse_cli
