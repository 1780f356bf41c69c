// SPDX-License-Identifier: Apache-2.0
// One ledger per process or engine: hard caps per tier, reserved before allocated, counted where memory is
// taken.
#pragma once

#include <zse/memory/plan.hpp>

#include <algorithm>
#include <limits>
#include <mutex>
#include <utility>

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

/// The pages of the system that an arena lies on. Which ones costs or gains speed and no bytes.
enum class Backing : std::uint8_t {
    plain,        ///< pages of 4 KiB
    transparent,  ///< huge pages were asked for, and the kernel gives them as it can
    huge,         ///< huge pages that were set aside (vm.nr_hugepages)
};

constexpr std::string_view name(Backing backing) noexcept {
    constexpr std::array<std::string_view, 3> names{"plain", "transparent", "huge"};
    return names[static_cast<std::size_t>(backing)];
}

/// The bytes that each tier may hold in all; a tier with 0 does not exist.
struct Caps {
    static constexpr Bytes unlimited = std::numeric_limits<Bytes>::max();

    Bytes gpu = unlimited;
    Bytes host = unlimited;
    Bytes disk = unlimited;

    [[nodiscard]] constexpr Bytes operator[](Tier tier) const noexcept {
        return tier == Tier::gpu ? gpu : (tier == Tier::host ? host : disk);
    }
    friend constexpr bool operator==(const Caps&, const Caps&) = default;
};

/// Counts bytes per tier and kind, and refuses what would break a tier's cap: caps count whole pages of the system,
/// since those are what a tier really holds. Thread-safe.
class Ledger {
public:
    Ledger() = default;
    explicit Ledger(const Caps& caps) noexcept : caps_(caps) {}
    Ledger(const Ledger&) = delete;
    Ledger& operator=(const Ledger&) = delete;

    /// Reserves an arena of `bytes`, or says how many bytes the tier lacks.
    Result<Reservation> reserve(Tier tier, Kind kind, Bytes bytes) {
        const std::lock_guard lock(mutex_);
        Side& side = sides_[index(tier)];
        const Bytes taken = side.reserved.total();
        const Bytes cap = caps_[tier];
        const Bytes free = cap > taken ? cap - taken : 0;
        const Bytes whole = arena_bytes(bytes);
        if (whole > free) {
            return Error(ErrorCode::out_of_memory,
                         text("tier ", name(tier), " has ", free, " bytes free of ", cap, ", but ",
                              name(kind), " needs ", whole, ", ", whole - free,
                              " more; raise its cap, shorten the context or use fewer bits"));
        }
        side.reserved[kind] += bytes;
        side.reserved[Kind::rounding] += whole - bytes;
        return Reservation(*this, tier, kind, bytes);
    }

    /// Bytes taken from the system now, rounding included.
    [[nodiscard]] TierPlan held(Tier tier) const {
        const std::lock_guard lock(mutex_);
        return sides_[index(tier)].held;
    }
    /// Bytes promised, taken or not.
    [[nodiscard]] TierPlan reserved(Tier tier) const {
        const std::lock_guard lock(mutex_);
        return sides_[index(tier)].reserved;
    }
    /// Bytes in use now, of those held.
    [[nodiscard]] TierPlan used(Tier tier) const {
        const std::lock_guard lock(mutex_);
        return sides_[index(tier)].used;
    }
    /// Most bytes of each kind in use at once since open or the last reset. Kinds that are handed out page by page or
    /// row by row count what was handed out; the others all that they hold.
    [[nodiscard]] TierPlan peak(Tier tier) const {
        const std::lock_guard lock(mutex_);
        return sides_[index(tier)].peak;
    }
    /// Begins to look for peaks anew, from what is in use now.
    void reset_peaks() {
        const std::lock_guard lock(mutex_);
        for (Side& side : sides_) side.peak = side.used;
    }
    /// The pages that the latest arena of a kind lies on.
    [[nodiscard]] Backing backing(Tier tier, Kind kind) const {
        const std::lock_guard lock(mutex_);
        return sides_[index(tier)].backing[static_cast<std::size_t>(kind)];
    }
    [[nodiscard]] const Caps& caps() const noexcept { return caps_; }

    /// Called by arenas where memory is mapped and unmapped, with the mapping's size.
    void took(Tier tier, Kind kind, Bytes asked, Bytes mapped, Backing backing) noexcept {
        const std::lock_guard lock(mutex_);
        Side& side = sides_[index(tier)];
        side.backing[static_cast<std::size_t>(kind)] = backing;
        side.held[kind] += asked;
        side.held[Kind::rounding] += mapped - asked;
    }
    void gave_back(Tier tier, Kind kind, Bytes asked, Bytes mapped) noexcept {
        const std::lock_guard lock(mutex_);
        Side& side = sides_[index(tier)];
        side.held[kind] -= asked;
        side.held[Kind::rounding] -= mapped - asked;
    }
    /// Of the bytes held, so many more (or fewer) are in use.
    void uses(Tier tier, Kind kind, std::int64_t more) noexcept {
        const std::lock_guard lock(mutex_);
        Side& side = sides_[index(tier)];
        side.used[kind] += static_cast<Bytes>(more);
        side.peak[kind] = std::max(side.peak[kind], side.used[kind]);
    }

private:
    friend class Reservation;
    struct Side {
        TierPlan reserved, held, used, peak;
        std::array<Backing, kind_count> backing{};
    };
    static constexpr std::size_t index(Tier tier) noexcept { return static_cast<std::size_t>(tier); }
    void release(Tier tier, Kind kind, Bytes bytes) noexcept {
        const std::lock_guard lock(mutex_);
        TierPlan& reserved = sides_[index(tier)].reserved;
        reserved[kind] -= bytes;
        reserved[Kind::rounding] -= arena_bytes(bytes) - bytes;
    }

    mutable std::mutex mutex_;
    Caps caps_;
    std::array<Side, tier_count> sides_{};
};

inline Reservation::~Reservation() {
    if (ledger_ != nullptr) ledger_->release(tier_, kind_, bytes_);
}

}  // namespace memory
}  // namespace zse::inline v1
