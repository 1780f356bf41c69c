// SPDX-License-Identifier: Apache-2.0
// zse doctor: what on this machine stands in the way of a model, with advice. Changes nothing.
#include "opening.hpp"

#include <fmt/core.h>

#include <zse/planning/shares.hpp>
#include <zse/system/doctor.hpp>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <thread>

namespace zse_cli {
namespace {

struct DoctorOptions {
    ModelOptions model;
    std::string root = "/";
    std::optional<unsigned> pid;
};

/// Major faults a second of a process, over one second from now.
double faults_now(const zse::system::Root& root, unsigned pid) {
    const auto before = zse::system::read_process(root, pid);
    std::this_thread::sleep_for(std::chrono::seconds(1));
    const auto after = zse::system::read_process(root, pid);
    if (!before || !after || after->major_faults < before->major_faults) return 0;
    return static_cast<double>(after->major_faults - before->major_faults);
}

zse::system::Examination examination(const DoctorOptions& options) {
    zse::system::Examination of;
    of.root = {options.root};
    of.pid = options.pid;
    std::error_code ignored;
    if (!std::filesystem::is_directory(options.root, ignored)) {
        throw zse::Error(zse::ErrorCode::usage,
                         zse::text("--root is a directory that holds proc and sys, found ", options.root,
                                   ", which is none; leave it out to look at this machine"));
    }
    if (of.pid && !zse::system::read_process(of.root, of.pid)) {
        throw zse::Error(zse::ErrorCode::usage,
                         zse::text("--pid is the number of a process that runs, found ", *of.pid,
                                   ", which is none; see ps"));
    }
    // A copy of another machine has no dmesg to run, and its processes do not go on.
    if (std::filesystem::equivalent(options.root, "/", ignored)) {
        of.dmesg = zse::system::run_within_seconds;
        if (of.pid) of.fault_rate = faults_now(of.root, *of.pid);
    }
    if (!options.model.model.empty()) {
        const Chosen chosen = consider(options.model);
        const zse::memory::Plan plan = plan_of(chosen.choice, chosen.spec, chosen.limits);
        of.model = plan.gpu.total() + plan.host.total();
        of.model_huge_pages = plan.huge_pages_in(zse::memory::Tier::host);
    }
    return of;
}

/// A figure that is whole is written as a whole number.
nlohmann::json json_of(double figure) {
    constexpr double exact = 9007199254740992;  // 2^53
    if (figure >= 0 && figure < exact && std::floor(figure) == figure)
        return static_cast<std::uint64_t>(figure);
    return figure;
}

int doctor(const DoctorOptions& options) {
    const auto rows = zse::system::examine(examination(options));
    auto worst = zse::system::Verdict::ok;
    for (const auto& row : rows) worst = std::max(worst, row.verdict);
    if (options.model.json) {
        nlohmann::json out{{"verdict", std::string(zse::system::name(worst))},
                           {"rows", nlohmann::json::array()}};
        for (const auto& row : rows) {
            nlohmann::json figures = nlohmann::json::object();
            for (const auto& [name, value] : row.figures) figures[name] = json_of(value);
            out["rows"].push_back({{"name", row.name},
                                   {"value", row.value},
                                   {"verdict", std::string(zse::system::name(row.verdict))},
                                   {"advice", row.advice},
                                   {"figures", figures}});
        }
        fmt::print("{}\n", dump(out));
        return 0;
    }
    for (const auto& row : rows) {
        fmt::print("{:<8} {:<22} {}\n", zse::system::name(row.verdict), row.name, row.value);
        if (!row.advice.empty()) fmt::print("{:<8} {:<22} -> {}\n", "", "", row.advice);
    }
    return 0;
}

}  // namespace

void declare_doctor(CLI::App& app, Action& action) {
    auto options = std::make_shared<DoctorOptions>();
    CLI::App* command = app.add_subcommand(
        "doctor", "say what on this machine stands in the way of a model; changes nothing");
    command->add_option("MODEL,-m,--model", options->model.model,
                        "model file (.gguf) that is to run here, with the options below");
    command->add_option("--root", options->root, "a directory that stands for /: a copy of proc and sys")
        ->type_name("DIR")
        ->capture_default_str();
    command
        ->add_option_function<unsigned>(
            "--pid", [options](unsigned pid) { options->pid = pid; },
            "the process whose swapping is looked at")
        ->check(CLI::Range(1u, 1u << 30));
    options->model.declare_settings(*command);
    command->callback([options, &action] { action = [options] { return doctor(*options); }; });
}

}  // namespace zse_cli
