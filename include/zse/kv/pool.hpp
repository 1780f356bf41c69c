// SPDX-License-Identifier: Apache-2.0
// Which pages are free, and which pages a sequence has: sizes fixed at open, no allocation afterwards.
#pragma once

#include <zse/core/error.hpp>
#include <zse/kv/page.hpp>

#include <span>
#include <utility>

namespace zse::inline v1 {
namespace kv {

/// A stack of free page indices over memory of the caller, `[pages]`.
class PagePool {
public:
    explicit PagePool(std::span<PageIndex> free) noexcept : free_(free), count_(free.size()) {
        for (std::size_t i = 0; i < free_.size(); ++i)
            free_[i] = static_cast<PageIndex>(free_.size() - 1 - i);
    }

    [[nodiscard]] std::size_t capacity() const noexcept { return free_.size(); }
    [[nodiscard]] std::size_t available() const noexcept { return count_; }

    /// A free page. The caller has checked available().
    PageIndex take() noexcept { return free_[--count_]; }
    void give_back(PageIndex page) noexcept { free_[count_++] = page; }

    /// Puts the free pages in another order, so that a test can show that placement changes no bit.
    void shuffle(std::uint64_t seed) noexcept {
        for (std::size_t i = count_; i > 1; --i) {
            seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
            std::swap(free_[i - 1], free_[(seed >> 33) % i]);
        }
    }

private:
    std::span<PageIndex> free_;
    std::size_t count_;
};

/// The pages of one sequence, in order of position, over memory of the caller.
class PageTable {
public:
    PageTable() = default;
    PageTable(std::span<PageIndex> pages, std::uint32_t page_tokens) noexcept
        : pages_(pages), page_tokens_(page_tokens) {}

    /// Takes pages until `tokens` fit; false (and nothing taken) where the pool or the table has too few.
    bool extend(PagePool& pool, std::uint64_t tokens) noexcept {
        const std::uint64_t wanted = ceil_div(tokens, page_tokens_);
        if (wanted > pages_.size() || (wanted > count_ && wanted - count_ > pool.available())) return false;
        while (count_ < wanted) pages_[count_++] = pool.take();
        return true;
    }
    /// Gives back every page that holds no token below `tokens`.
    void truncate(PagePool& pool, std::uint64_t tokens) noexcept {
        const std::uint64_t kept = ceil_div(tokens, page_tokens_);
        while (count_ > kept) pool.give_back(pages_[--count_]);
    }
    void release(PagePool& pool) noexcept { truncate(pool, 0); }

    [[nodiscard]] const PageIndex* data() const noexcept { return pages_.data(); }
    [[nodiscard]] std::size_t size() const noexcept { return count_; }

private:
    std::span<PageIndex> pages_;
    std::uint32_t page_tokens_ = 16;
    std::size_t count_ = 0;
};

}  // namespace kv
}  // namespace zse::inline v1
