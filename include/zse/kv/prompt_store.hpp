// SPDX-License-Identifier: Apache-2.0
// Blocks of prompts on disk: found by their tokens, written and read by threads of their own. Knows no sequences. Sizes
// are fixed at open, nothing is allocated afterwards.
#pragma once

#include <zse/kv/prompt_tree.hpp>
#include <zse/memory/transfers.hpp>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

namespace zse::inline v1 {
namespace kv {

/// What a store did since it was opened. A block counts once, whatever pages it has.
struct PromptCounts {
    /// Which blocks give way where the file is full, and what is done with pages.
    static constexpr std::string_view eviction =
        "least recently used first, ends of prompts before their beginnings";
    static constexpr std::string_view writing = "every full page, while others are computed";
    static constexpr std::string_view fetching =
        "at admission, all that follow what memory has, where that comes sooner than computing them";

    std::uint64_t found = 0;     ///< blocks that were in the file when it was opened
    std::uint64_t written = 0;   ///< blocks whose bytes and record are in the file
    std::uint64_t fetched = 0;   ///< blocks that were read back, and were what they should be
    std::uint64_t evicted = 0;   ///< blocks that gave way to others
    std::uint64_t declined = 0;  ///< blocks that were computed, since reading them would have taken longer
    std::uint64_t damaged = 0;   ///< blocks that were not what they should be, and those behind them
    std::uint64_t skipped =
        0;  ///< blocks that were not written: they follow what is not there, or fill the file
};

/// Blocks in the slots of a file. A slot is written in this order: its old record is wiped, then come the pages, then
/// the new record. So a process that is killed leaves whole blocks and empty slots. What else may happen to a disk
/// (power fails, bits flip) shows in the checksum of the pages, which is compared before anybody sees them.
///
/// One thread calls; the pages are written by a thread of the store, in order, and read by several. Where the file can
/// no longer be read or written, the store is off from then on, and says why; whoever uses it computes instead.
class PromptStore {
public:
    using Slot = PromptTree::Slot;
    using Place = PromptPlace;
    static constexpr Slot none = PromptTree::none;

    enum class Put : std::uint8_t {
        taken,  ///< it will be written
        busy,   ///< too many wait to be written; try again later
        full,   ///< the blocks in front of it fill the file
    };

    /// Opens the file and makes the tree anew. `index` has room for tree_bytes(), `staging` is of staging_bytes() of
    /// the layout. Throws what PromptFile throws, and out_of_memory where the system refuses threads.
    PromptStore(memory::Reservation file, const std::filesystem::path& directory, const Identity& identity,
                const PromptLayout& layout, memory::Arena staging, memory::Carver& index)
        : file_(std::move(file), directory, identity, layout),
          layout_(layout),
          staging_(std::move(staging)),
          tree_(index, layout),
          writes_(layout.writes),
          reads_(PromptLayout::readers) {
        memory::Carver carver(staging_.bytes());
        for (Write& write : writes_) {
            write.slot = carver.take<std::byte>(layout.slot_bytes());
            write.record = carver.take<std::byte>(round_up(layout.record_bytes(), PromptLayout::block))
                               .first(layout.record_bytes());
        }
        for (Read& read : reads_) read.slots = carver.take<std::byte>(layout.read_bytes());
        staging_.uses(staging_.size());
        tree_.find_again(file_, staging_.bytes());
        counts_.found = tree_.size();
        // Pages are written with the padding that staging has: none of what was read.
        std::fill(staging_.bytes().begin(), staging_.bytes().end(), std::byte{0});
        note_use();
        writer_ = std::make_unique<memory::Transfers>(1, 2 * writes_.size());
        readers_ = std::make_unique<memory::Transfers>(PromptLayout::readers, reads_.size());
    }
    PromptStore(const PromptStore&) = delete;
    PromptStore& operator=(const PromptStore&) = delete;
    /// What waits to be written is written first.
    ~PromptStore() = default;

    [[nodiscard]] const PromptLayout& layout() const noexcept { return layout_; }
    [[nodiscard]] const PromptCounts& counts() const noexcept { return counts_; }
    /// Blocks in the file.
    [[nodiscard]] std::size_t blocks() const noexcept { return tree_.size(); }
    /// Whether the file could no longer be read or written; why, and what became of it.
    [[nodiscard]] bool off() const noexcept { return error_ != 0; }
    [[nodiscard]] std::string warning() const {
        if (!off()) return {};
        return text(file_.shown(), ": the prompt cache's file can no longer be ", failed_, " (",
                    std::strerror(error_), "); going on without it: check the disk");
    }

    /// The block of these tokens behind `parent` (none: at the beginning), or none.
    [[nodiscard]] Slot find(Slot parent, const std::int32_t* tokens) const noexcept {
        return off() ? none : tree_.find(parent, tokens);
    }
    /// Whether its pages are in the file already.
    [[nodiscard]] bool readable(Slot slot) const noexcept { return !tree_[slot].waits; }
    [[nodiscard]] Place place(Slot slot) const noexcept { return tree_.place(slot); }
    [[nodiscard]] bool holds(const Place& place) const noexcept { return tree_.holds(place); }
    /// The block and those in front of it were used now.
    void touch(Slot slot) noexcept { tree_.touch(slot); }

    /// Begins to write a block that find() does not find behind `parent`, which is in the file or none. copy(bytes)
    /// writes its pages, `[pages_bytes]`. `made` is where it is.
    template <class Copy>
    Put put(Slot parent, const std::int32_t* tokens, const Copy& copy, Place& made) noexcept {
        Write* const write = idle_write();
        if (write == nullptr) return Put::busy;
        const Slot slot = tree_.take(parent, counts_.evicted);
        if (slot == none) return Put::full;
        tree_.insert(slot, parent, tokens);
        made = tree_.place(slot);

        copy(write->slot.first(layout_.pages_bytes));
        PromptRecord record;
        record.magic = PromptRecord::written;
        record.generation = made.generation;
        record.parent = parent;
        record.parent_generation = parent == none ? 0 : tree_[parent].generation;
        record.page_tokens = layout_.page_tokens;
        std::fill(write->record.begin(), write->record.end(), std::byte{0});
        std::memcpy(write->record.data(), &record, sizeof record);
        std::memcpy(write->record.data() + sizeof record, tokens, layout_.page_tokens * sizeof(std::int32_t));
        write->made = made;
        write->busy = true;
        const auto number = static_cast<std::uint64_t>(write - writes_.data());
        writer_->submit({&file_.slots(), layout_.slot_at(slot), write->slot.data(), layout_.slot_bytes(),
                         true, &before_pages, this, number, &write->group});
        writer_->submit({&file_.records(), layout_.record_at(slot), write->record.data(),
                         layout_.record_bytes(), true, nullptr, nullptr, 0, &write->group});
        return Put::taken;
    }

    /// Takes note of what was written meanwhile. Never waits.
    void poll() noexcept {
        for (Write& write : writes_) {
            if (write.busy && write.group.done()) finish(write);
        }
        note_use();
    }
    /// Waits until one more block can be put, or the store is off.
    void wait_for_room() noexcept {
        if (idle_write() == nullptr) finish(writes_.front());
    }
    /// Waits until all that was put is in the file, or the store is off.
    void wait_for_writes() noexcept {
        for (Write& write : writes_) {
            if (write.busy) finish(write);
        }
        note_use();
    }

    /// Reads blocks of one path, each behind the one before it, and waits for them. Calls deliver(i, bytes), bytes
    /// `[pages_bytes]`, on threads of the store, for those that are what they should be. Returns how many of the first
    /// ones are. The next is forgotten, and those behind it, unless it only waits to be written.
    template <class Deliver>
    std::size_t read(std::span<const Slot> path, const Deliver& deliver) noexcept {
        if (off()) return 0;
        path = path.first(static_cast<std::size_t>(
            std::find_if(path.begin(), path.end(), [&](Slot slot) { return !readable(slot); }) -
            path.begin()));
        Reading<Deliver> reading{*this, path, deliver, path.size()};
        std::size_t turn = 0;
        for (std::size_t next = 0; next < path.size(); ++turn) {
            Read& read = reads_[turn % reads_.size()];
            wait(read, reading.good);
            std::size_t count = 1;
            while (count < layout_.read_slots && next + count < path.size() &&
                   path[next + count] == path[next] + count) {
                ++count;
            }
            read.first = next;
            readers_->submit({&file_.slots(), layout_.slot_at(path[next]), read.slots.data(),
                              count * layout_.slot_bytes(), false, &Reading<Deliver>::check, &reading, next,
                              &read.group});
            next += count;
        }
        for (Read& read : reads_) wait(read, reading.good);
        const std::size_t good = reading.good;
        counts_.fetched += good;
        if (good < path.size() && !off()) {
            counts_.damaged += tree_.forget_from(path[good]);
            std::ignore = wipe(path[good]);  // else it is found to be damaged again
        }
        return good;
    }

    void count_skipped() noexcept { ++counts_.skipped; }
    void count_declined(std::size_t blocks) noexcept { counts_.declined += blocks; }

private:
    struct Write {
        std::span<std::byte> slot;    ///< `[slot_bytes]`; the padding stays zero
        std::span<std::byte> record;  ///< `[record_bytes]`
        Place made;
        bool busy = false;
        memory::TransferGroup group;
    };
    struct Read {
        std::span<std::byte> slots;  ///< `[read_slots][slot_bytes]`
        std::size_t first = 0;       ///< of the path
        memory::TransferGroup group;
    };
    /// What threads need to know of a path that is read.
    template <class Deliver>
    struct Reading {
        const PromptStore& store;
        std::span<const Slot> path;
        const Deliver& deliver;
        std::atomic<std::size_t> good;  ///< blocks before the first that is not what it should be

        static int check(const memory::Transfer& t) noexcept {
            auto& reading = *static_cast<Reading*>(t.context);
            const PromptLayout& layout = reading.store.layout_;
            for (std::size_t i = 0; i < t.bytes / layout.slot_bytes(); ++i) {
                const PromptSlot& state = reading.store.tree_[reading.path[t.tag + i]];
                const std::span<const std::byte> bytes(t.memory + i * layout.slot_bytes(),
                                                       layout.pages_bytes);
                if (checksum(bytes, state.generation) == state.pages_checksum) {
                    reading.deliver(t.tag + i, bytes);
                } else {
                    lower(reading.good, t.tag + i);
                }
            }
            return 0;
        }
    };
    static void lower(std::atomic<std::size_t>& least, std::size_t value) noexcept {
        std::size_t now = least.load();
        while (value < now && !least.compare_exchange_weak(now, value)) {
        }
    }
    void wait(Read& read, std::atomic<std::size_t>& good) noexcept {
        if (const int error = read.group.wait(); error != 0) {
            lower(good, read.first);
            turn_off("read", error);
        }
    }

    /// On the writing thread, before the pages: completes the record, and wipes the slot's old one.
    static int before_pages(const memory::Transfer& t) noexcept {
        const auto& store = *static_cast<const PromptStore*>(t.context);
        const Write& write = store.writes_[t.tag];
        PromptRecord record;
        std::memcpy(&record, write.record.data(), sizeof record);
        record.pages_checksum = checksum(write.slot.first(store.layout_.pages_bytes), record.generation);
        std::memcpy(write.record.data(), &record, sizeof record);
        record.checksum = store.file_.checksum_of(write.record, write.made.slot);
        std::memcpy(write.record.data(), &record, sizeof record);
        return store.wipe(write.made.slot);
    }
    [[nodiscard]] int wipe(Slot slot) const noexcept {
        constexpr PromptRecord empty;
        return file_.records().write(layout_.record_at(slot), std::as_bytes(std::span(&empty, 1)));
    }
    /// Tells the ledger what of the file is in use.
    void note_use() noexcept { file_.uses(tree_.size() * (layout_.slot_bytes() + layout_.record_bytes())); }
    [[nodiscard]] Write* idle_write() noexcept {
        for (Write& write : writes_) {
            if (!write.busy) return &write;
        }
        return nullptr;
    }
    void finish(Write& write) noexcept {
        write.busy = false;
        const int error = write.group.wait();
        if (error != 0) return turn_off("written", error);
        if (!holds(write.made)) return;  // it gave way before it was written
        PromptRecord record;
        std::memcpy(&record, write.record.data(), sizeof record);
        tree_[write.made.slot].pages_checksum = record.pages_checksum;
        tree_[write.made.slot].waits = false;
        ++counts_.written;
    }
    void turn_off(const char* what, int error) noexcept {
        failed_ = what;
        error_ = error;
    }

    PromptFile file_;
    PromptLayout layout_;
    memory::Arena staging_;
    PromptTree tree_;
    PromptCounts counts_;
    const char* failed_ = "";
    int error_ = 0;
    std::vector<Write> writes_;
    std::vector<Read> reads_;
    std::unique_ptr<memory::Transfers> writer_, readers_;  // end first
};

}  // namespace kv
}  // namespace zse::inline v1
