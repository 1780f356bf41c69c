// SPDX-License-Identifier: Apache-2.0
// zse hardware: what this machine has, and which well-known models fit it.
#include "opening.hpp"

#include <fmt/core.h>

#include <zse/model/models.hpp>
#include <zse/system/hardware.hpp>

#include <stdexcept>

namespace zse_cli {
namespace {

constexpr std::uint32_t context = 4096;

struct Fit {
    std::string_view model;
    std::string_view weights;
    zse::Bytes bytes;
    bool fits;
};

/// The plans of known models at a context of 4,096 tokens, for weights in 16 bits and in 4, against a budget.
std::vector<Fit> fits(zse::Bytes budget, std::uint32_t threads) {
    std::vector<Fit> list;
    for (const auto& model : zse::models::all) {
        for (const char* weights : {"f16", "nf4"}) {
            zse::engine::Choice choice;
            choice.weights = weights;
            zse::Limits limits;
            limits.context = context;
            limits.threads = threads;
            const zse::Bytes bytes = zse_matrix::zse_engines::find(choice).plan(*model.spec, limits).total();
            list.push_back({model.name, weights, bytes, bytes <= budget});
        }
    }
    return list;
}

int hardware(bool json) {
    const zse::system::Hardware machine = zse::system::probe();
    const zse::Bytes usable = machine.usable_memory();
    const auto list = fits(usable, machine.usable_threads());
    if (json) {
        nlohmann::json out;
        out["cpu"] = {{"model", machine.cpu.model},
                      {"logical", machine.cpu.logical},
                      {"physical", machine.cpu.physical},
                      {"usable_threads", machine.usable_threads()},
                      {"instruction_sets", zse::system::names(machine.cpu.instructions)},
                      {"kernels", std::string(zse::kernels::name(zse::kernels::widest()))}};
        out["memory"] = {{"total", machine.memory.total},
                         {"available", machine.memory.available},
                         {"usable", usable},
                         {"huge_page_bytes", machine.memory.huge_page_size},
                         {"huge_pages", machine.memory.huge_pages_total},
                         {"huge_pages_free", machine.memory.huge_pages_free},
                         {"swap_total", machine.memory.swap_total}};
        out["gpus"] = nlohmann::json::array();
        for (const auto& gpu : machine.gpus) {
            nlohmann::json one{{"index", gpu.index}, {"name", gpu.name}};
            one["total"] = gpu.total ? nlohmann::json(*gpu.total) : nlohmann::json();
            one["free"] = gpu.free ? nlohmann::json(*gpu.free) : nlohmann::json();
            out["gpus"].push_back(one);
        }
        out["gpu_note"] = machine.gpu_note;
        out["first_tier"] = "host";
        out["models"] = nlohmann::json::array();
        for (const Fit& fit : list) {
            out["models"].push_back({{"model", std::string(fit.model)},
                                     {"weights", std::string(fit.weights)},
                                     {"context", context},
                                     {"bytes", fit.bytes},
                                     {"fits", fit.fits}});
        }
        fmt::print("{}\n", dump(out));
        return 0;
    }
    std::string sets;
    for (const auto& name : zse::system::names(machine.cpu.instructions)) sets += " " + std::string(name);
    fmt::print("CPU     {}: {} threads on {} cores, {} usable\n", machine.cpu.model, machine.cpu.logical,
               machine.cpu.physical, machine.usable_threads());
    fmt::print("       {}\n", sets);
    fmt::print("kernels {}; --isa chooses among {}\n", zse::kernels::name(zse::kernels::widest()),
               zse::kernels::usable_names());
    fmt::print("memory  {} in all, {} available, {} usable here\n", zse::human(machine.memory.total),
               zse::human(machine.memory.available), zse::human(usable));
    fmt::print(
        "pages   transparent huge ones where the kernel gives them; {} of {} explicit ones of {} are free\n",
        machine.memory.huge_pages_free, machine.memory.huge_pages_total,
        zse::human(machine.memory.huge_page_size));
    for (const auto& gpu : machine.gpus) {
        fmt::print("GPU {}   {}: {} in all, {} free\n", gpu.index, gpu.name,
                   gpu.total ? zse::human(*gpu.total) : "unknown",
                   gpu.free ? zse::human(*gpu.free) : "unknown");
    }
    if (machine.gpus.empty()) fmt::print("GPU     none: {}\n", machine.gpu_note);
    fmt::print("tier 1  host memory: this build of zse computes on the CPU\n\n");
    fmt::print("{:<17} {:<8} {:>30}   fits with {} tokens of context\n", "model", "weights", "memory",
               context);
    for (const Fit& fit : list) {
        fmt::print("{:<17} {:<8} {:>30}   {}\n", fit.model, fit.weights, zse::human(fit.bytes),
                   fit.fits ? "yes" : "no");
    }
    return 0;
}

}  // namespace

void declare_hardware(CLI::App& app, Action& action) {
    auto json = std::make_shared<bool>(false);
    CLI::App* command = app.add_subcommand("hardware", "say what this machine has, and which models fit");
    command->add_flag("--json", *json, "print JSON on standard output");
    command->callback([json, &action] { action = [json] { return hardware(*json); }; });
}

}  // namespace zse_cli
