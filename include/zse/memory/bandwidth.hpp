// SPDX-License-Identifier: Apache-2.0
// How fast bytes come from memory and from the disk tier here, measured in about a tenth of a second: for predictions,
// no benchmark.
#pragma once

#include <zse/memory/arena.hpp>
#include <zse/memory/transfers.hpp>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <thread>
#include <vector>

namespace zse::inline v1 {
namespace memory {

/// Bytes a second. 0 where nothing was measured.
struct Bandwidth {
    double memory = 0;
    double disk = 0;
};

namespace detail {

class Stopwatch {
public:
    [[nodiscard]] double seconds() const {
        return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
    }

private:
    std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

/// Each of the two measurements takes about so long.
inline constexpr double measured_seconds = 0.05;

}  // namespace detail

/// Bytes a second at which so many threads together read memory, at most: 16 MiB, which large caches hold, but more would
/// not be there where memory is short. Throws out_of_memory.
inline double memory_bandwidth(unsigned threads) {
    const Bytes each = round_up(MiB(16) / threads, KiB(64));
    Ledger ledger;
    const Arena arena(ledger.reserve(Tier::host, Kind::staging, threads * each).value());
    std::fill_n(arena.data(), arena.size(), std::byte{1});
    std::vector<std::uint64_t> sums(threads);
    const auto read = [&](unsigned thread) {
        const auto* words = reinterpret_cast<const std::uint64_t*>(arena.data() + thread * each);
        std::array<std::uint64_t, 8> lanes{};
        for (std::size_t i = 0; i < each / sizeof(std::uint64_t); i += lanes.size()) {
            for (std::size_t lane = 0; lane < lanes.size(); ++lane) lanes[lane] += words[i + lane];
        }
        for (const std::uint64_t lane : lanes) sums[thread] += lane;
    };
    double best = 0;
    const detail::Stopwatch all;
    do {
        const detail::Stopwatch pass;
        std::vector<std::thread> others;
        for (unsigned i = 1; i < threads; ++i) others.emplace_back(read, i);
        read(0);
        for (std::thread& other : others) other.join();
        best = std::max(best, static_cast<double>(threads * each) / pass.seconds());
    } while (all.seconds() < detail::measured_seconds);
    // The sums are looked at, so that they are computed.
    return std::count(sums.begin(), sums.end(), std::uint64_t{0}) == 0 ? best : 0;
}

/// Bytes a second at which files of the disk tier are read in a directory at best, as the ring of streamed weights reads
/// them.
/// Writes at most 32 MiB, which are gone afterwards. Throws as DiskArena does.
inline double disk_bandwidth(const std::filesystem::path& directory) {
    constexpr Bytes piece = KiB(512);
    constexpr std::uint64_t most = 64;
    constexpr unsigned readers = 4;
    constexpr std::uint64_t at_once = 8;  // as many as two layers have, or more
    Ledger ledger;
    const DiskArena file(ledger.reserve(Tier::disk, Kind::staging, most * piece).value(), directory);
    const Arena memory(ledger.reserve(Tier::host, Kind::staging, at_once * piece).value());
    std::uint64_t written = 0;
    const detail::Stopwatch writing;
    for (; written < most && (written < readers || writing.seconds() < detail::measured_seconds); ++written) {
        if (file.write(written * piece, memory.bytes().first(piece)) != 0) return 0;
    }
    TransferGroup group;
    Transfers transfers(readers, most);
    const detail::Stopwatch all;
    double best = 0;
    for (std::uint64_t read = 0; all.seconds() < detail::measured_seconds;) {
        const detail::Stopwatch reading;
        for (std::uint64_t i = 0; i < at_once; ++i, ++read) {
            Transfer transfer;
            transfer.file = &file;
            transfer.offset = read % written * piece;
            transfer.memory = memory.data() + i * piece;
            transfer.bytes = piece;
            transfer.group = &group;
            transfers.submit(transfer);
        }
        if (group.wait() != 0) return 0;
        best = std::max(best, static_cast<double>(at_once * piece) / reading.seconds());
    }
    return best;
}

}  // namespace memory
}  // namespace zse::inline v1
