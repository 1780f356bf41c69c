// SPDX-License-Identifier: Apache-2.0
// Where the temporary buffers of a step lie: one allocator that the plan records and the executor repeats.
#pragma once

#include <zse/core/bytes.hpp>

#include <array>

namespace zse::inline v1 {
namespace memory {

/// First-fit allocator of offsets. Buffers that never live together share bytes; the greatest end is what a
/// step needs. Given the same calls it gives the same offsets, so a recorded step and a real one cannot
/// differ.
class ScratchLayout {
public:
    static constexpr Bytes alignment = 64;
    static constexpr std::size_t most_live = 16;  ///< live buffers of one step; forward passes use about six

    /// Offset of a new buffer of `bytes`.
    constexpr Bytes allocate(Bytes bytes) {
        if (count_ == most_live)
            throw Error(ErrorCode::internal, "a step has more than 16 live scratch buffers");
        bytes = round_up(bytes == 0 ? 1 : bytes, alignment);
        Bytes offset = 0;
        std::size_t place = 0;
        for (; place < count_; ++place) {  // blocks are sorted by offset: the first gap that is wide enough
            if (blocks_[place].offset - offset >= bytes) break;
            offset = blocks_[place].offset + blocks_[place].bytes;
        }
        for (std::size_t i = count_; i > place; --i) blocks_[i] = blocks_[i - 1];
        blocks_[place] = {offset, bytes};
        ++count_;
        if (offset + bytes > peak_) peak_ = offset + bytes;
        return offset;
    }

    /// Ends the buffer at `offset`.
    constexpr void release(Bytes offset) noexcept {
        std::size_t place = 0;
        while (place < count_ && blocks_[place].offset != offset) ++place;
        if (place == count_) return;
        for (--count_; place < count_; ++place) blocks_[place] = blocks_[place + 1];
    }

    [[nodiscard]] constexpr Bytes peak() const noexcept { return peak_; }
    [[nodiscard]] constexpr std::size_t live() const noexcept { return count_; }

private:
    struct Block {
        Bytes offset = 0;
        Bytes bytes = 0;
    };
    std::array<Block, most_live> blocks_{};
    std::size_t count_ = 0;
    Bytes peak_ = 0;
};

}  // namespace memory
}  // namespace zse::inline v1
