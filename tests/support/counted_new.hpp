// SPDX-License-Identifier: Apache-2.0
// Counts what a program takes from the heap. Replaces operator new, so only the one source of a test program includes it.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <new>

namespace support {

inline std::atomic<std::size_t> allocations{0};      ///< calls of operator new so far
inline std::atomic<std::size_t> allocated_bytes{0};  ///< asked of it so far

}  // namespace support

// Arrays come here too: the standard's operator new[] calls this one.
[[gnu::noinline]] void* operator new(std::size_t size) {
    support::allocations.fetch_add(1, std::memory_order_relaxed);
    support::allocated_bytes.fetch_add(size, std::memory_order_relaxed);
    if (void* const memory = std::malloc(size == 0 ? 1 : size)) return memory;
    throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* memory) noexcept {
    std::free(memory);
}
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept {
    std::free(memory);
}
