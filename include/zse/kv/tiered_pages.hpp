// SPDX-License-Identifier: Apache-2.0
// Pages of a pool that is larger than one tier: where each lies, which give way, and how they come back. Sizes are fixed
// at open, nothing is allocated afterwards.
#pragma once

#include <zse/core/checksum.hpp>
#include <zse/exec/executor.hpp>
#include <zse/kv/mover.hpp>
#include <zse/kv/page.hpp>
#include <zse/memory/arena.hpp>
#include <zse/memory/transfers.hpp>

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <span>
#include <string_view>

namespace zse::inline v1 {
namespace kv {

/// Which pages give way first where a tier is full. Pages that the step writes never do.
enum class Eviction : std::uint8_t {
    lru,   ///< the least recently used; of those used at once, the earliest tokens of a sequence
    cost,  ///< the least of (times that a sequence began to use it) times (what computing it again takes)
};

constexpr std::string_view name(Eviction eviction) noexcept {
    return eviction == Eviction::lru ? "lru" : "cost";
}

/// Pages of a pool in each tier.
struct TierPages {
    std::uint64_t first = 0;  ///< in the tier of the layers: gpu, or host
    std::uint64_t host = 0;   ///< what the gpu tier does not hold
    std::uint64_t disk = 0;   ///< what neither holds

    [[nodiscard]] constexpr std::uint64_t memory() const noexcept { return first + host; }
    [[nodiscard]] constexpr std::uint64_t total() const noexcept { return first + host + disk; }
    [[nodiscard]] constexpr bool spread() const noexcept { return host != 0 || disk != 0; }
};

/// Pages that changed their tier since open, and what attention read from disk without moving it.
struct TierTraffic {
    Eviction policy = Eviction::lru;    ///< by which pages gave way
    std::uint64_t spilled_to_host = 0;  ///< pages from the gpu tier
    std::uint64_t spilled_to_disk = 0;
    std::uint64_t fetched_from_host = 0;  ///< pages back to the gpu tier
    std::uint64_t fetched_from_disk = 0;  ///< pages back to memory
    std::uint64_t staged_bytes = 0;       ///< read from disk for a step that attends to them

    constexpr TierTraffic& operator+=(const TierTraffic& other) noexcept {
        policy = other.policy;
        spilled_to_host += other.spilled_to_host;
        spilled_to_disk += other.spilled_to_disk;
        fetched_from_host += other.fetched_from_host;
        fetched_from_disk += other.fetched_from_disk;
        staged_bytes += other.staged_bytes;
        return *this;
    }
};

/// Gives each page of a pool a frame in some tier. New pages begin in the first tier; where it is full, the page that
/// gives way goes one tier down, and on from there. Attention reads pages in memory where they lie. Those on disk pass
/// through two buffers, layer by layer, the next layer being read while one is computed.
///
/// On disk, a layer of all pages lies together, so that a layer is read in long stretches. Every layer of every page has
/// a checksum in memory: what comes back is what went out, or failed() says so.
class TieredPages {
public:
    /// Memory of the caller.
    struct Parts {
        std::byte* first = nullptr;               ///< `[first][page_bytes]`
        std::byte* host = nullptr;                ///< `[host][page_bytes]`
        const memory::DiskArena* disk = nullptr;  ///< disk_bytes()
        std::byte* staging = nullptr;             ///< staging_bytes(), at a multiple of DiskArena::block
        memory::Transfers* transfers = nullptr;
        PageMover* mover = nullptr;  ///< none: the processor copies
    };

    /// `spare` frames in memory stay free for the next step where pages come back.
    TieredPages(memory::Carver& carver, const PageLayout& layout, const TierPages& tiers, const Parts& parts,
                Eviction eviction, std::uint64_t spare)
        : layout_(layout),
          tiers_(tiers),
          parts_(parts),
          mover_(parts.mover != nullptr ? parts.mover : &own_mover_),
          eviction_(eviction),
          spare_(spare),
          places_(carver.take<PagePlace>(tiers.total())),
          uses_(carver.take<Use>(tiers.total())),
          owners_(carver.take<PageIndex>(tiers.memory())),
          sums_(carver.take<std::uint64_t>(tiers.disk * layout.layers)),
          needed_(carver.take<std::uint32_t>(tiers.disk)),
          runs_(carver.take<Run>(tiers.disk)) {
        traffic_.policy = eviction;
        std::fill(places_.begin(), places_.end(), nowhere);
        std::fill(uses_.begin(), uses_.end(), Use{});
        std::fill(needed_.begin(), needed_.end(), 0);
        const std::array<std::uint64_t, 3> counts{tiers.first, tiers.host, tiers.disk};
        for (std::size_t tier = 0; tier < counts.size(); ++tier) {
            free_[tier] = carver.take<std::uint32_t>(counts[tier]);
            for (std::size_t i = 0; i < counts[tier]; ++i) {
                free_[tier][i] = static_cast<std::uint32_t>(counts[tier] - 1 - i);
            }
            available_[tier] = counts[tier];
        }
    }
    TieredPages(const TieredPages&) = delete;
    TieredPages& operator=(const TieredPages&) = delete;
    /// Waits for what is under way to memory or from it.
    ~TieredPages() {
        for (memory::TransferGroup& group : reads_) group.wait();
        for (memory::TransferGroup& group : writes_) group.wait();
    }

    /// Bytes of the tables, and of what Parts wants.
    static constexpr Bytes table_bytes(const PageLayout& layout, const TierPages& tiers) noexcept {
        using memory::Carver;
        if (!tiers.spread()) return 0;
        return Carver::footprint<PagePlace>(tiers.total()) + Carver::footprint<Use>(tiers.total()) +
               Carver::footprint<PageIndex>(tiers.memory()) +
               Carver::footprint<std::uint64_t>(saturating_mul(tiers.disk, layout.layers)) +
               Carver::footprint<std::uint32_t>(tiers.disk) + Carver::footprint<Run>(tiers.disk) +
               Carver::footprint<std::uint32_t>(tiers.first) + Carver::footprint<std::uint32_t>(tiers.host) +
               Carver::footprint<std::uint32_t>(tiers.disk);
    }
    /// A layer of a page on disk, in whole blocks.
    static constexpr Bytes slice_bytes(const PageLayout& layout) noexcept {
        return round_up(layout.layer_bytes(), memory::DiskArena::block);
    }
    static constexpr Bytes disk_bytes(const PageLayout& layout, const TierPages& tiers) noexcept {
        return saturating_mul(saturating_mul(tiers.disk, layout.layers), slice_bytes(layout));
    }
    /// One layer of all pages on disk, twice, and the pages that are on their way there.
    static constexpr Bytes staging_bytes(const PageLayout& layout, const TierPages& tiers) noexcept {
        if (tiers.disk == 0) return 0;
        return saturating_mul(2 * tiers.disk + write_buffers * layout.layers, slice_bytes(layout));
    }

    [[nodiscard]] const PagePlace* places() const noexcept { return places_.data(); }
    /// Where a layer of the pages on disk is while it is attended to, by slot.
    [[nodiscard]] std::byte* staged(std::uint32_t layer) const noexcept {
        return parts_.staging + (layer % 2) * tiers_.disk * slice();
    }
    [[nodiscard]] const TierPages& tiers() const noexcept { return tiers_; }
    [[nodiscard]] const TierTraffic& traffic() const noexcept { return traffic_; }
    /// Frames in use: of the first tier, of the host's, on disk.
    [[nodiscard]] std::array<std::uint64_t, 3> used() const noexcept {
        return {tiers_.first - available_[0], tiers_.host - available_[1], tiers_.disk - available_[2]};
    }
    /// Bytes of the staging that a step used so far.
    [[nodiscard]] Bytes staging_used() const noexcept {
        if (tiers_.disk == 0) return 0;
        return (2 * most_needed_ +
                std::min<std::uint64_t>(traffic_.spilled_to_disk, write_buffers) * layout_.layers) *
               slice();
    }
    /// Whether bytes did not come back from disk as they went. Whatever was computed since is void.
    [[nodiscard]] bool failed() const noexcept { return failed_ || mover_->failed(); }
    /// The disk is not used any more. No page is in use.
    void close_disk() noexcept {
        for (memory::TransferGroup& group : reads_) group.wait();
        for (memory::TransferGroup& group : writes_) group.wait();
        available_[2] = 0;
        failed_ = false;
        closed_ = true;
    }
    [[nodiscard]] bool closed() const noexcept { return closed_; }

    /// From here on pages are pinned and used for a new step.
    void begin_step() noexcept { ++step_; }
    /// The step reads the page.
    void touch(PageIndex page) noexcept { uses_[page].last = step_; }
    /// One sequence more begins to use the page.
    void count(PageIndex page) noexcept { ++uses_[page].times; }
    /// The step writes the page, which is entry `entry` of its sequence: it gives way to no other.
    void pin(PageIndex page, std::uint32_t entry) noexcept {
        uses_[page].last = uses_[page].pinned = step_;
        uses_[page].entry = entry;
    }
    /// The page, entry `entry` of its sequence, is filled now with what was computed before: it lies in memory until others
    /// need the room.
    void fill(PageIndex page, std::uint32_t entry) noexcept {
        uses_[page].last = step_;
        uses_[page].entry = entry;
        bring(page);
    }
    /// Pages that could be put in memory without others leaving it.
    [[nodiscard]] std::uint64_t free_in_memory() const noexcept { return available_[0] + available_[1]; }
    [[nodiscard]] bool in_memory(PageIndex page) const noexcept {
        return places_[page] != nowhere && !on_disk(places_[page]);
    }
    /// Puts a pinned page in memory.
    void bring(PageIndex page) noexcept {
        if (on_disk(places_[page])) {
            fetch(page);
        } else if (places_[page] == nowhere) {
            const Frame frame = make_room(0);
            if (frame == no_frame) return fail();
            put(page, frame);
        }
    }
    /// A page in memory.
    [[nodiscard]] std::byte* at(PageIndex page) const noexcept {
        return reinterpret_cast<std::byte*>(places_[page]);
    }
    /// Nobody holds the page any more.
    void forget(PageIndex page) noexcept {
        leave(page);
        uses_[page] = Use{};
    }

    /// The step attends to the page. Where there is room, it comes back to a faster tier.
    void need(PageIndex page) noexcept {
        const PagePlace place = places_[page];
        if (on_disk(place)) {
            if (returned_ < most_returned && available_[0] + available_[1] > spare_) {
                ++returned_;
                return fetch(page);
            }
            needed_[slot(place)] = step_;
        } else if (tiers_.host != 0 && returned_ < most_returned && available_[0] > spare_ &&
                   frame_of(place) >= tiers_.first) {
            ++returned_;
            const Frame frame = make_room(0);
            mover_->copy(address(frame), at(page), layout_.page_bytes());
            leave(page);
            put(page, frame);
            ++traffic_.fetched_from_host;
        }
    }
    /// All pages that the step needs were named: reads the first layer of those on disk.
    void start() noexcept {
        returned_ = 0;
        run_count_ = 0;
        std::uint64_t needed = 0;
        for (std::uint32_t s = 0; s < needed_.size(); ++s) {
            if (needed_[s] != step_) continue;
            ++needed;
            const bool goes_on = run_count_ != 0 && runs_[run_count_ - 1].end == s &&
                                 s - runs_[run_count_ - 1].first < most_run();
            if (goes_on) {
                runs_[run_count_ - 1].end = s + 1;
            } else {
                runs_[run_count_++] = {s, s + 1};
            }
        }
        most_needed_ = std::max(most_needed_, needed);
        if (run_count_ == 0) return;
        wait_for_writes();
        read(0);
    }
    /// Waits until a layer of the pages on disk is staged, and begins to read the next. All threads are done with the
    /// layer before it.
    void arrive(std::uint32_t layer) noexcept {
        if (run_count_ == 0) return;
        if (reads_[layer % 2].wait() != 0) fail();
        if (layer + 1 < layout_.layers) read(layer + 1);
    }

private:
    using Frame = std::uint64_t;  ///< of memory: those of the first tier, then the host's; then slots on disk
    static constexpr Frame no_frame = ~Frame{0};
    static constexpr PagePlace nowhere = 0;
    static constexpr std::size_t write_buffers = 4;
    /// Pages that come back in one step: few, so that no step waits long.
    static constexpr std::uint32_t most_returned = 8;
    /// Bytes of one read: a disk reads longer ones no faster, and shorter ones share the threads better.
    static constexpr Bytes most_read = MiB(1);

    struct Use {
        std::uint32_t last = 0;    ///< step
        std::uint32_t pinned = 0;  ///< step
        std::uint32_t entry = 0;   ///< among the pages of its sequence
        std::uint32_t times = 1;
    };
    /// Slots on disk that lie together: [first, end).
    struct Run {
        std::uint32_t first;
        std::uint32_t end;
    };

    [[nodiscard]] Bytes slice() const noexcept { return slice_bytes(layout_); }
    [[nodiscard]] std::uint64_t most_run() const noexcept { return std::max<Bytes>(most_read / slice(), 1); }
    [[nodiscard]] static std::uint32_t slot(PagePlace place) noexcept {
        return static_cast<std::uint32_t>(place & ~place_on_disk);
    }
    [[nodiscard]] static bool on_disk(PagePlace place) noexcept { return (place & place_on_disk) != 0; }
    [[nodiscard]] std::byte* address(Frame frame) const noexcept {
        return frame < tiers_.first ? parts_.first + frame * layout_.page_bytes()
                                    : parts_.host + (frame - tiers_.first) * layout_.page_bytes();
    }
    [[nodiscard]] Frame frame_of(PagePlace place) const noexcept {
        const auto* const at = reinterpret_cast<const std::byte*>(place);
        const Bytes bytes = layout_.page_bytes();
        if (at >= parts_.first && at < parts_.first + tiers_.first * bytes) {
            return static_cast<Frame>(at - parts_.first) / bytes;
        }
        return tiers_.first + static_cast<Frame>(at - parts_.host) / bytes;
    }
    void fail() noexcept { failed_ = true; }
    void wait_for_writes() noexcept {
        for (memory::TransferGroup& group : writes_) {
            if (group.wait() != 0) fail();
        }
    }

    void put(PageIndex page, Frame frame) noexcept {
        places_[page] = reinterpret_cast<PagePlace>(address(frame));
        owners_[frame] = page;
    }
    /// Frees the page's frame.
    void leave(PageIndex page) noexcept {
        const PagePlace place = std::exchange(places_[page], nowhere);
        if (place == nowhere) return;
        if (on_disk(place)) {
            if (!closed_) free_[2][available_[2]++] = slot(place);
            return;
        }
        const Frame frame = frame_of(place);
        const std::size_t tier = frame < tiers_.first ? 0 : 1;
        free_[tier][available_[tier]++] =
            static_cast<std::uint32_t>(tier == 0 ? frame : frame - tiers_.first);
        owners_[frame] = none;
    }

    /// A frame in `tier` or, where all its pages are pinned, below it; pages give way for it. There is one, since a
    /// pool has as many frames as pages.
    Frame make_room(std::size_t tier) noexcept {
        if (available_[tier] > 0) {
            const std::uint32_t index = free_[tier][--available_[tier]];
            return tier == 1 ? tiers_.first + index : index;
        }
        if (tier == 2) return no_frame;
        const PageIndex victim = coldest(tier);
        if (victim == none) return tier == 0 ? make_room(1) : no_frame;
        const Frame freed = frame_of(places_[victim]);
        if (tier == 0 && tiers_.host != 0) {
            const Frame below = make_room(1);
            if (below == no_frame) return no_frame;
            mover_->copy(address(below), address(freed), layout_.page_bytes());
            put(victim, below);
            ++traffic_.spilled_to_host;
        } else {
            const Frame below = make_room(2);
            if (below == no_frame) return no_frame;
            write(victim, static_cast<std::uint32_t>(below));
        }
        owners_[freed] = none;
        return freed;
    }
    /// The page of a tier that gives way first, or none.
    [[nodiscard]] PageIndex coldest(std::size_t tier) const noexcept {
        const std::uint64_t begin = tier == 0 ? 0 : tiers_.first;
        const std::uint64_t end = tier == 0 ? tiers_.first : tiers_.memory();
        PageIndex found = none;
        for (std::uint64_t frame = begin; frame < end; ++frame) {
            const PageIndex page = owners_[frame];
            if (page == none || uses_[page].pinned == step_) continue;
            if (found == none || colder(uses_[page], uses_[found])) found = page;
        }
        return found;
    }
    [[nodiscard]] bool colder(const Use& a, const Use& b) const noexcept {
        if (eviction_ == Eviction::cost) {
            // Later tokens cost more to compute, since they attend to those before them.
            const auto worth = [](const Use& use) { return std::uint64_t{use.times} * (use.entry + 64); };
            if (worth(a) != worth(b)) return worth(a) < worth(b);
        }
        return a.last != b.last ? a.last < b.last : a.entry < b.entry;
    }

    /// Copies a page to a buffer, from where threads write it to its slot.
    void write(PageIndex page, std::uint32_t to) noexcept {
        for (std::size_t i = 0; i < write_buffers; ++i) {  // what was there before may still be on its way
            if (written_[i] == to && writes_[i].wait() != 0) fail();
        }
        std::byte* const buffer = next_buffer();
        written_[buffer_] = to;
        for (std::uint32_t layer = 0; layer < layout_.layers; ++layer) {
            mover_->copy(buffer + layer * slice(), at(page) + layer * layout_.layer_bytes(),
                         layout_.layer_bytes());
        }
        mover_->settle();
        for (std::uint32_t layer = 0; layer < layout_.layers; ++layer) {
            std::byte* const from = buffer + layer * slice();
            sum(to, layer) = checksum({from, layout_.layer_bytes()}, seed(to, layer));
            parts_.transfers->submit({parts_.disk, offset(layer, to), from, slice(), true, nullptr, nullptr,
                                      0, &writes_[buffer_]});
        }
        places_[page] = place_on_disk | to;
        ++traffic_.spilled_to_disk;
    }
    /// Brings a page back from disk. Its slot is free before it needs a frame: every other one may be in use.
    void fetch(PageIndex page) noexcept {
        wait_for_writes();
        std::byte* const buffer = next_buffer();
        const std::uint32_t from = slot(places_[page]);
        memory::TransferGroup& group = writes_[buffer_];
        for (std::uint32_t layer = 0; layer < layout_.layers; ++layer) {
            parts_.transfers->submit({parts_.disk, offset(layer, from), buffer + layer * slice(), slice(),
                                      false, &TieredPages::verify, this, layer, &group});
        }
        if (group.wait() != 0) fail();
        leave(page);
        const Frame frame = make_room(0);
        if (frame == no_frame) return fail();
        put(page, frame);
        for (std::uint32_t layer = 0; layer < layout_.layers; ++layer) {
            mover_->copy(at(page) + layer * layout_.layer_bytes(), buffer + layer * slice(),
                         layout_.layer_bytes());
        }
        ++traffic_.fetched_from_disk;
    }
    /// The buffer that was given out longest ago, after its writes.
    std::byte* next_buffer() noexcept {
        buffer_ = (buffer_ + 1) % write_buffers;
        mover_->settle();
        if (writes_[buffer_].wait() != 0) fail();
        return parts_.staging + (2 * tiers_.disk + buffer_ * layout_.layers) * slice();
    }

    void read(std::uint32_t layer) noexcept {
        for (std::uint64_t i = 0; i < run_count_; ++i) {
            const Run& run = runs_[i];
            const Bytes bytes = (run.end - run.first) * slice();
            parts_.transfers->submit({parts_.disk, offset(layer, run.first),
                                      staged(layer) + run.first * slice(), bytes, false, &TieredPages::verify,
                                      this, layer, &reads_[layer % 2]});
            traffic_.staged_bytes += bytes;
        }
    }
    static int verify(const memory::Transfer& transfer) noexcept {
        const auto& self = *static_cast<const TieredPages*>(transfer.context);
        const auto layer = static_cast<std::uint32_t>(transfer.tag);
        const std::uint64_t first = transfer.offset / self.slice() - layer * self.tiers_.disk;
        for (std::uint64_t i = 0; i < transfer.bytes / self.slice(); ++i) {
            const auto s = static_cast<std::uint32_t>(first + i);
            const std::byte* const bytes = transfer.memory + i * self.slice();
            if (checksum({bytes, self.layout_.layer_bytes()}, seed(s, layer)) != self.sum(s, layer))
                return EBADMSG;
        }
        return 0;
    }
    [[nodiscard]] Bytes offset(std::uint32_t layer, std::uint64_t s) const noexcept {
        return (layer * tiers_.disk + s) * slice();
    }
    /// Bytes of another place on disk have another checksum.
    static std::uint64_t seed(std::uint32_t s, std::uint32_t layer) noexcept {
        return std::uint64_t{layer} << 32 | s;
    }
    [[nodiscard]] std::uint64_t& sum(std::uint32_t s, std::uint32_t layer) const noexcept {
        return sums_[std::size_t{s} * layout_.layers + layer];
    }

    static constexpr PageIndex none = ~PageIndex{0};

    PageLayout layout_;
    TierPages tiers_;
    Parts parts_;
    PageMover own_mover_;
    PageMover* mover_;
    Eviction eviction_;
    std::uint64_t spare_;
    std::span<PagePlace> places_;      ///< `[pages]`
    std::span<Use> uses_;              ///< `[pages]`
    std::span<PageIndex> owners_;      ///< `[frames in memory]`
    std::span<std::uint64_t> sums_;    ///< `[slots][layers]`
    std::span<std::uint32_t> needed_;  ///< `[slots]`, the step that attends to it
    std::span<Run> runs_;              ///< of the step
    std::array<std::span<std::uint32_t>, 3> free_;
    std::array<std::uint64_t, 3> available_{};
    std::uint64_t run_count_ = 0;
    std::uint64_t most_needed_ = 0;
    std::uint32_t step_ = 1;
    std::uint32_t returned_ = 0;
    std::size_t buffer_ = 0;
    bool failed_ = false;
    bool closed_ = false;
    std::array<memory::TransferGroup, 2> reads_;
    std::array<memory::TransferGroup, write_buffers> writes_;
    std::array<std::uint32_t, write_buffers> written_{};  ///< slot that a buffer went to last
    TierTraffic traffic_;
};

/// Before attention: the pages on disk of a layer are staged.
struct Stage {
    TieredPages* pages = nullptr;
    std::uint32_t layer = 0;  ///< among those of its group

    [[nodiscard]] constexpr std::size_t items() const noexcept { return 1; }
    [[nodiscard]] constexpr Bytes thread_bytes() const noexcept { return 0; }
    void run(std::size_t /*item*/, const exec::Worker& /*worker*/) const noexcept { pages->arrive(layer); }
};

}  // namespace kv
}  // namespace zse::inline v1
