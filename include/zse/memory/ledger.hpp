// SPDX-License-Identifier: Apache-2.0
// One ledger per process or engine: hard caps per tier, reserved before allocated, counted where memory is
// taken.
#pragma once

#include <zse/memory/plan.hpp>

#include <atomic>
#include <limits>
#include <mutex>

namespace zse::inline v1 {
namespace memory {

class Ledger;

/// The right to hold a number of bytes of one kind in one tier. Move-only; gives them back when it ends.
class Reservation {
public:
    Reservation() = default;
    Reservation(Reservation&& other) noexcept { swap(other); }
    Reservation& operator=(Reservation&& other) noexcept {
        Reservation old(std::move(other));
        swap(old);
        return *this;
    }
    ~Reservation();

    [[nodiscard]] Bytes bytes() const noexcept { return bytes_; }
    [[nodiscard]] Tier tier() const noexcept { return tier_; }
    [[nodiscard]] Kind kind() const noexcept { return kind_; }
    [[nodiscard]] Ledger* ledger() const noexcept { return ledger_; }

private:
    friend class Ledger;
    Reservation(Ledger& ledger, Tier tier, Kind kind, Bytes bytes) noexcept
        : ledger_(&ledger), tier_(tier), kind_(kind), bytes_(bytes) {}
    void swap(Reservation& other) noexcept {
        std::swap(ledger_, other.ledger_);
        std::swap(tier_, other.tier_);
        std::swap(kind_, other.kind_);
        std::swap(bytes_, other.bytes_);
    }

    Ledger* ledger_ = nullptr;
    Tier tier_ = Tier::host;
    Kind kind_ = Kind::control;
    Bytes bytes_ = 0;
};

/// Counts reserved and held bytes per tier and kind, and refuses what would break a tier's cap. Thread-safe.
class Ledger {
public:
    static constexpr Bytes uncapped = std::numeric_limits<Bytes>::max();

    explicit Ledger(Bytes host_cap = uncapped) noexcept { caps_[index(Tier::host)] = host_cap; }
    Ledger(const Ledger&) = delete;
    Ledger& operator=(const Ledger&) = delete;

    /// Reserves, or says how many bytes the tier lacks.
    Result<Reservation> reserve(Tier tier, Kind kind, Bytes bytes) {
        const std::lock_guard lock(mutex_);
        const Bytes taken = reserved_[index(tier)].total();
        const Bytes cap = caps_[index(tier)];
        const Bytes free = cap > taken ? cap - taken : 0;
        if (bytes > free) {
            return Error(
                ErrorCode::out_of_memory,
                text("tier ", name(tier), " has ", free, " bytes free of ", cap, ", but ", name(kind),
                     " needs ", bytes, "; raise its cap, shorten the context or use fewer bits"));
        }
        reserved_[index(tier)][kind] += bytes;
        return Reservation(*this, tier, kind, bytes);
    }

    /// Bytes that were really taken from the system, rounding included.
    [[nodiscard]] TierPlan held(Tier tier) const {
        const std::lock_guard lock(mutex_);
        return held_[index(tier)];
    }
    /// Bytes promised, taken or not.
    [[nodiscard]] TierPlan reserved(Tier tier) const {
        const std::lock_guard lock(mutex_);
        return reserved_[index(tier)];
    }
    /// Most bytes ever held at once in a tier.
    [[nodiscard]] Bytes peak(Tier tier) const {
        const std::lock_guard lock(mutex_);
        return peak_[index(tier)];
    }

    /// Called by arenas where memory is mapped and unmapped, with the mapping's size.
    void took(Tier tier, Kind kind, Bytes asked, Bytes mapped) noexcept {
        const std::lock_guard lock(mutex_);
        held_[index(tier)][kind] += asked;
        held_[index(tier)][Kind::rounding] += mapped - asked;
        const Bytes now = held_[index(tier)].total();
        if (now > peak_[index(tier)]) peak_[index(tier)] = now;
    }
    void gave_back(Tier tier, Kind kind, Bytes asked, Bytes mapped) noexcept {
        const std::lock_guard lock(mutex_);
        held_[index(tier)][kind] -= asked;
        held_[index(tier)][Kind::rounding] -= mapped - asked;
    }

private:
    friend class Reservation;
    static constexpr std::size_t index(Tier tier) noexcept { return static_cast<std::size_t>(tier); }
    void release(Tier tier, Kind kind, Bytes bytes) noexcept {
        const std::lock_guard lock(mutex_);
        reserved_[index(tier)][kind] -= bytes;
    }

    mutable std::mutex mutex_;
    std::array<Bytes, tier_count> caps_{uncapped, uncapped, uncapped};
    std::array<TierPlan, tier_count> reserved_{};
    std::array<TierPlan, tier_count> held_{};
    std::array<Bytes, tier_count> peak_{};
};

inline Reservation::~Reservation() {
    if (ledger_ != nullptr) ledger_->release(tier_, kind_, bytes_);
}

}  // namespace memory
}  // namespace zse::inline v1
