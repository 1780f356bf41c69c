// SPDX-License-Identifier: Apache-2.0
// Host memory taken from the system in one piece, on a reservation; large pieces on huge pages where the system
// gives them.
#pragma once

#include <zse/memory/ledger.hpp>

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <memory>
#include <span>

namespace zse::inline v1 {
namespace memory {

/// Where memory comes from that the system's mappings cannot give: a GPU's own, and host memory that a GPU reaches.
class Source {
public:
    virtual ~Source() = default;
    /// Whether arenas of this kind in this tier are its business.
    [[nodiscard]] virtual bool gives(Tier tier, Kind kind) const noexcept = 0;
    /// `bytes` of zeros at a multiple of 4096; throws out_of_memory.
    virtual std::byte* take(Tier tier, Bytes bytes) = 0;
    virtual void give_back(Tier tier, std::byte* base, Bytes bytes) noexcept = 0;
};

/// How arenas are taken from the system.
struct Mapping {
    Backing best = Backing::transparent;  ///< tried first; then the next lower ones
    bool locked = false;                  ///< kept out of swap (mlock)
    std::shared_ptr<Source> source = {};  ///< outlives the arenas; none: all memory is the system's
};

/// One anonymous mapping, zeroed by the system, or the same from a Source, that the ledger counts. Move-only.
class Arena {
public:
    Arena() = default;

    /// Maps exactly arena_bytes() of the reservation; throws out_of_memory.
    explicit Arena(Reservation reservation, const Mapping& how = {}) : reservation_(std::move(reservation)) {
        if (reservation_.bytes() == 0) return;
        size_ = arena_bytes(reservation_.bytes());
        if (how.source != nullptr && how.source->gives(reservation_.tier(), reservation_.kind())) {
            source_ = how.source.get();
            base_ = source_->take(reservation_.tier(), size_);
        }
        if (base_ == nullptr && size_ >= huge_page && how.best == Backing::huge) map_huge();
        if (base_ == nullptr) map_small(how.best);
        if (source_ == nullptr && how.locked && ::mlock(base_, size_) != 0) {
            const int why = errno;
            ::munmap(base_, size_);
            throw Error(ErrorCode::out_of_memory,
                        text("the system refused to lock ", size_, " bytes for ", name(reservation_.kind()),
                             " in memory (", std::strerror(why),
                             "); raise the limit (ulimit -l), or leave --mlock out"));
        }
        note_taken();
    }
    Arena(Arena&& other) noexcept { swap(other); }
    Arena& operator=(Arena&& other) noexcept {
        Arena old(std::move(other));
        swap(old);
        return *this;
    }
    ~Arena() {
        if (base_ == nullptr) return;
        uses(0);
        reservation_.ledger()->gave_back(reservation_.tier(), reservation_.kind(), reservation_.bytes(),
                                         size_);
        if (source_ != nullptr) {
            source_->give_back(reservation_.tier(), base_, size_);
        } else {
            ::munmap(base_, size_);
        }
    }

    [[nodiscard]] std::byte* data() const noexcept { return base_; }
    [[nodiscard]] Bytes size() const noexcept { return reservation_.bytes(); }
    [[nodiscard]] std::span<std::byte> bytes() const noexcept { return {base_, size()}; }
    [[nodiscard]] Backing backing() const noexcept { return backing_; }

    /// Has the system put pages behind the first `bytes` now, and not when they are first written: that takes a
    /// millisecond for some MB. A system that cannot does it then.
    void populate(Bytes bytes) const noexcept {
#ifdef MADV_POPULATE_WRITE
        if (base_ != nullptr && source_ == nullptr && bytes != 0) {
            ::madvise(base_, round_up(std::min(bytes, size_), system_page), MADV_POPULATE_WRITE);
        }
#endif
    }
    /// Tells the ledger how many of the bytes are in use now: its peaks show whether a plan was too large.
    void uses(Bytes bytes) noexcept {
        if (bytes == used_ || reservation_.ledger() == nullptr) return;
        reservation_.ledger()->uses(reservation_.tier(), reservation_.kind(),
                                    static_cast<std::int64_t>(bytes) - static_cast<std::int64_t>(used_));
        used_ = bytes;
    }

private:
    static constexpr int anonymous = MAP_PRIVATE | MAP_ANONYMOUS;

    void note_taken() noexcept {
        reservation_.ledger()->took(reservation_.tier(), reservation_.kind(), reservation_.bytes(), size_,
                                    backing_);
    }
    /// On huge pages that were set aside; leaves no base where there are too few.
    void map_huge() noexcept {
        // MAP_POPULATE: a page that is missing shows now, and not as a fatal signal at its first use.
        void* mapped =
            ::mmap(nullptr, size_, PROT_READ | PROT_WRITE, anonymous | MAP_HUGETLB | MAP_POPULATE, -1, 0);
        if (mapped == MAP_FAILED) return;
        base_ = static_cast<std::byte*>(mapped);
        backing_ = Backing::huge;
    }
    void map_small(Backing best) {
        const bool huge = size_ >= huge_page && best != Backing::plain;
        // Mapping more than needed and giving back both ends is how an aligned address is had from mmap.
        const Bytes slack = huge ? huge_page : 0;
        void* mapped =
            ::mmap(nullptr, saturating_add(size_, slack), PROT_READ | PROT_WRITE, anonymous, -1, 0);
        if (mapped == MAP_FAILED) {
            throw Error(ErrorCode::out_of_memory,
                        text("the system refused ", size_, " bytes for ", name(reservation_.kind()),
                             "; free memory or plan a shorter context"));
        }
        auto address = reinterpret_cast<std::uintptr_t>(mapped);
        if (huge) {
            const std::uintptr_t aligned = round_up(address, huge_page);
            if (aligned > address) ::munmap(mapped, aligned - address);
            const Bytes tail = address + slack - aligned;
            if (tail > 0) ::munmap(reinterpret_cast<void*>(aligned + size_), tail);
            address = aligned;
            const bool asked = ::madvise(reinterpret_cast<void*>(address), size_, MADV_HUGEPAGE) == 0;
            backing_ = asked ? Backing::transparent : Backing::plain;
        }
        base_ = reinterpret_cast<std::byte*>(address);
    }
    void swap(Arena& other) noexcept {
        std::swap(reservation_, other.reservation_);
        std::swap(source_, other.source_);
        std::swap(base_, other.base_);
        std::swap(size_, other.size_);
        std::swap(used_, other.used_);
        std::swap(backing_, other.backing_);
    }

    Reservation reservation_;
    Source* source_ = nullptr;  ///< none: the system's
    std::byte* base_ = nullptr;
    Bytes size_ = 0;
    Bytes used_ = 0;
    Backing backing_ = Backing::plain;
};

/// Hands out aligned pieces of an arena one after the other; they are given back with the arena.
class Carver {
public:
    Carver() = default;
    explicit Carver(std::span<std::byte> bytes) noexcept : bytes_(bytes), size_(bytes.size()) {}

    /// `count` objects at a 64-byte boundary. The caller planned them; running out is a defect of the plan.
    template <class T>
    std::span<T> take(std::size_t count) {
        const Bytes need = footprint<T>(count);
        if (need > bytes_.size()) {
            throw Error(ErrorCode::internal,
                        text("the plan holds ", bytes_.size(), " bytes where ", need, " are needed"));
        }
        T* first = reinterpret_cast<T*>(bytes_.data());
        bytes_ = bytes_.subspan(need);
        return {first, count};
    }
    /// Bytes handed out so far.
    [[nodiscard]] Bytes taken() const noexcept { return size_ - bytes_.size(); }

    /// What take<T>(count) consumes: the plan's side of it.
    template <class T>
    static constexpr Bytes footprint(std::uint64_t count) noexcept {
        return round_up(saturating_mul(count, sizeof(T)), 64);
    }

private:
    std::span<std::byte> bytes_;
    Bytes size_ = 0;
};

}  // namespace memory
}  // namespace zse::inline v1
