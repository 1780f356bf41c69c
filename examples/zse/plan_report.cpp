// SPDX-License-Identifier: Apache-2.0
// Prints what an engine would hold: by tier and kind, by part, for a token and a sequence, against a budget.
#include "plan_report.hpp"

#include "refusal.hpp"

#include <fmt/core.h>

#include <zse/planning/shares.hpp>

#include <algorithm>
#include <array>

namespace zse_cli {

using zse::memory::Kind;
using zse::memory::Plan;
using zse::memory::Tier;
using zse::planning::all_parts;
using zse::planning::Part;
using zse::planning::percent;
using zse::planning::Setting;

std::uint32_t Planned::layers() const {
    std::uint32_t most = 0;
    for (const Subject& subject : subjects) most = std::max(most, subject.spec.layers);
    return most;
}
std::uint32_t Planned::trained_context() const {
    std::uint32_t most = 0;
    for (const Subject& subject : subjects) most = std::max(most, subject.spec.trained_context);
    return most;
}
std::uint64_t Planned::parameters() const {
    std::uint64_t sum = 0;
    for (const Subject& subject : subjects) sum += subject.parameters;
    return sum;
}
zse::Bytes Planned::adapter_bytes() const {
    zse::Bytes sum = 0;
    for (const Subject& subject : subjects) {
        const zse::model::Placement placement(subject.spec.layers, setting.limits);
        for (const Tier tier : {Tier::gpu, Tier::host}) {
            sum += zse::planning::adapter_bytes(subject.spec, placement, adapters, tier);
        }
    }
    return sum;
}

Largest largest(const Planned& planned) {
    const Setting whole =
        zse::planning::with(planned.setting, [](zse::Limits& limits) { limits.kv_tokens = 0; });
    Largest most;
    most.context =
        zse::planning::largest_context(planned.questions, whole, planned.budget, planned.trained_context());
    most.batch = zse::planning::largest_batch(planned.questions, whole, planned.budget);
    if (planned.budget.gpu.cap != 0) {
        most.gpu_layers =
            zse::planning::most_gpu_layers(planned.planner, whole, planned.budget, planned.layers());
    }
    // Nothing is gained by holding a file's weights in more bits than it has.
    const bool shapes = std::all_of(planned.subjects.begin(), planned.subjects.end(),
                                    [](const Subject& subject) { return subject.is_shape(); });
    const std::array<std::string_view, 4> finest_first{shapes ? "f32" : "as-stored", "f16", "int8", "nf4"};
    most.weights = zse::planning::finest_weights(planned.questions, whole, planned.budget, finest_first);
    return most;
}

double bits_of(const Plan& plan) {
    return 8.0 * static_cast<double>(plan.of(Kind::weights)) /
           static_cast<double>(std::max<std::uint64_t>(plan.parameters, 1));
}

unsigned nominal_bits(const Planned& planned) {
    const std::string& weights = planned.setting.weights;
    if (weights == "f32") return 32;
    if (weights == "f16" || weights == "bf16") return 16;
    if (weights == "int8" || weights == "q8_0") return 8;
    if (weights == "nf4" || weights == "q4_0" || weights == "q4_1") return 4;
    return planned.subjects.front().is_shape() ? 16 : 0;
}

double context_gain(const Planned& planned) {
    Setting sixteen = planned.setting;
    sixteen.kv = "f16";
    const auto plan = zse::planning::plan_if_any(planned.planner, sixteen);
    if (!plan || planned.plan.kv_bytes_per_token == 0) return 0;
    return static_cast<double>(plan->kv_bytes_per_token) /
           static_cast<double>(planned.plan.kv_bytes_per_token);
}

Tier kv_tier(const Plan& plan) {
    return plan.gpu[Kind::kv] > plan.host[Kind::kv] ? Tier::gpu : Tier::host;
}

Plan at_context(const Planned& planned, std::uint32_t context) {
    return planned.questions(zse::planning::with(planned.setting, [&](zse::Limits& limits) {
        limits.context = context;
        limits.kv_tokens = 0;
    }));
}

namespace {

std::string of_budget(const zse::planning::TierBudget& tier) {
    std::string how = fmt::format("{} {}", zse::human(tier.memory), tier.stated ? "stated" : "free now");
    if (tier.headroom > 0) how += fmt::format(", {:g} % headroom", 100 * tier.headroom);
    if (tier.reserve > 0) how += fmt::format(", {} reserved", zse::human(tier.reserve));
    return how;
}

}  // namespace

std::vector<std::string> warnings(const Planned& planned) {
    std::vector<std::string> all;
    std::string outside;
    for (const Part part : all_parts) {
        const double share = percent(zse::planning::bytes_of(planned.plan, part), planned.plan.total());
        const zse::planning::Range usual = zse::planning::usual(part);
        if (usual.side(share) == 0) continue;
        outside += fmt::format("{}{} {:.1f} % ({:g} to {:g})", outside.empty() ? "" : ", ",
                               zse::planning::name(part), share, usual.low, usual.high);
    }
    if (!outside.empty()) all.push_back("shares outside their usual range: " + outside);
    const std::string& kv = planned.setting.kv;
    // Keys lose most; values in 4 bits alone cost little.
    if (kv.starts_with("int4") || kv.find("-then-int4") != std::string::npos) {
        for (const Subject& subject : planned.subjects) {
            const bool narrow = subject.spec.head_dim < 128;
            all.push_back(fmt::format(
                "keys in 4 bits cost answers, most of all in long reasoning{}: SmolLM2-135M loses 6 % of "
                "perplexity, 19 % where they are not rotated; measure it (zse perplexity --kl), or keep the "
                "keys in "
                "8 bits (-ctk int8 -ctv int4), which costs 0.3 %",
                narrow ? fmt::format(" and with narrow heads (here {} values)", subject.spec.head_dim) : ""));
            break;
        }
    }
    if (const zse::Bytes streamed = zse::planning::streamed_bytes(planned.plan); streamed != 0) {
        all.push_back(
            fmt::format("weights on disk make every token slower: a step reads {} from there; for answers "
                        "that are waited "
                        "for, prefer fewer bits a weight or a smaller model",
                        zse::human(streamed)));
    }
    if (planned.adapters.count != 0) all.emplace_back("adapters are planned only: this build loads none");
    for (const Subject& subject : planned.subjects) {
        if (planned.setting.limits.context > subject.spec.trained_context && planned.subjects.size() == 1) {
            all.push_back(fmt::format("{} was trained on {} tokens; beyond them answers degrade",
                                      subject.name, subject.spec.trained_context));
        }
        if (subject.spec.experts != 0) {
            all.push_back(
                fmt::format("{} is a mixture of {} experts: planned only, this build does not compute it",
                            subject.name, subject.spec.experts));
        }
    }
    return all;
}

std::vector<std::string> budget_warnings(const Planned& planned) {
    std::vector<std::string> all;
    const Tier tier = kv_tier(planned.plan);
    const zse::Bytes cap = planned.budget[tier].cap;
    const double room = zse::planning::kv_room(planned.plan[tier], cap);
    if (room < zse::planning::least_kv_room) {
        all.push_back(fmt::format(
            "{:.1f} % of the {} tier is left for KV beside weights and activations; loads that change want "
            "30 to 50 %",
            room, zse::memory::name(tier)));
    }
    for (const Tier each : {Tier::gpu, Tier::host}) {
        const zse::planning::TierBudget& budget = planned.budget[each];
        const double rule = each == Tier::gpu && !planned.budget.unified ? zse::planning::card_headroom
                                                                         : zse::planning::shared_headroom;
        const zse::Bytes load = planned.budget.load(planned.plan, each);
        if (!budget.stated || budget.headroom > 0 || load == 0 || load > budget.cap) continue;
        if (static_cast<double>(load) <= (1 - rule) * static_cast<double>(budget.memory)) continue;
        all.push_back(fmt::format(
            "the {} tier is filled to {:.1f} %; the rule is to leave {:g} % free (--headroom {:g})",
            zse::memory::name(each), percent(load, budget.memory), 100 * rule, rule));
    }
    return all;
}

void print_report(const Planned& planned) {
    const Plan& plan = planned.plan;
    const Setting& setting = planned.setting;
    const zse::Limits& limits = setting.limits;
    for (const Subject& subject : planned.subjects) {
        const zse::ModelSpec& spec = subject.spec;
        fmt::print(
            "{}: {} parameters, {} layers, hidden {}, {} heads over {} key heads of {}, feed-forward {}, "
            "vocabulary {}\n",
            subject.name, spec.parameters(), spec.layers, spec.hidden, spec.heads, spec.kv_heads,
            spec.head_dim, spec.feed_forward, spec.vocabulary);
        for (const std::string& line : subject.assumed) fmt::print("  assumed: {}\n", line);
    }
    fmt::print("weights {}, KV {}, attention {}: context {}, batch {}, {} rows a step, {} threads",
               setting.weights, setting.kv, planned.choice.attention, limits.context, limits.batch,
               limits.step_tokens, limits.threads);
    if (limits.gpu_layers != 0 || limits.disk_layers != 0 || limits.disk_output) {
        fmt::print(", {}", zse::planning::layer_map(zse::model::Placement(planned.layers(), limits)));
    }
    if (limits.kv_tokens != 0) fmt::print(", pages for {} tokens in all", limits.kv_tokens);

    fmt::print("\n\n{:<5} {:<12} {:>16} {:>8}\n", "tier", "kind", "bytes", "share");
    for (const Tier tier : zse::memory::all_tiers) {
        const zse::memory::TierPlan& part = plan[tier];
        if (part.total() == 0) continue;
        for (std::size_t i = 0; i < zse::memory::kind_count; ++i) {
            const auto kind = static_cast<Kind>(i);
            if (part[kind] == 0) continue;
            fmt::print("{:<5} {:<12} {:>16} {:>6.1f} %  {}\n", zse::memory::name(tier),
                       zse::memory::name(kind), part[kind], percent(part[kind], part.total()),
                       zse::planning::dynamic(kind) ? "dynamic" : "static");
            if (kind == Kind::weights && planned.adapters.count != 0 && tier == Tier::host) {
                fmt::print(
                    "      of which adapters in all tiers: {} bytes, {} of rank {} (A and B in 16 bits, all "
                    "seven matrices)\n",
                    planned.adapter_bytes(), planned.adapters.count, planned.adapters.rank);
            }
        }
        const zse::Bytes fixed = zse::planning::static_bytes(part);
        fmt::print("{:<5} {:<12} {:>16}           {}: static {}, dynamic {}\n", zse::memory::name(tier),
                   "total", part.total(), zse::human(part.total()), zse::human(fixed),
                   zse::human(part.total() - fixed));
    }
    fmt::print("driver             {:>16}           no GPU is in use\n", planned.driver);
    fmt::print(
        "static bytes are the same whatever is asked; dynamic ones are reserved at open, and requests fill "
        "them\n");

    fmt::print("\n{:<12} {:>26} {:>8}\n", "part", "", "share");
    for (const Part part : all_parts) {
        const zse::Bytes bytes = zse::planning::bytes_of(plan, part);
        const double share = percent(bytes, plan.total());
        const zse::planning::Range usual = zse::planning::usual(part);
        const int side = usual.side(share);
        fmt::print("{:<12} {:>26} {:>6.1f} %  usually {:g} to {:g} %{}\n", zse::planning::name(part),
                   zse::human(bytes), share, usual.low, usual.high,
                   side < 0 ? ": below" : (side > 0 ? ": above" : ""));
    }

    fmt::print("\nweights       {:.3f} bits each, scales and tables of the vocabulary counted",
               bits_of(plan));
    if (const unsigned bits = nominal_bits(planned); bits != 0) {
        fmt::print("; {} parameters * {} / 8 would be {}", planned.parameters(), bits,
                   zse::human(planned.parameters() * bits / 8));
    }
    fmt::print("\n");
    if (planned.subjects.size() == 1) {
        fmt::print("KV            {} bytes a token, {} a sequence of {}, {} for the batch of {}\n",
                   plan.kv_bytes_per_token, zse::human(plan.kv_bytes_per_sequence()), limits.context,
                   zse::human(plan.of(Kind::kv)), limits.batch);
        if (const double gain = context_gain(planned); gain > 0 && setting.kv != "f16") {
            fmt::print("              {:.2f} times the tokens of KV in 16 bits\n", gain);
        }
    } else {
        fmt::print("KV            {} for the batch of {}, all models\n", zse::human(plan.of(Kind::kv)),
                   limits.batch);
    }
    if (const auto pages = plan.huge_pages_in(Tier::host); pages != 0) {
        fmt::print("huge pages    {} of 2 MiB would hold the large arenas of the host tier\n", pages);
    }
    fmt::print("total         {} bytes, {}\n", plan.total(), zse::human(plan.total()));
    for (const Tier tier : zse::memory::all_tiers) {
        const zse::planning::TierBudget& budget = planned.budget[tier];
        if (budget.memory == 0) continue;
        fmt::print("{:<4} budget   {}: {} may be held\n", zse::memory::name(tier), of_budget(budget),
                   zse::human(budget.cap));
    }
    if (planned.budget.unified) fmt::print("              both tiers share the host's memory\n");
    fmt::print("verdict       {}\n", planned.fits() ? "fits" : "does not fit");

    if (!planned.contexts.empty()) {
        fmt::print("\n{:>8} {:>26} {:>26} {:>26} {:>26}\n", "context", "weights", "KV", "activations",
                   "total");
        for (const std::uint32_t context : planned.contexts) {
            const Plan at = at_context(planned, context);
            fmt::print("{:>8} {:>26} {:>26} {:>26} {:>26}  {}\n", context, zse::human(at.of(Kind::weights)),
                       zse::human(at.of(Kind::kv)),
                       zse::human(zse::planning::bytes_of(at, Part::activations)), zse::human(at.total()),
                       planned.budget.holds(at) ? "fits" : "does not fit");
        }
    }

    const Largest most = largest(planned);
    fmt::print("\nthe most that fits, all else as above\n");
    fmt::print("  context     {} tokens{}\n", most.context,
               most.context == planned.trained_context() ? ", the trained length" : "");
    fmt::print("  batch       {} sequences of {} tokens\n", most.batch, limits.context);
    if (planned.budget.gpu.cap == 0) {
        fmt::print("  gpu layers  no gpu tier; state one with --gpu-mem\n");
    } else if (most.gpu_layers) {
        fmt::print("  gpu layers  --gpu-layers {}: {} layers are offloaded\n", *most.gpu_layers,
                   zse::planning::offloaded(*most.gpu_layers, planned.layers()));
    } else {
        fmt::print("  gpu layers  none: the rest does not fit the host tier\n");
    }
    fmt::print("  weights     {}\n", most.weights.empty() ? "no precision fits" : most.weights);

    std::vector<std::string> notes = warnings(planned);
    for (std::string& line : budget_warnings(planned)) notes.push_back(std::move(line));
    if (!notes.empty()) fmt::print("\n");
    for (const std::string& line : notes) fmt::print("warning: {}\n", line);
    if (!planned.fits()) {
        const auto advice = advice_on(planned.questions, setting, planned.budget,
                                      planned.subjects.front().spec, planned.choice);
        fmt::print("\n{}\n{}", sentence(plan, planned.budget, advice), lines(setting, advice));
    }
}

}  // namespace zse_cli
