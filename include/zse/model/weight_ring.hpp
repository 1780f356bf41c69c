// SPDX-License-Identifier: Apache-2.0
// Weights in the disk tier: a ring of slots in memory, through which images of layers and of tiles of the output matrix
// pass in the order of a step; and rows of the embedding, one group at a time.
#pragma once

#include <zse/core/checksum.hpp>
#include <zse/exec/executor.hpp>
#include <zse/memory/transfers.hpp>
#include <zse/model/ring_layout.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <optional>

namespace zse::inline v1 {
namespace model {

/// Counters of a ring since open.
struct RingCounts {
    std::uint64_t fetches = 0;  ///< images (of layers, of tiles) that were read from the disk tier
    std::uint64_t bytes = 0;    ///< of them, and of rows
    std::uint64_t hits = 0;     ///< images that had arrived when a step reached them
    std::uint64_t misses = 0;   ///< images that a step waited for
    std::uint64_t rows = 0;     ///< rows of the embedding that were read
    std::uint64_t retries = 0;  ///< images and rows that were read a second time, since the first failed
    friend constexpr bool operator==(const RingCounts&, const RingCounts&) = default;
};

/// Holds images on disk and brings each into its slot before a step reaches it. Their order is known, so the next one is
/// read while one is computed with; after the last, the first ones of the next step. One thread loads and steps. Neither
/// copied nor moved: steps that were captured point to it.
class WeightRing {
public:
    using Image = RingLayout::Image;
    /// No image.
    static constexpr std::uint32_t none = ~std::uint32_t{0};

    /// The arenas hold `layout`'s bytes; `control` has room for those of its control_bytes() that describe
    /// images.
    WeightRing(const RingLayout& layout, memory::DiskArena disk, memory::Arena staging,
               memory::Carver& control)
        : layout_(layout),
          disk_(std::move(disk)),
          staging_(std::move(staging)),
          images_(control.take<Image>(layout.images())),
          checksums_(control.take<std::uint64_t>(layout.pieces)),
          group_checksums_(control.take<std::uint64_t>(layout.embedding.groups)),
          transfers_(readers, layout.queue()) {
        holds_.fill(none);
    }
    WeightRing(const WeightRing&) = delete;
    WeightRing& operator=(const WeightRing&) = delete;

    /// Loading, once for each image in order: the memory in which to put its weights, `[bytes]`, free to be written once
    /// what was there is on the disk. Pointers into it stay right from then on. Throws unreadable.
    std::span<std::byte> begin_image(Bytes bytes) {
        expect_stored(stored_ % layout_.slots());
        Image& image = images_[stored_];
        image = stored_ == 0 ? Image{} : images_[stored_ - 1];
        if (stored_ != 0) {
            image.offset += image.bytes;
            image.first_piece += RingLayout::pieces_of(image.bytes);
        }
        image.bytes = RingLayout::image_bytes(bytes);
        return {slot_of(stored_), bytes};
    }
    /// Writes the image that was begun.
    void store_image() noexcept {
        const std::uint32_t first = layout_.first_of_embedding();
        if (stored_ >= first && stored_ - first < layout_.embedding.count()) note_groups(stored_ - first);
        submit(stored_, true);
        ++stored_;
    }
    /// All images are stored: begins to read the first ones. Throws unreadable where the disk failed.
    void finish_storing() {
        for (std::uint32_t slot = 0; slot < layout_.slots(); ++slot) expect_stored(slot);
        disk_.uses(disk_.size());
        staging_.uses(staging_.size());
        for (std::uint32_t slot = 0; slot < layout_.slots(); ++slot) fetch(slot);
    }

    /// A step is done with image `done`, and goes on to image `next`; either may be none. Submits the read of what comes
    /// into the slot that became free, and returns once `next` is in its own. Where that cannot be read, the slot holds
    /// zeros and failure() says why.
    void pass(std::uint32_t done, std::uint32_t next) noexcept {
        if (done != none) fetch(after(done));
        if (next != none) arrive(next);
    }

    /// Bytes that reading a group of the embedding needs.
    static constexpr Bytes row_scratch(Bytes group_bytes) noexcept {
        return round_up(group_bytes, block) + 2 * block;  // neither offsets nor addresses fall on blocks
    }
    /// Reads a group of 16 rows of the embedding; where it cannot be read, it holds zeros and failure() says why. Threads
    /// may call it at once, each with `[row_scratch()]` bytes of its own.
    const std::byte* read_group(std::uint32_t group, std::byte* scratch) noexcept {
        const TileLayout& tiles = layout_.embedding;
        const Image& image = images_[layout_.first_of_embedding() + group / tiles.each];
        const Bytes at = image.offset + group % tiles.each * tiles.group_bytes;
        const Bytes begin = at / block * block;
        const std::span<std::byte> bytes(
            reinterpret_cast<std::byte*>(round_up(reinterpret_cast<std::uintptr_t>(scratch), block)),
            round_up(at + tiles.group_bytes, block) - begin);
        const std::span<std::byte> found = bytes.subspan(at - begin, tiles.group_bytes);
        rows_.fetch_add(1, std::memory_order_relaxed);
        row_bytes_.fetch_add(bytes.size(), std::memory_order_relaxed);
        int why = 0;
        for (int attempt = 0; attempt < 2; ++attempt) {
            if (attempt != 0) row_retries_.fetch_add(1, std::memory_order_relaxed);
            why = disk_.read(begin, bytes);
            if (why == 0 && checksum(found, group) != group_checksums_[group]) why = EBADMSG;
            if (why == 0) return found.data();
        }
        std::memset(found.data(), 0, found.size());
        failure_.store(why, std::memory_order_relaxed);
        return found.data();
    }

    /// Why what was computed since the last call is not to be used; none if everything arrived.
    [[nodiscard]] std::optional<Error> failure() {
        const int why = failure_.exchange(0, std::memory_order_relaxed);
        if (why == 0) return std::nullopt;
        return Error(ErrorCode::unreadable,
                     text("weights could not be read back from the disk tier, twice: ",
                          why == EBADMSG ? "their checksum is wrong" : std::strerror(why),
                          "; the answers that were computed with them have ended. Check the disk, or name "
                          "another directory for the disk tier"));
    }

    [[nodiscard]] const RingLayout& layout() const noexcept { return layout_; }
    [[nodiscard]] RingCounts counts() const noexcept {
        RingCounts counts = counts_;
        counts.rows = rows_.load(std::memory_order_relaxed);
        counts.bytes += row_bytes_.load(std::memory_order_relaxed);
        counts.retries += row_retries_.load(std::memory_order_relaxed);
        return counts;
    }
    [[nodiscard]] const memory::DiskArena& disk() const noexcept { return disk_; }

private:
    static constexpr Bytes block = memory::DiskArena::block;
    /// Threads that wait for the disk: enough for it to have a piece to read while another is checked.
    static constexpr unsigned readers = 4;

    [[nodiscard]] std::byte* slot_of(std::uint32_t image) const noexcept {
        return staging_.data() + image % layout_.slots() * layout_.slot_bytes;
    }
    /// The image that comes into the slot of this one next, in this step or in the next.
    [[nodiscard]] std::uint32_t after(std::uint32_t image) const noexcept {
        const std::uint32_t next = image + layout_.slots();
        return next < layout_.streamed() ? next : image % layout_.slots();
    }

    /// Checksums of the groups of a tile of the embedding, which lies in its slot.
    void note_groups(std::uint32_t tile) noexcept {
        const TileLayout& tiles = layout_.embedding;
        const std::uint32_t first = tile * tiles.each;
        const std::uint32_t count = std::min(tiles.each, tiles.groups - first);
        for (std::uint32_t i = 0; i < count; ++i) {
            group_checksums_[first + i] =
                checksum({slot_of(stored_) + i * tiles.group_bytes, tiles.group_bytes}, first + i);
        }
    }

    void expect_stored(std::uint32_t slot) {
        if (const int why = groups_[slot].wait(); why != 0) {
            throw Error(ErrorCode::unreadable,
                        text("weights could not be written to the disk tier (", std::strerror(why),
                             "); check the disk, or name another directory for the disk tier"));
        }
    }

    void fetch(std::uint32_t image) noexcept {
        const std::uint32_t slot = image % layout_.slots();
        if (holds_[slot] == image) return;
        groups_[slot].wait();  // where a step went another way, what it asked for may still be on its way
        holds_[slot] = image;
        submit(image, false);
        ++counts_.fetches;
        counts_.bytes += images_[image].bytes;
    }

    void arrive(std::uint32_t image) noexcept {
        const std::uint32_t slot = image % layout_.slots();
        fetch(image);
        ++(groups_[slot].done() ? counts_.hits : counts_.misses);
        if (groups_[slot].wait() == 0) return;
        submit(image, false);
        ++counts_.retries;
        const int why = groups_[slot].wait();
        if (why == 0) return;
        holds_[slot] = none;
        failure_.store(why, std::memory_order_relaxed);
        std::memset(slot_of(image), 0,
                    images_[image].bytes);  // what is computed with it is numbers, at least
    }

    void submit(std::uint32_t index, bool write) noexcept {
        const Image& image = images_[index];
        const Bytes each = RingLayout::piece_bytes(image.bytes);
        memory::Transfer transfer;
        transfer.file = &disk_;
        transfer.write = write;
        transfer.check = write ? &note : &compare;
        transfer.context = this;
        transfer.tag = image.first_piece;
        transfer.group = &groups_[index % layout_.slots()];
        for (Bytes at = 0; at < image.bytes; at += each, ++transfer.tag) {
            transfer.offset = image.offset + at;
            transfer.memory = slot_of(index) + at;
            transfer.bytes = std::min(each, image.bytes - at);
            transfers_.submit(transfer);
        }
    }

    static std::uint64_t checksum_of(const memory::Transfer& t) noexcept {
        return checksum({t.memory, t.bytes}, t.tag);
    }
    static int note(const memory::Transfer& t) noexcept {
        static_cast<WeightRing*>(t.context)->checksums_[t.tag] = checksum_of(t);
        return 0;
    }
    static int compare(const memory::Transfer& t) noexcept {
        return static_cast<WeightRing*>(t.context)->checksums_[t.tag] == checksum_of(t) ? 0 : EBADMSG;
    }

    RingLayout layout_;
    memory::DiskArena disk_;
    memory::Arena staging_;
    std::span<Image> images_;                   ///< `[images]`
    std::span<std::uint64_t> checksums_;        ///< `[pieces]`
    std::span<std::uint64_t> group_checksums_;  ///< `[groups of the embedding]`
    std::uint32_t stored_ = 0;
    std::array<std::uint32_t, RingLayout::most_slots>
        holds_{};  ///< the image of each slot, there or on its way
    std::array<memory::TransferGroup, RingLayout::most_slots> groups_;
    RingCounts counts_;
    std::atomic<std::uint64_t> rows_ = 0, row_bytes_ = 0, row_retries_ = 0;
    std::atomic<int> failure_ = 0;
    memory::Transfers transfers_;  // last, so that its threads end first
};

/// The operation between images. A ring is passed by one executor alone, which finishes an operation before it begins
/// the next.
struct Pass {
    WeightRing* ring = nullptr;
    std::uint32_t done = WeightRing::none;
    std::uint32_t next = WeightRing::none;

    [[nodiscard]] constexpr std::size_t items() const noexcept { return 1; }
    [[nodiscard]] constexpr Bytes thread_bytes() const noexcept { return 0; }
    void run(std::size_t /*item*/, const exec::Worker& /*worker*/) const noexcept { ring->pass(done, next); }
};

/// h[t] = row tokens[t] of an embedding in the disk tier. `[tokens, hidden]`.
struct EmbedFromDisk {
    WeightRing* ring = nullptr;
    kernels::Matrix table;  ///< without parts
    const std::int32_t* tokens = nullptr;
    std::size_t count = 0;
    float* out = nullptr;

    [[nodiscard]] constexpr std::size_t items() const noexcept { return count; }
    [[nodiscard]] constexpr Bytes thread_bytes() const noexcept {
        return WeightRing::row_scratch(table.layout().group_bytes());
    }
    void run(std::size_t item, const exec::Worker& worker) const noexcept {
        const auto row = static_cast<std::uint32_t>(tokens[item]);
        const std::byte* group = ring->read_group(row / kernels::Matrix::group_rows, worker.scratch);
        table.kernels->decode_row(group, row % kernels::Matrix::group_rows, table.columns,
                                  out + item * table.columns);
    }
};

}  // namespace model
}  // namespace zse::inline v1
