// SPDX-License-Identifier: Apache-2.0
// --offload-layers, --weights-mem, --device-map, --disk-dir and --slo: layers for which the fast tier has no room.
#include "offload.hpp"

#include <fmt/core.h>
#include <linux/magic.h>
#include <sys/vfs.h>

#include <array>

namespace zse_cli {

using zse::planning::Budget;
using zse::planning::Setting;

void OffloadOptions::declare(CLI::App& command) {
    command
        .add_option_function<std::string>(
            "--offload-layers,--offload",
            [this](const std::string& text) {
                automatic = text == "auto";
                layers.reset();
                if (automatic) return;
                const auto count = zse::parse_count(text);
                if (!count || count.value() > 1u << 20) {
                    throw zse::Error(
                        zse::ErrorCode::usage,
                        zse::text("--offload-layers is a number of layers or auto, found ", text));
                }
                layers = static_cast<std::uint32_t>(count.value());
            },
            "first layers outside of the fast tier: of the gpu tier, the complement of -ngl; without one, of "
            "memory, streamed from disk; auto: as few as it takes")
        ->type_name("N")
        ->group("Memory");
    command
        .add_option_function<std::string>(
            "--weights-mem",
            [this](const std::string& text) {
                const zse::Size size = zse::parse_size(text).value();
                weights_mem = size.automatic ? std::nullopt : std::optional(size.bytes);
            },
            "bytes of weights in host memory, at most: layers beyond them are streamed from disk")
        ->type_name("SIZE")
        ->group("Memory");
    command
        .add_option_function<std::string>(
            "--device-map", [this](const std::string& map) { device_map = map == "auto"; },
            "auto: layers lie in the gpu tier as many as fit, then in host memory, the rest on disk")
        ->check(CLI::IsMember({"none", "auto"}))
        ->default_str("none")
        ->group("Memory");
    command
        .add_option("--disk-dir", directory,
                    "the directory of the disk tier, whose files have no names and end with the program; "
                    "default: that of a disk tier for KV, or of temporary files")
        ->type_name("PATH")
        ->group("Memory");
    command
        .add_option("--slo", slo,
                    "what answers are for: interactive refuses layers outside of the fast tier, batch takes "
                    "them as they are")
        ->check(CLI::IsMember({"interactive", "batch"}))
        ->group("Memory");
}

std::filesystem::path BudgetOptions::disk_directory() const {
    if (!offload.directory.empty()) return offload.directory;
    for (const zse::config::TierConfig& tier : kv_tiers) {
        if (tier.type == zse::memory::Tier::disk) return tier.path;
    }
    std::error_code none;
    return std::filesystem::temp_directory_path(none);
}

Budget BudgetOptions::on(zse::planning::MachineMemory machine, zse::Bytes prompt_cache) const {
    zse::planning::BudgetRequest asked = request;
    if (asked.disk && !asked.disk->automatic && prompt_cache > asked.disk->bytes) {
        throw zse::Error(
            zse::ErrorCode::usage,
            zse::text("the prompt cache takes ", zse::human(prompt_cache), " of disk, and --disk-mem allows ",
                      zse::human(asked.disk->bytes), "; raise it, or lower --prompt-cache-size"));
    }
    const zse::Bytes kept = zse::memory::arena_bytes(kv_caps().disk.value_or(0)) + prompt_cache;
    if (!asked.disk && offload.may_stream()) {
        asked.disk = zse::Size{true, 0};
    } else if (!asked.disk && kept != 0) {
        asked.disk = zse::Size{false, kept};
    }
    if (asked.disk && asked.disk->automatic) {
        std::error_code error;
        const auto space = std::filesystem::space(disk_directory(), error);
        if (error) {
            throw zse::Error(
                zse::ErrorCode::usage,
                zse::text(disk_directory().string(), ": expected a directory for the disk tier (",
                          error.message(), "); create it, or name another with --disk-dir"));
        }
        machine.disk_free = space.available;
    }
    return zse::planning::budget_of(asked, machine);
}

void BudgetOptions::place_layers(const Budget& budget, zse::planning::Wish& wish) const {
    zse::Limits& limits = wish.setting.limits;
    const bool has_gpu = budget.gpu.cap != 0;
    const auto clamp = [&](const char* option, std::uint32_t& count) {
        if (count > wish.layers && count != all_layers) {
            fmt::print(stderr, "note: {} {}: the model has {} layers, and all of them are meant\n", option,
                       count, wish.layers);
        }
        count = std::min(count, wish.layers);
    };
    clamp("--gpu-layers", limits.gpu_layers);
    wish.gpu_layers_open = !gpu_layers && has_gpu;
    wish.weights_mem = offload.weights_mem;
    wish.disk_layers_open = offload.device_map || (offload.automatic && !has_gpu);
    if (!offload.layers) {
        if (offload.automatic && gpu_layers) {
            throw zse::Error(zse::ErrorCode::usage,
                             zse::text("--gpu-layers ", *gpu_layers,
                                       " and --offload-layers auto both place layers; give one of them"));
        }
        return;
    }
    std::uint32_t away = *offload.layers;
    clamp("--offload-layers", away);
    if (gpu_layers && limits.gpu_layers + away != wish.layers) {
        throw zse::Error(zse::ErrorCode::usage,
                         zse::text("--gpu-layers ", limits.gpu_layers, " and --offload-layers ", away,
                                   " contradict each other: together they should be the model's ",
                                   wish.layers, " layers; give one of them"));
    }
    if (has_gpu) {
        limits.gpu_layers = wish.layers - away;
        wish.gpu_layers_open = false;
    } else {
        limits.disk_layers = away;
        wish.disk_layers_open = false;
    }
}

void expect_objective(const OffloadOptions& options, const zse::planning::Planner& plan,
                      const Setting& setting, const Budget& budget, std::uint32_t layers) {
    const bool has_gpu = budget.gpu.cap != 0;
    const std::uint32_t away =
        has_gpu ? zse::planning::offloaded(setting.limits.gpu_layers, layers) : setting.limits.disk_layers;
    if (options.slo != "interactive" || (away == 0 && !setting.limits.disk_output)) return;
    const Setting all = zse::planning::with(setting, [&](zse::Limits& limits) {
        limits.gpu_layers = has_gpu ? layers : 0;
        limits.disk_layers = 0;
        limits.disk_output = false;
    });
    const auto fits = [&](const zse::memory::Plan& planned) {
        return budget.holds(planned) &&
               (!options.weights_mem || zse::planning::host_weights(planned) <= *options.weights_mem);
    };
    const std::array<std::string_view, 4> finest_first{setting.weights, "f16", "int8", "nf4"};
    const std::string weights = zse::planning::finest_weights_that(plan, all, fits, finest_first);
    std::string way = "no precision of weights fits there, so use a smaller model";
    if (weights == setting.weights)
        way = "all of them fit there, so leave --offload-layers out";
    else if (!weights.empty())
        way = zse::text("--weights ", weights, " has all of them there");
    throw zse::Error(zse::ErrorCode::out_of_memory,
                     zse::text("--slo interactive: ", away, " of ", layers, " layers lie outside of the ",
                               has_gpu ? "gpu tier" : "memory for weights", ", which makes answers slow; ",
                               way, ", or accept it with --slo batch"));
}

void announce(const Chosen& chosen) {
    const std::uint32_t layers = chosen.spec.layers;
    const zse::model::Placement placement(layers, chosen.limits);
    if (chosen.offload.device_map) {
        fmt::print(stderr, "device map: {}\n", zse::planning::layer_map(placement));
    }
    if (placement.disk_layers == 0 && !placement.disk_output) return;
    const zse::memory::Plan plan = plan_of(chosen.choice, chosen.spec, chosen.limits);
    const zse::Bytes streamed = zse::planning::streamed_bytes(plan);
    struct statfs system {};
    if (::statfs(chosen.disk_directory.c_str(), &system) == 0 && system.f_type == TMPFS_MAGIC) {
        fmt::print(
            stderr,
            "warning: {} is memory (tmpfs), so the disk tier saves none; name a directory on a disk with "
            "--disk-dir\n",
            chosen.disk_directory.string());
    }
    const zse::memory::Bandwidth bandwidth{zse::memory::memory_bandwidth(chosen.limits.threads),
                                           zse::memory::disk_bandwidth(chosen.disk_directory)};
    fmt::print(
        stderr,
        "warning: {} of {} layers{} are streamed from disk, {} a step at {:.2f} GB/s: predicted {:.1f} "
        "tokens/s at most; fewer bits a weight or a smaller model would be faster\n",
        placement.disk_layers, layers, placement.disk_output ? " and the output matrix" : "",
        zse::human(streamed), bandwidth.disk / 1e9, zse::planning::predicted_rate(plan, bandwidth));
}

void hint(const Chosen& chosen, const zse::Limits& opened) {
    if (chosen.budget.gpu.cap == 0) return;
    if (opened.gpu_layers < chosen.limits.gpu_layers) {
        fmt::print(stderr,
                   "note: the gpu tier had less room than was planned: {} layers lie there instead of {} "
                   "(-ngl {})\n",
                   opened.gpu_layers, chosen.limits.gpu_layers, opened.gpu_layers);
        return;
    }
    const auto plan = planner_of(chosen.spec, chosen.choice);
    const auto most =
        zse::planning::most_gpu_layers(plan, chosen.setting(), chosen.budget, chosen.spec.layers);
    if (!most || *most <= opened.gpu_layers) return;
    fmt::print(stderr, "hint: room for {} more layers in the gpu tier (-ngl {})\n", *most - opened.gpu_layers,
               *most);
}

}  // namespace zse_cli
