// SPDX-License-Identifier: Apache-2.0
// The way of 32 tokens of one key head from pages to shared memory as halves, by all threads of a block: for many rows,
// which would otherwise decode the same codes again and again.
#pragma once

#include <zse/attention/cuda/expand.hpp>
#include <zse/attention/cuda/tile.hpp>

namespace zse::inline v1 {
namespace attention {
namespace cuda {

/// Keys `[dim][32]` and values `[32][dim]`, both as halves, a code times its scale rounded once. Rows are padded to an odd
/// number of chunks, so that eight rows of a matrix lie in all banks.
template <class K, class V, unsigned Dim, unsigned Threads>
struct HalfTile {
    using Coded = Tile<K, V, Dim>;
    using Chunk = exec::gpu::Chunk;
    static constexpr unsigned tokens = Coded::tokens;
    static constexpr unsigned key_stride = tokens / 8 + 1;  ///< chunks from dim to dim
    static constexpr unsigned value_stride = Dim / 8 + 1;   ///< chunks from token to token
    static constexpr unsigned key_chunks = Dim * key_stride;
    static constexpr unsigned value_chunks = tokens * value_stride;
    static constexpr unsigned chunks = key_chunks + value_chunks;

    static constexpr unsigned key_codes =
        Coded::k_code * tokens / Coded::chunk;  ///< chunks of codes in a tile
    static constexpr unsigned value_codes = Coded::v_code * tokens / Coded::chunk;
    static constexpr unsigned key_rounds = (key_codes + Threads - 1) / Threads;
    static constexpr unsigned value_rounds = (value_codes + Threads - 1) / Threads;

    /// A chunk of codes on its way, and the scales that it needs.
    struct Key {
        Chunk codes;
        Chunk scales[kv::cuda::kind<K> == kv::cuda::Kind::fp8 ? 2 : 1];
    };
    struct Value {
        Chunk codes;
        std::uint32_t
            scales[kv::cuda::kind<V> == kv::cuda::Kind::int4 && V::group == 16 ? 2 : 1];  ///< twice each
        bool there;
    };

    template <class T>
    ZSE_DEVICE static Key fetch_key(T& t, const HeadPages& from, const TilePlace& place, unsigned round) {
        const unsigned x = round * Threads + t.thread();
        Key key{};
        if (x >= key_codes) return key;
        const unsigned row = x / Coded::row_chunks;
        const unsigned column = x % Coded::row_chunks * Coded::chunk;
        const unsigned page_row = from.page_tokens() * Coded::piece;
        const unsigned page = column >= page_row ? 1 : 0;
        const std::byte* head = address(place, page);
        if (head == nullptr) return key;
        const unsigned within = column - page * page_row;
        key.codes = t.load_once(reinterpret_cast<const Chunk*>(head + row * page_row + within));
        if constexpr (kv::cuda::has_scales<K>) {
            constexpr unsigned row_dims =
                kind_k == kv::cuda::Kind::int8 ? 4 : (kind_k == kv::cuda::Kind::int4 ? 8 : 1);
            const unsigned group = row * row_dims / static_cast<unsigned>(K::group);
            const std::byte* scales = head + from.page_tokens() * (Coded::k_scales_of_token + group * 2) +
                                      within / Coded::piece * 2;
            if constexpr (kind_k == kv::cuda::Kind::fp8) {
                key.scales[0] = t.load(reinterpret_cast<const Chunk*>(scales));
                key.scales[1] = t.load(reinterpret_cast<const Chunk*>(scales) + 1);
            } else {
                const auto four = t.load(reinterpret_cast<const exec::gpu::HalfChunk*>(scales));
                key.scales[0].words[0] = four.words[0];
                key.scales[0].words[1] = four.words[1];
            }
        }
        return key;
    }
    template <class T, class Shared>
    ZSE_DEVICE static void put_key(T& t, const Key& key, unsigned round, Shared to) {
        const unsigned x = round * Threads + t.thread();
        if (x >= key_codes) return;
        const unsigned row = x / Coded::row_chunks;
        const unsigned column = x % Coded::row_chunks;
        if constexpr (kind_k == kv::cuda::Kind::f16) {
            to[row * key_stride + column] = key.codes;
        } else if constexpr (kind_k == kv::cuda::Kind::fp8) {
            ZSE_UNROLL
            for (unsigned half = 0; half < 2; ++half) {
                Chunk halves;
                ZSE_UNROLL
                for (unsigned i = 0; i < 4; ++i) {
                    const std::uint32_t word = key.codes.words[half * 2 + i / 2];
                    halves.words[i] = t.half_mul(fp8_neighbours(t, word, i % 2), key.scales[half].words[i]);
                }
                to[row * key_stride + column * 2 + half] = halves;
            }
        } else {
            // A word is four or eight dims of one token; what is stored is four tokens of one dim.
            const auto eights = to.template as<exec::gpu::HalfChunk>();
            const std::uint32_t* words = key.codes.words;
            ZSE_UNROLL
            for (unsigned b = 0; b < 4; ++b) {
                const std::uint32_t low = byte_of_both_low(t, words[0], words[1], b);
                const std::uint32_t high = byte_of_both_low(t, words[2], words[3], b);
                const std::uint32_t* scales = key.scales[0].words;
                if constexpr (kind_k == kv::cuda::Kind::int8) {
                    eights[(row * 4 + b) * (key_stride * 2) + column] = {
                        {t.half_mul(int8_pair(t, low), scales[0]),
                         t.half_mul(int8_pair(t, high), scales[1])}};
                } else {
                    constexpr auto group = static_cast<unsigned>(K::group);
                    const unsigned dim = row * 4 / (group / 2) * group + row * 4 % (group / 2) + b;
                    eights[dim * (key_stride * 2) + column] = {
                        {t.half_mul(int4_low_pair(t, low), scales[0]),
                         t.half_mul(int4_low_pair(t, high), scales[1])}};
                    eights[(dim + group / 2) * (key_stride * 2) + column] = {
                        {t.half_mul(int4_high_pair(t, low), scales[0]),
                         t.half_mul(int4_high_pair(t, high), scales[1])}};
                }
            }
        }
    }

    template <class T>
    ZSE_DEVICE static Value fetch_value(T& t, const HeadPages& from, const TilePlace& place,
                                        std::uint32_t tile, unsigned round) {
        const unsigned x = round * Threads + t.thread();
        Value value{};
        const unsigned token = x / Coded::value_chunks;
        // What no number is would outlive a weight of zero.
        value.there = x < value_codes && from.present.has(tile * tokens + token);
        if (!value.there) return value;
        const unsigned page = token >= from.page_tokens() ? 1 : 0;
        const std::byte* head = address(place, page);
        const unsigned slot = token - page * from.page_tokens();
        const unsigned offset = x % Coded::value_chunks * Coded::chunk;
        value.codes = t.load_once(reinterpret_cast<const Chunk*>(
            head + from.page_tokens() * Coded::v_codes_of_token + slot * Coded::v_code + offset));
        if constexpr (kv::cuda::has_scales<V>) {
            ZSE_UNROLL
            for (unsigned i = 0; i < std::extent_v<decltype(value.scales)>; ++i) {
                const unsigned group = offset / group_bytes + i;
                const std::uint32_t scale = t.load(reinterpret_cast<const std::uint16_t*>(
                    head + from.page_tokens() * (Coded::v_scales_of_token + group * 2) + slot * 2));
                value.scales[i] = scale | scale << 16;
            }
        }
        return value;
    }
    template <class T, class Shared>
    ZSE_DEVICE static void put_value(T& t, const Value& value, unsigned round, Shared to) {
        const unsigned x = round * Threads + t.thread();
        if (x >= value_codes) return;
        const auto row = to.from(x / Coded::value_chunks * value_stride);
        const unsigned column = x % Coded::value_chunks;
        if constexpr (kind_v == kv::cuda::Kind::f16) {
            row[column] = value.codes;
        } else {
            constexpr bool nibbles = kind_v == kv::cuda::Kind::int4;
            ZSE_UNROLL
            for (unsigned half = 0; half < 2; ++half) {  // eight bytes each
                const std::uint32_t scale = value.scales[half * (sizeof value.scales / 4 - 1)];
                Chunk low{};
                Chunk high{};
                ZSE_UNROLL
                for (unsigned i = 0; i < 4; ++i) {
                    const std::uint32_t word = value.codes.words[half * 2 + i / 2];
                    if constexpr (kind_v == kv::cuda::Kind::fp8) {
                        low.words[i] = t.half_mul(fp8_neighbours(t, word, i % 2), scale);
                    } else {
                        const std::uint32_t two = t.pick_bytes(word, 0, i % 2 == 0 ? 0x4140u : 0x4342u);
                        if constexpr (nibbles) {
                            low.words[i] = t.half_mul(int4_low_pair(t, two), scale);
                            high.words[i] = t.half_mul(int4_high_pair(t, two), scale);
                        } else {
                            low.words[i] = t.half_mul(int8_pair(t, two), scale);
                        }
                    }
                }
                if constexpr (nibbles) {
                    const unsigned byte = column * Coded::chunk + half * 8;
                    const unsigned dim = byte / group_bytes * (group_bytes * 2) + byte % group_bytes;
                    row[dim / 8] = value.there ? low : Chunk{};
                    row[(dim + group_bytes) / 8] = value.there ? high : Chunk{};
                } else {
                    row[column * 2 + half] = value.there ? low : Chunk{};
                }
            }
        }
    }

private:
    static constexpr auto kind_k = kv::cuda::kind<K>;
    static constexpr auto kind_v = kv::cuda::kind<V>;
    /// Bytes of codes that share a scale.
    static constexpr unsigned group_bytes =
        static_cast<unsigned>(V::group) / (kv::cuda::kind<V> == kv::cuda::Kind::int4 ? 2 : 1);

    ZSE_DEVICE static const std::byte* address(const TilePlace& place, unsigned page) {
        return reinterpret_cast<const std::byte*>(page == 0 ? place.heads[0] : place.heads[1]);
    }
    /// Bytes 0 and 1 of a word, or 2 and 3, E4M3, as halves.
    template <class T>
    ZSE_DEVICE static std::uint32_t fp8_neighbours(T& t, std::uint32_t word, unsigned upper) {
        constexpr std::uint32_t unit = 0x5c005c00;  // 256
        return t.half_mul(fp8_pair(t.pick_bytes(word, 0, upper == 0 ? 0x1404u : 0x3424u)), unit);
    }
};

}  // namespace cuda
}  // namespace attention
}  // namespace zse::inline v1
