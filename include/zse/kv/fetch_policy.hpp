// SPDX-License-Identifier: Apache-2.0
// Whether to read keys and values that were computed before or to compute them again: whichever came sooner lately. No
// clock.
#pragma once

#include <zse/core/bytes.hpp>

#include <cstdint>

namespace zse::inline v1 {
namespace kv {

/// Learns both rates from what it is told. Reading is worth it until both are known, so a first prompt after a restart is
/// always read.
class FetchPolicy {
public:
    /// Computing so many tokens of a prompt took so long.
    void computed(std::uint64_t tokens, double seconds) noexcept {
        if (tokens != 0) learn(token_seconds_, seconds / static_cast<double>(tokens));
    }
    /// Reading so many bytes took so long.
    void read(Bytes bytes, double seconds) noexcept {
        if (bytes != 0) learn(byte_seconds_, seconds / static_cast<double>(bytes));
    }
    /// Whether `bytes` are read sooner than `tokens` are computed. A disk that was too slow is trusted a little more each
    /// time, so that it is asked again some day.
    [[nodiscard]] bool worth_reading(Bytes bytes, std::uint64_t tokens) noexcept {
        if (byte_seconds_ == 0 || token_seconds_ == 0) return true;
        if (static_cast<double>(bytes) * byte_seconds_ <= static_cast<double>(tokens) * token_seconds_)
            return true;
        byte_seconds_ *= forgiveness;
        return false;
    }

private:
    static constexpr double forgiveness = 0.9;

    /// Half of what was known, half of what is new.
    static void learn(double& known, double now) noexcept { known = known == 0 ? now : (known + now) / 2; }

    double byte_seconds_ = 0;
    double token_seconds_ = 0;
};

}  // namespace kv
}  // namespace zse::inline v1
