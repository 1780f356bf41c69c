// SPDX-License-Identifier: Apache-2.0
// Values of a tile as operands of tensor-core products, codec by codec.
#pragma once

#include <zse/attention/cuda/expand.hpp>
#include <zse/attention/cuda/tile.hpp>

namespace zse::inline v1 {
namespace attention {
namespace cuda {

/// Two products of 16 tokens each over tiles of 8 dims. Lane l, with g = l / 4 and q = l % 4, holds tokens 8 q to 8 q + 7,
/// four a product: those whose scores it has, see Keys. A stretch of codes is what the lanes of one token read at once;
/// lane g reads `lane_bytes` of it, which are column g of `tiles` tiles. A stretch has one scale.
template <class K, class V, unsigned Dim>
struct Values {
    using Layout = Tile<K, V, Dim>;
    static constexpr auto kind = kv::cuda::kind<V>;
    static constexpr auto group = static_cast<unsigned>(V::group);
    static constexpr unsigned products = 2;

    static constexpr unsigned lane_bytes = [] {
        if (kind == kv::cuda::Kind::f16) return Dim % 64 == 0 ? 16u : 4u;
        if (kind == kv::cuda::Kind::int4) return group == 16 ? 1u : 2u;
        return group == 16 ? 2u : 4u;
    }();
    static constexpr unsigned tiles = kind == kv::cuda::Kind::f16    ? lane_bytes / 2
                                      : kind == kv::cuda::Kind::int4 ? 2 * lane_bytes
                                                                     : lane_bytes;
    static constexpr unsigned stretches = Layout::v_code / (8 * lane_bytes);
    /// Stretches between two scales.
    static constexpr unsigned scale_stretches =
        Layout::v_groups == 0 ? stretches : stretches / Layout::v_groups;

    /// Which dim column `column` of a tile of a stretch is.
    static constexpr unsigned dim(unsigned stretch, unsigned tile, unsigned column) noexcept {
        if constexpr (kind == kv::cuda::Kind::int4) {
            const unsigned byte = (stretch * 8 + column) * lane_bytes + tile % lane_bytes;
            constexpr unsigned group_bytes = group / 2;
            return byte / group_bytes * group + byte % group_bytes + tile / lane_bytes * group_bytes;
        } else {
            return (stretch * 8 + column) * tiles + tile;
        }
    }

    /// The operands of both products.
    template <class T, class Shared>
    ZSE_DEVICE static void load(T& t, Shared tile, unsigned stretch,
                                exec::gpu::FragmentB (&b)[products][tiles]) {
        ZSE_UNROLL
        for (unsigned p = 0; p < products; ++p) {
            Words tokens[4];
            ZSE_UNROLL
            for (unsigned i = 0; i < 4; ++i) {
                const unsigned token = t.lane() % 4 * 8 + p * 4 + i;
                const unsigned at = Layout::value_at(token, (stretch * 8 + t.lane() / 4) * lane_bytes);
                tokens[i] = tile.template as<Words>()[at / sizeof(Words)];
            }
            ZSE_UNROLL
            for (unsigned j = 0; j < tiles; ++j) {
                b[p][j] = {{pair(t, tokens[0], tokens[1], j), pair(t, tokens[2], tokens[3], j)}};
            }
        }
    }
    /// The scales of tokens 8 q to 8 q + 7, in halves.
    template <class T, class Shared>
    ZSE_DEVICE static exec::gpu::Chunk scales(T& t, Shared tile, unsigned index) {
        return tile[Layout::v_scales_at / Layout::chunk + index * Layout::scale_chunks + t.lane() % 4];
    }

private:
    template <unsigned Bytes>
    static constexpr auto word() noexcept {
        if constexpr (Bytes == 16) {
            return exec::gpu::Chunk{};
        } else if constexpr (Bytes == 4) {
            return std::uint32_t{};
        } else if constexpr (Bytes == 2) {
            return std::uint16_t{};
        } else {
            return std::uint8_t{};
        }
    }
    using Words = decltype(word<lane_bytes>());

    /// Tile j of two tokens, as halves.
    template <class T>
    ZSE_DEVICE static std::uint32_t pair(T& t, const Words& even, const Words& odd, unsigned j) {
        if constexpr (lane_bytes == 16) {
            return half_of_both(t, even.words[j / 2], odd.words[j / 2], j % 2);
        } else if constexpr (kind == kv::cuda::Kind::f16) {
            return half_of_both(t, even, odd, j);
        } else if constexpr (kind == kv::cuda::Kind::int8) {
            return int8_pair(t, byte_of_both_low(t, even, odd, j));
        } else if constexpr (kind == kv::cuda::Kind::fp8) {
            return fp8_pair(byte_of_both_high(t, even, odd, j));
        } else {
            const std::uint32_t both = even | static_cast<std::uint32_t>(odd) << 16;
            const std::uint32_t word = both >> (j % lane_bytes * 8);
            return j < lane_bytes ? int4_low_pair(t, word) : int4_high_pair(t, word);
        }
    }
};

}  // namespace cuda
}  // namespace attention
}  // namespace zse::inline v1
