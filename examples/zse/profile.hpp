// SPDX-License-Identifier: Apache-2.0
// A time series of memory in a file that is valid JSON at any moment.
#pragma once

#include <CLI/CLI.hpp>

#include <zse/engine/any_engine.hpp>

#include <chrono>
#include <string>
#include <vector>

namespace zse_cli {

/// Whether and where memory is recorded.
struct ProfileOptions {
    bool wanted = false;
    std::string output = "memory.json";

    /// Declares --profile-memory and --profile-output on a command.
    void declare(CLI::App& command);
};

/// Samples an engine and writes all samples so far to a file.
///
/// The file is written as a whole under another name and renamed, which is the one change of a file that nobody can
/// see half of: neither a reader, nor after SIGKILL. Rewriting its closing bytes in place would be cheaper, but a write
/// that crosses a page is cut short by a fatal signal between its pages, and a reader sees the bytes before the write
/// is done. What rewriting costs is bounded: a sample waits until all before it make up 1 % of the time that has passed
/// at most, and there are never more than `most_samples`.
class MemoryProfile {
public:
    using Clock = std::chrono::steady_clock;
    static constexpr std::chrono::milliseconds period{100};
    static constexpr int share = 100;  ///< samples take 1/share of the time at most
    /// Of about 1 kB each. Beyond it, every second sample is dropped; peaks are kept, since each sample carries them.
    static constexpr std::size_t most_samples = 2048;

    /// Writes the first sample. Throws unreadable where the file cannot be written.
    MemoryProfile(std::string path, const zse::AnyEngine& engine);

    /// Whether the next sample is due.
    [[nodiscard]] bool due(Clock::time_point now) const noexcept { return now >= next_; }
    /// Takes a sample and writes the file.
    void sample();

    [[nodiscard]] const std::string& path() const noexcept { return path_; }

private:
    void write() const;

    std::string path_;
    const zse::AnyEngine* engine_;
    std::string head_;
    std::vector<std::string> samples_;
    Clock::time_point start_, next_;
    Clock::duration spent_{};
};

}  // namespace zse_cli
