// SPDX-License-Identifier: Apache-2.0
// How much slower generation gets with 50 % and 90 % of the keys and values outside of the first tier: in host memory,
// attended to where they lie or copied back first; and on disk. All engines take turns, so that each has the same
// neighbours. Prints a table for docs/benchmarks.md.
//   bench_tiers [directory of the disk tier] [depth]
#include <support/smollm2.hpp>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <deque>
#include <string>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;
using Tiers = zse::tiers::chain<zse::tiers::arena, zse::tiers::host, zse::tiers::disk>;
using zse::Bytes;

constexpr std::uint32_t rounds = 40;

/// An engine that stands at the depth, and the times of its steps.
struct Lane {
    std::unique_ptr<zse::AnyEngine> engine;
    std::vector<std::byte> away, back;  ///< what is copied before each step
    std::vector<double> seconds;
    Bytes staged = 0;

    void step() {
        const auto start = Clock::now();
        if (!back.empty()) std::memcpy(back.data(), away.data(), back.size());
        engine->step();
        seconds.push_back(std::chrono::duration<double>(Clock::now() - start).count());
    }
    [[nodiscard]] double quantile(double q) {
        std::sort(seconds.begin(), seconds.end());
        return seconds[static_cast<std::size_t>(q * static_cast<double>(seconds.size() - 1))];
    }
};

template <class Kv>
std::unique_ptr<zse::AnyEngine> engine_at(std::uint32_t depth, double host, double disk,
                                          const std::string& directory) {
    zse::engine::Options options;
    options.disk_directory = directory;
    options.limits = {.context = depth + 2 * rounds + 64, .step_tokens = 256, .threads = 2};
    options.limits.gpu_layers = 99;
    const auto share = [&](double of) {
        return static_cast<std::uint64_t>(of * options.limits.context) / 16 * 16;
    };
    options.limits.kv_host_tokens = share(host);
    options.limits.kv_disk_tokens = share(disk);
    auto engine = support::open_smollm2<zse::Engine<Kv, Tiers>>(options);
    zse::AnyEngine::Request request;
    for (std::uint32_t i = 0; i < depth; ++i)
        request.tokens.push_back(static_cast<std::int32_t>(1000 + i * 37 % 40000));
    request.max_tokens = 2 * rounds + 32;
    request.ignore_end = true;
    engine->submit(std::move(request));
    while (engine->counters().generated_tokens < 8) engine->step();
    return engine;
}

template <class Kv>
void table(std::uint32_t depth, const std::string& directory) {
    std::deque<Lane> lanes;
    std::vector<std::string> names;
    const auto add = [&](const std::string& name, double host, double disk) -> Lane& {
        names.push_back(name);
        lanes.push_back({engine_at<Kv>(depth, host, disk, directory), {}, {}, {}, 0});
        return lanes.back();
    };
    add("all in the first tier", 0, 0);
    for (const double share : {0.5, 0.9}) {
        const std::string percent = std::to_string(static_cast<int>(100 * share)) + " % ";
        add(percent + "in host memory, where it lies", share, 0);
        Lane& copied = add(percent + "in host memory, copied back", 0, 0);
        const auto bytes = static_cast<std::size_t>(
            share * static_cast<double>(copied.engine->plan().gpu[zse::memory::Kind::kv]));
        copied.away.assign(bytes, std::byte{1});
        copied.back.assign(bytes, std::byte{2});
        add(percent + "on disk", 0, share);
    }
    for (Lane& lane : lanes) lane.staged = lane.engine->tier_traffic().staged_bytes;
    for (std::uint32_t round = 0; round < rounds; ++round) {  // forth and back
        for (auto lane = lanes.begin(); lane != lanes.end(); ++lane) lane->step();
        for (auto lane = lanes.rbegin(); lane != lanes.rend(); ++lane) lane->step();
    }
    const double whole = lanes.front().quantile(0.5);
    std::printf(
        "| %s | ms a token (quartiles) | times slower | read from disk a token |\n|---|---|---|---|\n",
        lanes.front().engine->description().c_str());
    for (std::size_t i = 0; i < lanes.size(); ++i) {
        Lane& lane = lanes[i];
        const double staged = static_cast<double>(lane.engine->tier_traffic().staged_bytes - lane.staged);
        std::printf("| %s | %.2f (%.2f to %.2f) | %.2f | %.1f MB |\n", names[i].c_str(),
                    1e3 * lane.quantile(0.5), 1e3 * lane.quantile(0.25), 1e3 * lane.quantile(0.75),
                    lane.quantile(0.5) / whole, staged / (2 * rounds) / 1e6);
    }
    std::printf("\n");
}

}  // namespace

int main(int argc, char** argv) {
    std::vector<std::string> words;  // flags are those of the other benchmarks
    for (int i = 1; i < argc; ++i) {
        if (argv[i][0] != '-') words.emplace_back(argv[i]);
    }
    const std::string directory = words.empty() ? "/tmp" : words[0];
    const auto depth = static_cast<std::uint32_t>(words.size() > 1 ? std::stoul(words[1]) : 5000);
    table<zse::kv::f16>(depth, directory);
    table<zse::kv::int8<>>(depth, directory);
    table<zse::kv::int4<>>(depth, directory);
}
