// SPDX-License-Identifier: Apache-2.0
// Which pages are free and who shares the others; and the pages of a sequence. Sizes are fixed at open, nothing is
// allocated afterwards.
#pragma once

#include <zse/core/error.hpp>
#include <zse/kv/keeping.hpp>
#include <zse/kv/page.hpp>
#include <zse/kv/tiered_pages.hpp>

#include <cstring>
#include <span>
#include <utility>

namespace zse::inline v1 {
namespace kv {

/// A stack of free page indices, and the number of sequences that hold each page.
class PagePool {
public:
    using Holders = std::uint16_t;

    PagePool() = default;
    /// `free` and `holders` are memory of the caller, `[pages]`. `base` are the pages themselves, `page_bytes` each;
    /// none where only their numbers matter.
    PagePool(std::span<PageIndex> free, std::span<Holders> holders, std::byte* base, Bytes page_bytes,
             PageMover* mover = nullptr) noexcept
        : free_(free),
          holders_(holders),
          count_(free.size()),
          base_(base),
          page_bytes_(page_bytes),
          mover_(mover) {
        for (std::size_t i = 0; i < free_.size(); ++i) {
            free_[i] = static_cast<PageIndex>(free_.size() - 1 - i);
            holders_[i] = 0;
        }
    }

    /// A pool whose pages lie in several tiers, which outlive it.
    PagePool(std::span<PageIndex> free, std::span<Holders> holders, TieredPages& tiers, Bytes page_bytes,
             PageMover* mover = nullptr) noexcept
        : PagePool(free, holders, nullptr, page_bytes, mover) {
        tiers_ = &tiers;
    }

    [[nodiscard]] std::size_t capacity() const noexcept { return free_.size() - retired_; }
    [[nodiscard]] std::size_t available() const noexcept { return count_; }
    [[nodiscard]] std::size_t used() const noexcept { return capacity() - count_; }
    [[nodiscard]] Bytes page_bytes() const noexcept { return page_bytes_; }
    [[nodiscard]] std::byte* base() const noexcept { return base_; }
    /// Where the pages lie, or null where they all lie behind base().
    [[nodiscard]] TieredPages* tiers() const noexcept { return tiers_; }
    /// The bytes of a page; of one in several tiers, while it is in memory.
    [[nodiscard]] std::byte* at(PageIndex page) const noexcept {
        return tiers_ != nullptr ? tiers_->at(page) : base_ + page * page_bytes_;
    }

    /// Layer `index` of all pages, whose layout is this.
    [[nodiscard]] LayerPages layer(const PageLayout& layout, std::uint32_t index) const noexcept {
        LayerPages pages{nullptr, layout.page_bytes(), layout};
        if (tiers_ != nullptr) {
            pages.places = tiers_->places();
            pages.layer_at = index * layout.layer_bytes();
            pages.staged = tiers_->staged(index);
            pages.staged_bytes = TieredPages::slice_bytes(layout);
        } else {
            pages.pool = base_ + index * layout.layer_bytes();
        }
        return pages;
    }
    /// Copies a page to host memory, or from there, and waits for it.
    void read(PageIndex page, std::span<std::byte> to) const noexcept {
        copy_bytes(to.data(), at(page));
        if (mover_ != nullptr) mover_->settle();
    }
    void write(PageIndex page, std::span<const std::byte> from) const noexcept {
        copy_bytes(at(page), from.data());
        if (mover_ != nullptr) mover_->settle();
    }

    /// A free page. The caller has checked available().
    PageIndex take() noexcept {
        const PageIndex page = free_[--count_];
        holders_[page] = 1;
        return page;
    }
    /// One more sequence holds the page.
    void share(PageIndex page) noexcept {
        ++holders_[page];
        if (tiers_ != nullptr) tiers_->count(page);
    }
    [[nodiscard]] bool shared(PageIndex page) const noexcept { return holders_[page] > 1; }
    [[nodiscard]] std::size_t holders(PageIndex page) const noexcept { return holders_[page]; }
    /// One sequence less holds the page; the last one frees it.
    void give_back(PageIndex page) noexcept {
        if (--holders_[page] != 0) return;
        if (tiers_ != nullptr) tiers_->forget(page);
        free_[count_++] = page;
    }
    /// A page of one's own with the bytes of a shared one, of which one sequence lets go. It is entry `entry` of both.
    PageIndex copy(PageIndex from, std::size_t entry = 0) noexcept {
        const PageIndex to = take();
        if (tiers_ != nullptr) {
            for (const PageIndex page : {from, to}) tiers_->pin(page, static_cast<std::uint32_t>(entry));
            for (const PageIndex page : {from, to}) tiers_->bring(page);
        }
        if (tiers_ != nullptr || base_ != nullptr) copy_bytes(at(to), at(from));
        give_back(from);
        return to;
    }
    /// Never gives out `pages` pages any more. All are free.
    void retire(std::size_t pages) noexcept {
        count_ -= pages;
        retired_ += pages;
    }

    /// Puts the free pages in another order, so that a test can show that placement changes no bit.
    void shuffle(std::uint64_t seed) noexcept {
        for (std::size_t i = count_; i > 1; --i) {
            seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
            std::swap(free_[i - 1], free_[(seed >> 33) % i]);
        }
    }

private:
    void copy_bytes(std::byte* to, const std::byte* from) const noexcept {
        if (mover_ != nullptr) {
            mover_->copy(to, from, page_bytes_);
        } else {
            std::memcpy(to, from, page_bytes_);
        }
    }

    std::span<PageIndex> free_;
    std::span<Holders> holders_;
    std::size_t count_ = 0;
    std::size_t retired_ = 0;
    std::byte* base_ = nullptr;
    Bytes page_bytes_ = 0;
    PageMover* mover_ = nullptr;  ///< none: the processor copies
    TieredPages* tiers_ = nullptr;
};

/// The pages of one sequence in one pool, in order of position, over memory of the caller.
class PageTable {
public:
    PageTable() = default;
    explicit PageTable(std::span<PageIndex> pages) noexcept : pages_(pages) {}

    [[nodiscard]] const PageIndex* data() const noexcept { return pages_.data(); }
    /// Entries; several may be one page (see Keeping).
    [[nodiscard]] std::size_t size() const noexcept { return count_; }
    [[nodiscard]] std::size_t capacity() const noexcept { return pages_.size(); }

    /// Free pages that growing to `entries` takes.
    [[nodiscard]] std::size_t missing(const Keeping& keeping, std::size_t entries) const noexcept {
        return own(keeping, entries) - own(keeping, count_);
    }
    /// Grows to `entries`. The caller has checked missing() and capacity().
    void grow(PagePool& pool, const Keeping& keeping, std::size_t entries) noexcept {
        for (; count_ < entries; ++count_) {
            pages_[count_] = keeping.own(count_) ? pool.take() : pages_[count_ - keeping.ring()];
        }
    }
    /// Gives back all pages beyond `entries`. Where pages were written again there is no way back but to none.
    void shrink(PagePool& pool, const Keeping& keeping, std::size_t entries) noexcept {
        while (count_ > entries) {
            --count_;
            if (keeping.own(count_)) pool.give_back(pages_[count_]);
        }
    }
    /// Holds the same pages as another table.
    void share(PagePool& pool, const Keeping& keeping, const PageTable& other) noexcept {
        for (count_ = 0; count_ < other.count_; ++count_) {
            pages_[count_] = other.pages_[count_];
            if (keeping.own(count_)) pool.share(pages_[count_]);
        }
    }
    /// Takes another sequence's page as its next one. Only where every page is one's own.
    void adopt(PagePool& pool, PageIndex page) noexcept {
        pool.share(page);
        pages_[count_++] = page;
    }
    /// Holds `page`, whose bytes are the same, in place of the page of an entry.
    void replace(PagePool& pool, std::size_t entry, PageIndex page) noexcept {
        pool.share(page);
        pool.give_back(std::exchange(pages_[entry], page));
    }
    /// Pages of entries [first, last) that others hold too. An entry beyond the table's end counts where it will be
    /// a page that is written again.
    [[nodiscard]] std::size_t shared(const PagePool& pool, const Keeping& keeping, std::size_t first,
                                     std::size_t last) const noexcept {
        const auto in = [&](std::size_t from, std::size_t to) {
            std::size_t found = 0;
            for (std::size_t i = from; i < to; ++i) {
                const std::size_t entry = keeping.first_entry(i);
                found += entry < count_ && pool.shared(pages_[entry]) ? 1 : 0;
            }
            return found;
        };
        const std::size_t sinks = std::min<std::size_t>(keeping.sink_pages(), last);
        // Beyond one ring the pages come again.
        std::size_t after = std::max(first, sinks);
        if (last > after && last - after > keeping.ring()) after = last - keeping.ring();
        return in(first, sinks) + in(after, last);
    }
    /// Makes the pages of entries [first, last) the sequence's own before they are written. The table has them all.
    void separate(PagePool& pool, std::size_t first, std::size_t last) noexcept {
        for (std::size_t i = first; i < last; ++i) {
            if (!pool.shared(pages_[i])) continue;
            const PageIndex from = pages_[i];
            const PageIndex to = pool.copy(from, i);
            for (std::size_t entry = 0; entry < count_; ++entry) {
                if (pages_[entry] == from) pages_[entry] = to;
            }
        }
    }

private:
    /// Entries below `entries` that are pages of their own: they come first.
    static std::size_t own(const Keeping& keeping, std::size_t entries) noexcept {
        return keeping.pages(std::uint64_t{entries} * keeping.page_tokens);
    }

    std::span<PageIndex> pages_;
    std::size_t count_ = 0;
};

}  // namespace kv
}  // namespace zse::inline v1
