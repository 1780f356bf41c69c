// SPDX-License-Identifier: Apache-2.0
// Host memory taken from the system in one piece, on a reservation; large pieces on 2 MB pages where they
// exist.
#pragma once

#include <zse/memory/ledger.hpp>

#include <sys/mman.h>

#include <cstddef>
#include <span>

namespace zse::inline v1 {
namespace memory {

/// One anonymous mapping, zeroed by the system, that the ledger counts. Move-only.
class Arena {
public:
    /// A huge page: mappings of at least this size begin at a multiple of it, and ask for huge pages.
    static constexpr Bytes huge_page = MiB(2);

    Arena() = default;

    /// Maps exactly the reservation's bytes, rounded up to the system's page; throws out_of_memory.
    explicit Arena(Reservation reservation) : reservation_(std::move(reservation)) {
        if (reservation_.bytes() == 0) return;
        size_ = round_up(reservation_.bytes(), system_page);
        const bool huge = size_ >= huge_page;
        // Mapping more than needed and giving back both ends is how an aligned address is had from mmap.
        const Bytes slack = huge ? huge_page : 0;
        void* mapped = ::mmap(nullptr, saturating_add(size_, slack), PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
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
            ::madvise(reinterpret_cast<void*>(address), size_,
                      MADV_HUGEPAGE);  // a hint: refusal costs speed only
        }
        base_ = reinterpret_cast<std::byte*>(address);
        reservation_.ledger()->took(reservation_.tier(), reservation_.kind(), reservation_.bytes(), size_);
    }
    Arena(Arena&& other) noexcept { swap(other); }
    Arena& operator=(Arena&& other) noexcept {
        Arena old(std::move(other));
        swap(old);
        return *this;
    }
    ~Arena() {
        if (base_ == nullptr) return;
        reservation_.ledger()->gave_back(reservation_.tier(), reservation_.kind(), reservation_.bytes(),
                                         size_);
        ::munmap(base_, size_);
    }

    [[nodiscard]] std::byte* data() const noexcept { return base_; }
    [[nodiscard]] Bytes size() const noexcept { return reservation_.bytes(); }
    [[nodiscard]] std::span<std::byte> bytes() const noexcept { return {base_, size()}; }

private:
    void swap(Arena& other) noexcept {
        std::swap(reservation_, other.reservation_);
        std::swap(base_, other.base_);
        std::swap(size_, other.size_);
    }

    Reservation reservation_;
    std::byte* base_ = nullptr;
    Bytes size_ = 0;
};

/// Hands out aligned pieces of an arena one after the other; they are given back with the arena.
class Carver {
public:
    explicit Carver(std::span<std::byte> bytes) noexcept : bytes_(bytes) {}

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

    /// What take<T>(count) consumes: the plan's side of it.
    template <class T>
    static constexpr Bytes footprint(std::uint64_t count) noexcept {
        return round_up(saturating_mul(count, sizeof(T)), 64);
    }

private:
    std::span<std::byte> bytes_;
};

}  // namespace memory
}  // namespace zse::inline v1
