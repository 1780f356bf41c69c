// SPDX-License-Identifier: Apache-2.0
// Layers whose weights lie in the disk tier: a ring of slots in memory, through which they pass in the order of a step.
#pragma once

#include <zse/core/checksum.hpp>
#include <zse/exec/executor.hpp>
#include <zse/memory/arena.hpp>
#include <zse/memory/transfers.hpp>

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>

namespace zse::inline v1 {
namespace model {

/// What streamed layers take in each tier, summed up layer by layer. The plan and the ring read the same figures.
struct RingLayout {
    /// Two: one is computed with while the other is read. More would hold more memory and read no more.
    static constexpr std::uint32_t most_slots = 2;
    /// Reads of this size reach the rate of a disk, and several of them are under way at once.
    static constexpr Bytes least_piece = KiB(512);
    /// Layers in more pieces than this would only lengthen the queue.
    static constexpr std::uint64_t most_pieces = 64;

    std::uint32_t layers = 0;
    Bytes slot_bytes = 0;  ///< of the largest layer
    Bytes disk_bytes = 0;  ///< of all layers
    std::uint64_t pieces = 0;

    /// A layer's weights in whole blocks of the disk: one image.
    static constexpr Bytes image_bytes(Bytes layer_bytes) noexcept {
        return round_up(layer_bytes, memory::DiskArena::block);
    }
    static constexpr Bytes piece_bytes(Bytes image) noexcept {
        return std::max(least_piece, round_up(ceil_div(image, most_pieces), memory::DiskArena::block));
    }
    static constexpr std::uint64_t pieces_of(Bytes image) noexcept {
        return ceil_div(image, piece_bytes(image));
    }

    constexpr void add(Bytes layer_bytes, std::uint32_t count) noexcept {
        if (count == 0) return;
        const Bytes image = image_bytes(layer_bytes);
        layers += count;
        slot_bytes = std::max(slot_bytes, image);
        disk_bytes = saturating_add(disk_bytes, saturating_mul(image, count));
        pieces += count * pieces_of(image);
    }
    /// Layer i passes through slot i % slots(), so that a layer is always found at one address.
    [[nodiscard]] constexpr std::uint32_t slots() const noexcept { return std::min(layers, most_slots); }
    [[nodiscard]] constexpr Bytes staging_bytes() const noexcept {
        return saturating_mul(slot_bytes, slots());
    }
    /// Where images lie on the disk, and a checksum of each piece.
    struct Image {
        Bytes offset = 0;
        Bytes bytes = 0;
        std::uint64_t first_piece = 0;
    };
    [[nodiscard]] constexpr Bytes control_bytes() const noexcept {
        return memory::Carver::footprint<Image>(layers) + memory::Carver::footprint<std::uint64_t>(pieces);
    }
    /// Transfers that wait at once, at most: all pieces of every slot.
    [[nodiscard]] constexpr std::uint64_t queue() const noexcept { return slots() * pieces_of(slot_bytes); }
};

/// Counters of a ring since open.
struct RingCounts {
    std::uint64_t fetches = 0;  ///< layers that were read from the disk tier
    std::uint64_t bytes = 0;    ///< of them
    std::uint64_t hits = 0;     ///< layers that had arrived when a step reached them
    std::uint64_t misses = 0;   ///< layers that a step waited for
    std::uint64_t retries = 0;  ///< layers that were read a second time, since the first failed
    friend constexpr bool operator==(const RingCounts&, const RingCounts&) = default;
};

/// Holds the images of layers on disk and brings each into its slot before a step reaches it. The order of layers is
/// known, so the next one is read while one is computed with; after the last, the first ones of the next step. One
/// thread loads and steps. Neither copied nor moved: steps that were captured point to it.
class WeightRing {
public:
    using Image = RingLayout::Image;

    /// The arenas hold `layout`'s bytes; `control` has room for its control_bytes().
    WeightRing(const RingLayout& layout, memory::DiskArena disk, memory::Arena staging,
               memory::Carver& control)
        : layout_(layout),
          disk_(std::move(disk)),
          staging_(std::move(staging)),
          images_(control.take<Image>(layout.layers)),
          checksums_(control.take<std::uint64_t>(layout.pieces)),
          transfers_(readers, layout.queue()) {
        holds_.fill(nothing);
    }
    WeightRing(const WeightRing&) = delete;
    WeightRing& operator=(const WeightRing&) = delete;

    /// Loading, once for each layer in order: the memory in which to put its weights, `[layer_bytes]`, free to be
    /// written once what was there is on the disk. Pointers into it stay right from then on. Throws unreadable.
    std::span<std::byte> begin_image(Bytes layer_bytes) {
        expect_stored(stored_ % layout_.slots());
        Image& image = images_[stored_];
        image = stored_ == 0 ? Image{} : images_[stored_ - 1];
        if (stored_ != 0) {
            image.offset += image.bytes;
            image.first_piece += RingLayout::pieces_of(image.bytes);
        }
        image.bytes = RingLayout::image_bytes(layer_bytes);
        return {slot_of(stored_), layer_bytes};
    }
    /// Writes the layer that was begun.
    void store_image() noexcept {
        submit(stored_, true);
        ++stored_;
    }
    /// All layers are stored: begins to read the first ones. Throws unreadable where the disk failed.
    void finish_storing() {
        for (std::uint32_t slot = 0; slot < layout_.slots(); ++slot) expect_stored(slot);
        disk_.uses(disk_.size());
        staging_.uses(staging_.size());
        for (std::uint32_t slot = 0; slot < layout_.slots(); ++slot) fetch(slot);
    }

    /// A step reaches `layer`, or with layers() what follows them: all layers before are done with. Submits the read of
    /// what comes next into the slot that became free, and returns once `layer` is in its own. Where it cannot be read,
    /// the slot holds zeros and failure() says why.
    void reach(std::uint32_t layer) noexcept {
        if (layer != 0) fetch(after(layer - 1));
        if (layer < layout_.layers) arrive(layer);
    }

    /// Why what was computed since the last call is not to be used; none if all layers arrived.
    [[nodiscard]] std::optional<Error> failure() {
        if (failure_ == 0) return std::nullopt;
        const int why = std::exchange(failure_, 0);
        return Error(ErrorCode::unreadable,
                     text("layer ", failed_layer_, " could not be read back from the disk tier, twice: ",
                          why == EBADMSG ? "its checksum is wrong" : std::strerror(why),
                          "; the answers that were computed with it have ended. Check the disk, or name "
                          "another directory for the disk tier"));
    }

    [[nodiscard]] std::uint32_t layers() const noexcept { return layout_.layers; }
    [[nodiscard]] const RingCounts& counts() const noexcept { return counts_; }
    [[nodiscard]] const memory::DiskArena& disk() const noexcept { return disk_; }

private:
    static constexpr std::uint32_t nothing = ~std::uint32_t{0};
    /// Threads that wait for the disk: enough for it to have a piece to read while another is checked.
    static constexpr unsigned readers = 3;

    [[nodiscard]] std::byte* slot_of(std::uint32_t layer) const noexcept {
        return staging_.data() + layer % layout_.slots() * layout_.slot_bytes;
    }
    /// The layer that comes into the slot of this one next, in this step or in the next.
    [[nodiscard]] std::uint32_t after(std::uint32_t layer) const noexcept {
        const std::uint32_t next = layer + layout_.slots();
        return next < layout_.layers ? next : layer % layout_.slots();
    }

    void expect_stored(std::uint32_t slot) {
        if (const int why = groups_[slot].wait(); why != 0) {
            throw Error(ErrorCode::unreadable,
                        text("weights could not be written to the disk tier (", std::strerror(why),
                             "); check the disk, or name another directory for the disk tier"));
        }
    }

    void fetch(std::uint32_t layer) noexcept {
        const std::uint32_t slot = layer % layout_.slots();
        if (holds_[slot] == layer) return;
        groups_[slot].wait();  // where a step went another way, what it asked for may still be on its way
        holds_[slot] = layer;
        submit(layer, false);
        ++counts_.fetches;
        counts_.bytes += images_[layer].bytes;
    }

    void arrive(std::uint32_t layer) noexcept {
        const std::uint32_t slot = layer % layout_.slots();
        fetch(layer);
        ++(groups_[slot].done() ? counts_.hits : counts_.misses);
        if (groups_[slot].wait() == 0) return;
        submit(layer, false);
        ++counts_.retries;
        const int why = groups_[slot].wait();
        if (why == 0) return;
        holds_[slot] = nothing;
        failure_ = why;
        failed_layer_ = layer;
        std::memset(slot_of(layer), 0,
                    images_[layer].bytes);  // what is computed with it is numbers, at least
    }

    void submit(std::uint32_t layer, bool write) noexcept {
        const Image& image = images_[layer];
        const Bytes each = RingLayout::piece_bytes(image.bytes);
        memory::Transfer transfer;
        transfer.file = &disk_;
        transfer.write = write;
        transfer.check = write ? &note : &compare;
        transfer.context = this;
        transfer.tag = image.first_piece;
        transfer.group = &groups_[layer % layout_.slots()];
        for (Bytes at = 0; at < image.bytes; at += each, ++transfer.tag) {
            transfer.offset = image.offset + at;
            transfer.memory = slot_of(layer) + at;
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
    std::span<Image> images_;             ///< `[layers]`
    std::span<std::uint64_t> checksums_;  ///< `[pieces]`
    std::uint32_t stored_ = 0;
    std::array<std::uint32_t, RingLayout::most_slots>
        holds_{};  ///< the layer of each slot, there or on its way
    std::array<memory::TransferGroup, RingLayout::most_slots> groups_;
    RingCounts counts_;
    int failure_ = 0;
    std::uint32_t failed_layer_ = 0;
    memory::Transfers transfers_;  // last, so that its threads end first
};

/// The operation before a streamed layer, and after the last one. A ring is read by one executor alone, which finishes an
/// operation before it begins the next.
struct Arrive {
    WeightRing* ring = nullptr;
    std::uint32_t layer = 0;

    [[nodiscard]] constexpr std::size_t items() const noexcept { return 1; }
    [[nodiscard]] constexpr Bytes thread_bytes() const noexcept { return 0; }
    void run(std::size_t /*item*/, const exec::Worker& /*worker*/) const noexcept { ring->reach(layer); }
};

}  // namespace model
}  // namespace zse::inline v1
