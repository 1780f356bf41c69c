// SPDX-License-Identifier: Apache-2.0
// A flat hash table from 64-bit keys to 64-bit values: filled once, then only read.
#pragma once

#include <zse/core/version.hpp>

#include <cstddef>
#include <cstdint>
#include <memory_resource>
#include <random>
#include <vector>

namespace zse::inline v1 {
namespace tokenizer {
namespace detail {

/// Finaliser of SplitMix64 (Steele, Lea, Flood 2014): a bijection that spreads every bit.
constexpr std::uint64_t mix(std::uint64_t x) noexcept {
    x ^= x >> 30;
    x *= 0xbf58476d1ce4e5b9u;
    x ^= x >> 27;
    x *= 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

/// A start value that a file cannot know, so that it cannot choose keys which all fall into one place.
inline std::uint64_t random_seed() {
    std::random_device device;
    return (std::uint64_t{device()} << 32) | device();
}

/// Slots for `count` entries: a power of two, at most two thirds full.
constexpr std::size_t slots_for(std::size_t count) noexcept {
    std::size_t slots = 16;
    while (slots < count + count / 2 + 1) slots *= 2;
    return slots;
}

/// Open addressing with linear probing; 16 bytes a slot, no deletion.
class FlatMap {
    struct Slot {
        std::uint64_t key = ~std::uint64_t{0};
        std::uint64_t value = 0;
    };

public:
    static constexpr std::uint64_t no_key = ~std::uint64_t{0};

    FlatMap() : FlatMap(0) {}
    explicit FlatMap(std::size_t expected,
                     std::pmr::memory_resource* memory = std::pmr::get_default_resource())
        : slots_(slots_for(expected), memory), seed_(random_seed()) {}

    /// Memory of a map that is made for `expected` entries and gets no more.
    static constexpr std::size_t footprint(std::size_t expected) noexcept {
        return slots_for(expected) * sizeof(Slot);
    }

    /// Adds the pair where the key (never no_key) is new; returns the value that stands under it.
    std::uint64_t insert(std::uint64_t key, std::uint64_t value) {
        if ((used_ + 1) * 3 > slots_.size() * 2) grow();
        Slot& slot = slots_[position(key)];
        if (slot.key == no_key) {
            slot = {key, value};
            ++used_;
        }
        return slot.value;
    }

    /// The value under the key, or nullptr.
    [[nodiscard]] const std::uint64_t* find(std::uint64_t key) const noexcept {
        const Slot& slot = slots_[position(key)];
        return slot.key == no_key ? nullptr : &slot.value;
    }

    [[nodiscard]] std::size_t size() const noexcept { return used_; }
    /// Heap memory held.
    [[nodiscard]] std::size_t bytes() const noexcept { return slots_.capacity() * sizeof(Slot); }

private:
    [[nodiscard]] std::size_t position(std::uint64_t key) const noexcept {
        const std::size_t mask = slots_.size() - 1;
        std::size_t at = static_cast<std::size_t>(mix(key ^ seed_)) & mask;
        while (slots_[at].key != no_key && slots_[at].key != key) at = (at + 1) & mask;
        return at;
    }

    void grow() {
        std::pmr::vector<Slot> old(slots_.size() * 2, slots_.get_allocator());
        old.swap(slots_);
        for (const Slot& slot : old) {
            if (slot.key != no_key) slots_[position(slot.key)] = slot;
        }
    }

    std::pmr::vector<Slot> slots_;
    std::uint64_t seed_;
    std::size_t used_ = 0;
};

}  // namespace detail
}  // namespace tokenizer
}  // namespace zse::inline v1
