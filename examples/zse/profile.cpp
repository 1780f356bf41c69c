// SPDX-License-Identifier: Apache-2.0
// Sampling an engine's memory, and writing the samples.
#include "profile.hpp"

#include "opening.hpp"

#include <fmt/core.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>

namespace zse_cli {
namespace {

using zse::memory::Tier;

double seconds(MemoryProfile::Clock::duration time) {
    return std::chrono::duration<double>(time).count();
}

/// Bytes of a tier by kind, for kinds that were planned or taken: {"kv": {"held": n, ...}, ..., "total": {...}}.
nlohmann::json tier_json(const zse::memory::TierPlan& planned, const zse::memory::Ledger& ledger, Tier tier) {
    const auto held = ledger.held(tier);
    const auto reserved = ledger.reserved(tier);
    const auto used = ledger.used(tier);
    const auto peak = ledger.peak(tier);
    nlohmann::json kinds = nlohmann::json::object();
    for (std::size_t i = 0; i < zse::memory::kind_count; ++i) {
        if (planned.kinds[i] == 0 && reserved.kinds[i] == 0) continue;
        kinds[std::string(zse::memory::name(static_cast<zse::memory::Kind>(i)))] = {
            {"held", held.kinds[i]},
            {"reserved", reserved.kinds[i]},
            {"used", used.kinds[i]},
            {"peak", peak.kinds[i]}};
    }
    if (kinds.empty()) return kinds;
    kinds["total"] = {{"held", held.total()},
                      {"reserved", reserved.total()},
                      {"used", used.total()},
                      {"peak", peak.total()}};
    return kinds;
}

}  // namespace

void ProfileOptions::declare(CLI::App& command) {
    CLI::Option* flag = command.add_flag("--profile-memory", wanted, "record memory over time, every 100 ms");
    command.add_option("--profile-output", output, "the file to record in; zse plot draws it")
        ->needs(flag)
        ->type_name("FILE")
        ->capture_default_str();
}

MemoryProfile::MemoryProfile(std::string path, const zse::AnyEngine& engine)
    : path_(std::move(path)), engine_(&engine), start_(Clock::now()) {
    std::error_code none;
    const auto there = std::filesystem::status(path_, none);
    if (std::filesystem::exists(there) && !std::filesystem::is_regular_file(there)) {
        // Renaming would put a file in the place of a device.
        throw zse::Error(zse::ErrorCode::usage, zse::text("--profile-output is a file, found ", path_,
                                                          ", which is a directory or a device; name a file"));
    }
    const nlohmann::json head{{"format", "zse memory profile"},
                              {"version", 1},
                              {"engine", engine.description()},
                              {"planned", json_of(engine.plan())},
                              {"planned_total", engine.plan().total()}};
    head_ = head.dump();
    head_.pop_back();  // its closing brace comes after the samples
    head_ += ",\n\"samples\":[\n";
    sample();
}

void MemoryProfile::sample() {
    const auto begin = Clock::now();
    const auto use = engine_->page_use();
    nlohmann::json sample{{"t", seconds(begin - start_)},
                          {"resident", resident_bytes()},
                          {"running", engine_->running()},
                          {"waiting", engine_->waiting()},
                          {"kv_pages", {{"used", use.used}, {"total", use.pages}}},
                          {"spent", seconds(spent_)},
                          {"tiers", nlohmann::json::object()}};
    for (const Tier tier : zse::memory::all_tiers) {
        auto kinds = tier_json(engine_->plan()[tier], engine_->ledger(), tier);
        if (!kinds.empty()) sample["tiers"][std::string(zse::memory::name(tier))] = std::move(kinds);
    }
    if (samples_.size() == most_samples) {
        for (std::size_t i = 0; 2 * i < samples_.size(); ++i) samples_[i] = std::move(samples_[2 * i]);
        samples_.resize((samples_.size() + 1) / 2);
    }
    samples_.push_back(sample.dump());
    write();
    spent_ += Clock::now() - begin;
    next_ = std::max(begin + period, start_ + share * spent_);
}

void MemoryProfile::write() const {
    const std::string partial = path_ + ".partial";
    std::FILE* file = std::fopen(partial.c_str(), "wb");
    bool good = file != nullptr;
    if (good) {
        good = std::fputs(head_.c_str(), file) >= 0;
        for (std::size_t i = 0; i < samples_.size(); ++i) {
            good = good && std::fputs(samples_[i].c_str(), file) >= 0 &&
                   std::fputs(i + 1 == samples_.size() ? "\n" : ",\n", file) >= 0;
        }
        good = std::fputs("]}\n", file) >= 0 && good;
        good = std::fclose(file) == 0 && good;
    }
    if (good && std::rename(partial.c_str(), path_.c_str()) == 0) return;
    const int why = errno;
    std::remove(partial.c_str());
    throw zse::Error(zse::ErrorCode::unreadable,
                     zse::text("--profile-output ", path_, " cannot be written (", std::strerror(why),
                               "); name a file in a directory that can be written to"));
}

}  // namespace zse_cli
