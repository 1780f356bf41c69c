// SPDX-License-Identifier: Apache-2.0
// Keys of a tile as operands of tensor-core products, codec by codec.
#pragma once

#include <zse/attention/cuda/expand.hpp>
#include <zse/attention/cuda/tile.hpp>

namespace zse::inline v1 {
namespace attention {
namespace cuda {

/// Products of 16 dims each (steps) over four tiles of 8 tokens. Lane l, with g = l / 4 and q = l % 4, is column g of
/// all four: column g of tile j is token 4 g + j, so that a lane reads tokens side by side; its scores, of columns 2 q
/// and 2 q + 1, are those of tokens 8 q to 8 q + 7. Which dims meet in a step is free as well, as long as queries
/// agree: a lane takes the four of dim(step, q, 0 to 3), those that its words hold.
template <class K, class V, unsigned Dim>
struct Keys {
    using Layout = Tile<K, V, Dim>;
    static constexpr auto kind = kv::cuda::kind<K>;
    static constexpr auto group = static_cast<unsigned>(K::group);
    static constexpr unsigned steps = Dim / 16;
    static constexpr unsigned tiles = 4;
    /// Steps between two scales.
    static constexpr unsigned scale_steps = Layout::k_groups == 0 ? steps : group / 16;
    /// Steps whose codes lie in the same words.
    static constexpr unsigned word_steps = kind == kv::cuda::Kind::int4 ? 2 : 1;
    static_assert(scale_steps % word_steps == 0, "zse: 4-bit keys need a group of 32 values or more");

    /// Dims in the order of a FragmentB of lane q: the lower pair, then the upper one.
    static constexpr unsigned dim(unsigned step, unsigned q, unsigned i) noexcept {
        // int8 and int4 take bytes 0 and 2 of a word, then 1 and 3.
        const unsigned byte = i / 2 + i % 2 * 2;
        if constexpr (kind == kv::cuda::Kind::int8) {
            return (4 * step + q) * 4 + byte;
        } else if constexpr (kind == kv::cuda::Kind::int4) {
            const unsigned word = 4 * (step / 2) + q;
            constexpr unsigned group_words = group / 8;
            return word / group_words * group + word % group_words * 4 + byte + step % 2 * (group / 2);
        } else {
            return 16 * step + 4 * i + q;
        }
    }

    /// The operands of the `word_steps` steps from `step` on, of a tile in shared memory.
    template <class T, class Shared>
    ZSE_DEVICE static void load(T& t, Shared tile, unsigned step,
                                exec::gpu::FragmentB (&b)[word_steps][tiles]) {
        const unsigned g = t.lane() / 4;
        const unsigned q = t.lane() % 4;
        if constexpr (kind == kv::cuda::Kind::int8 || kind == kv::cuda::Kind::int4) {
            const unsigned row = 4 * (step / word_steps) + q;
            const exec::gpu::Chunk words = tile[Layout::key_chunk(row * Layout::row_chunks + g)];
            ZSE_UNROLL
            for (unsigned j = 0; j < tiles; ++j) {
                const std::uint32_t word = words.words[j];
                if constexpr (kind == kv::cuda::Kind::int8) {
                    b[0][j] = {{int8_pair(t, word), int8_pair(t, word >> 8)}};
                } else {
                    b[0][j] = {{int4_low_pair(t, word), int4_low_pair(t, word >> 8)}};
                    b[1][j] = {{int4_high_pair(t, word), int4_high_pair(t, word >> 8)}};
                }
            }
        } else if constexpr (kind == kv::cuda::Kind::f16) {
            exec::gpu::HalfChunk rows[4];
            ZSE_UNROLL
            for (unsigned i = 0; i < 4; ++i) {
                const unsigned x = Layout::key_chunk((16 * step + 4 * i + q) * Layout::row_chunks + g / 2);
                rows[i] = tile.template as<exec::gpu::HalfChunk>()[x * 2 + g % 2];
            }
            ZSE_UNROLL
            for (unsigned j = 0; j < tiles; ++j) {
                b[0][j] = {{half_of_both(t, rows[0].words[j / 2], rows[1].words[j / 2], j % 2),
                            half_of_both(t, rows[2].words[j / 2], rows[3].words[j / 2], j % 2)}};
            }
        } else {
            std::uint32_t rows[4];
            ZSE_UNROLL
            for (unsigned i = 0; i < 4; ++i) {
                const unsigned x = Layout::key_chunk((16 * step + 4 * i + q) * Layout::row_chunks + g / 4);
                rows[i] = tile.template as<std::uint32_t>()[x * 4 + g % 4];
            }
            ZSE_UNROLL
            for (unsigned j = 0; j < tiles; ++j) {
                b[0][j] = {{fp8_pair(byte_of_both_high(t, rows[0], rows[1], j)),
                            fp8_pair(byte_of_both_high(t, rows[2], rows[3], j))}};
            }
        }
    }
    /// The scales of tokens 8 q to 8 q + 7, in halves.
    template <class T, class Shared>
    ZSE_DEVICE static exec::gpu::Chunk scales(T& t, Shared tile, unsigned index) {
        return tile[Layout::k_scales_at / Layout::chunk + index * Layout::scale_chunks + t.lane() % 4];
    }
};

}  // namespace cuda
}  // namespace attention
}  // namespace zse::inline v1
