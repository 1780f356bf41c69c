// SPDX-License-Identifier: Apache-2.0
// What streamed weights take on disk, and in memory on their way: the figures of the plan and of the ring that executes
// it. Runs at compile time.
#pragma once

#include <zse/kernels/matrix.hpp>
#include <zse/memory/arena.hpp>
#include <zse/memory/disk_arena.hpp>

#include <algorithm>

namespace zse::inline v1 {
namespace model {

/// The rows of a matrix in tiles of whole groups, each with an image of its own.
struct TileLayout {
    /// Smaller ones would be more tiles than a disk is worth asking for.
    static constexpr Bytes least_bytes = MiB(1);

    std::uint32_t groups = 0;  ///< of 16 rows: of the matrix
    std::uint32_t each = 0;    ///< of a tile; even, as parts of a matrix are
    Bytes group_bytes = 0;

    constexpr TileLayout() = default;
    /// Tiles of at most `bytes`, or of two groups where those are more.
    constexpr TileLayout(const kernels::Matrix& matrix, Bytes bytes) noexcept
        : groups(static_cast<std::uint32_t>(matrix.groups())), group_bytes(matrix.layout().group_bytes()) {
        each = static_cast<std::uint32_t>(
            std::clamp<Bytes>(bytes / group_bytes / 2 * 2, 2, round_up(groups, 2)));
    }
    [[nodiscard]] constexpr std::uint32_t count() const noexcept {
        return each == 0 ? 0 : static_cast<std::uint32_t>(ceil_div(groups, each));
    }
    [[nodiscard]] constexpr Bytes bytes(std::uint32_t tile) const noexcept {
        return std::min(each, groups - tile * each) * group_bytes;
    }
    [[nodiscard]] constexpr std::uint32_t first_row(std::uint32_t tile) const noexcept {
        return tile * each * static_cast<std::uint32_t>(kernels::Matrix::group_rows);
    }
};

/// What streamed weights take in each tier, summed up image by image: layers, then tiles of the output matrix, which pass
/// through the ring in every step; behind them an embedding of its own, of which single rows are read.
struct RingLayout {
    /// Two: one is computed with while the other is read. More would hold more memory and read no more.
    static constexpr std::uint32_t most_slots = 2;
    /// Reads of this size reach the rate of a disk, and several of them are under way at once.
    static constexpr Bytes least_piece = KiB(512);
    /// Images in more pieces than this would only lengthen the queue.
    static constexpr std::uint64_t most_pieces = 64;

    std::uint32_t layers = 0;
    TileLayout output;     ///< of the output matrix; no tiles where it is resident
    TileLayout embedding;  ///< in the output's images where that is the embedding too
    bool tied = false;     ///< it is
    Bytes slot_bytes = 0;  ///< of the largest image
    Bytes disk_bytes = 0;  ///< of all images
    std::uint64_t pieces = 0;

    /// Weights in whole blocks of the disk: one image.
    static constexpr Bytes image_bytes(Bytes weights) noexcept {
        return round_up(weights, memory::DiskArena::block);
    }
    static constexpr Bytes piece_bytes(Bytes image) noexcept {
        return std::max(least_piece, round_up(ceil_div(image, most_pieces), memory::DiskArena::block));
    }
    static constexpr std::uint64_t pieces_of(Bytes image) noexcept {
        return ceil_div(image, piece_bytes(image));
    }

    constexpr void add_layers(Bytes layer_bytes, std::uint32_t count) noexcept {
        layers += count;
        add(layer_bytes, count);
    }
    /// After the layers. Tiles are no larger than those, so that they need no larger slots.
    constexpr void add_output(const kernels::Matrix& output_matrix, const kernels::Matrix& embedding_matrix,
                              bool is_tied) noexcept {
        const Bytes target = std::max(slot_bytes, TileLayout::least_bytes);
        tied = is_tied;
        output = TileLayout(output_matrix, target);
        embedding = TileLayout(embedding_matrix, target);
        for (std::uint32_t i = 0; i < output.count(); ++i) add(output.bytes(i), 1);
        for (std::uint32_t i = 0; !tied && i < embedding.count(); ++i) add(embedding.bytes(i), 1);
    }

    /// Images that a step passes through, in this order; and all there are.
    [[nodiscard]] constexpr std::uint32_t streamed() const noexcept { return layers + output.count(); }
    [[nodiscard]] constexpr std::uint32_t images() const noexcept {
        return streamed() + (tied ? 0 : embedding.count());
    }
    /// The first image of the embedding.
    [[nodiscard]] constexpr std::uint32_t first_of_embedding() const noexcept {
        return tied ? layers : streamed();
    }
    /// Image i passes through slot i % slots(), so that its weights are always found at one address.
    [[nodiscard]] constexpr std::uint32_t slots() const noexcept { return std::min(streamed(), most_slots); }
    [[nodiscard]] constexpr Bytes staging_bytes() const noexcept {
        return saturating_mul(slot_bytes, slots());
    }
    /// Where an image lies on the disk.
    struct Image {
        Bytes offset = 0;
        Bytes bytes = 0;
        std::uint64_t first_piece = 0;
    };
    /// Images, a checksum of each piece and of each group of the embedding, and the tiles as matrices with their parts.
    [[nodiscard]] constexpr Bytes control_bytes(std::uint32_t threads) const noexcept {
        using memory::Carver;
        return Carver::footprint<Image>(images()) + Carver::footprint<std::uint64_t>(pieces) +
               Carver::footprint<std::uint64_t>(embedding.groups) +
               Carver::footprint<kernels::Matrix>(output.count()) +
               Carver::footprint<const std::byte*>(std::uint64_t{output.count()} * threads);
    }
    /// Operations of a step that streaming adds, at most: one before each image and one after the last layer and the last
    /// tile, and a product for each tile.
    [[nodiscard]] constexpr std::uint64_t operations() const noexcept {
        return images() == 0 ? 0 : std::uint64_t{layers} + 2 * std::uint64_t{output.count()} + 2;
    }
    /// Transfers that wait at once, at most: all pieces of every slot.
    [[nodiscard]] constexpr std::uint64_t queue() const noexcept { return slots() * pieces_of(slot_bytes); }

private:
    constexpr void add(Bytes weights, std::uint32_t count) noexcept {
        if (count == 0) return;
        const Bytes image = image_bytes(weights);
        slot_bytes = std::max(slot_bytes, image);
        disk_bytes = saturating_add(disk_bytes, saturating_mul(image, count));
        pieces += count * pieces_of(image);
    }
};

}  // namespace model
}  // namespace zse::inline v1
