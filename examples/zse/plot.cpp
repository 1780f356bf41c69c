// SPDX-License-Identifier: Apache-2.0
// zse plot: draws a memory profile that run or benchmark recorded.
#include "chart.hpp"
#include "opening.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <iterator>

namespace zse_cli {
namespace {

struct PlotOptions {
    std::string profile;
    std::string output;
    std::string quantity = "used";
};

/// Error: corrupt, with what was wrong.
[[noreturn]] void refuse(const std::string& path, std::string_view found) {
    throw zse::Error(zse::ErrorCode::corrupt,
                     zse::text(path, " is expected to be a memory profile, found ", found,
                               "; record one with zse run or zse benchmark --profile-memory"));
}

nlohmann::json read(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) {
        throw zse::Error(zse::ErrorCode::not_found,
                         zse::text(path, " cannot be opened; record a profile with --profile-memory"));
    }
    const std::string text{std::istreambuf_iterator<char>(file), {}};
    auto json = nlohmann::json::parse(text, nullptr, false);
    if (json.is_discarded()) refuse(path, "text that is no JSON");
    if (!json.is_object() || json.value("format", nlohmann::json()) != "zse memory profile") {
        refuse(path, "JSON without \"format\": \"zse memory profile\"");
    }
    if (json.value("version", nlohmann::json()) != 1) refuse(path, "a version other than 1");
    return json;
}

/// A number that can be drawn.
double figure(const nlohmann::json& in, const char* name) {
    const auto& value = in.at(name);
    const double number = value.is_number() ? value.get<double>() : -1;
    // The unit is the second or the byte; what is larger than this is neither.
    if (!(number >= 0 && number <= 1e18)) throw std::out_of_range(name);
    return number;
}

/// Bytes of a kind in all tiers of a sample.
double bytes(const nlohmann::json& sample, std::string_view kind, const std::string& quantity) {
    double sum = 0;
    const auto& tiers = sample.at("tiers");
    if (!tiers.is_object()) throw std::out_of_range("tiers");
    for (const auto& [tier, kinds] : tiers.items()) {
        if (!kinds.is_object()) throw std::out_of_range(tier);
        const auto found = kinds.find(std::string(kind));
        if (found != kinds.end()) sum += figure(*found, quantity.c_str());
    }
    return sum;
}

Chart chart_of(const nlohmann::json& profile, const PlotOptions& options) {
    const auto& samples = profile.at("samples");
    Chart chart;
    chart.title = options.quantity == "used" ? "Memory in use by kind"
                                             : zse::text("Memory by kind: ", options.quantity);
    chart.subtitle = profile.at("engine").get<std::string>();
    Series resident{"resident (process)", {}};
    for (const auto& sample : samples) {
        const double t = figure(sample, "t");
        if (!chart.times.empty() && t < chart.times.back()) throw std::out_of_range("t");
        chart.times.push_back(t);
        resident.values.push_back(figure(sample, "resident"));
    }
    if (chart.times.empty()) throw std::out_of_range("samples");
    for (std::size_t i = 0; i < zse::memory::kind_count; ++i) {
        Series area{std::string(zse::memory::name(static_cast<zse::memory::Kind>(i))), {}};
        for (const auto& sample : samples) area.values.push_back(bytes(sample, area.name, options.quantity));
        if (std::ranges::any_of(area.values, [](double value) { return value > 0; })) {
            chart.areas.push_back(std::move(area));
        }
    }
    chart.lines.push_back(
        {"planned in all", std::vector<double>(chart.times.size(), figure(profile, "planned_total"))});
    chart.lines.push_back(std::move(resident));
    chart.dashed = 1;
    return chart;
}

int plot(const PlotOptions& options) {
    const nlohmann::json profile = read(options.profile);
    Chart chart;
    try {
        chart = chart_of(profile, options);
    } catch (const nlohmann::json::exception& error) {
        refuse(options.profile, zse::text("a field that is missing or of another type (", error.what(), ")"));
    } catch (const std::out_of_range& error) {
        refuse(options.profile, zse::text("no number that can be drawn for ", error.what()));
    }
    std::error_code none;
    if (std::filesystem::equivalent(options.profile, options.output, none)) {
        throw zse::Error(zse::ErrorCode::usage,
                         zse::text("-o ", options.output, " is the profile itself; name another file"));
    }
    std::ofstream file(options.output, std::ios::binary);
    file << svg(chart);
    file.close();
    if (!file) {
        throw zse::Error(zse::ErrorCode::unreadable,
                         zse::text("-o ", options.output,
                                   " cannot be written; name a file in a directory that can be written to"));
    }
    fmt::print(stderr, "{}: {} samples, {} kinds\n", options.output, chart.times.size(), chart.areas.size());
    return 0;
}

}  // namespace

void declare_plot(CLI::App& app, Action& action) {
    auto options = std::make_shared<PlotOptions>();
    CLI::App* command = app.add_subcommand("plot", "draw a memory profile as SVG");
    command->add_option("PROFILE", options->profile, "what --profile-memory recorded")->required();
    command->add_option("-o,--output", options->output, "the drawing; default: the profile's name with .svg");
    command->add_option("--quantity", options->quantity, "bytes of each kind that are stacked")
        ->check(CLI::IsMember({"used", "held", "reserved", "peak"}))
        ->capture_default_str();
    command->callback([options, &action] {
        if (options->output.empty()) {
            options->output = std::filesystem::path(options->profile).replace_extension(".svg").string();
        }
        action = [options] { return plot(*options); };
    });
}

}  // namespace zse_cli
