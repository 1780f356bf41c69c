// SPDX-License-Identifier: Apache-2.0
// Attention of many rows over paged, coded keys and values: tiles become halves once for a block of queries.
#pragma once

#include <zse/attention/cuda/half_tile.hpp>
#include <zse/attention/cuda/output.hpp>

namespace zse::inline v1 {
namespace attention {
namespace cuda {

/// A block takes 64 queries (rows and heads of one segment that share a key head), 16 for each warp, and walks the tiles
/// that some of them sees (Dao et al., arXiv 2205.14135). Tiles that a row does not see change nothing of it, so its
/// bits do not depend on the rows beside it. Queries, keys, values and weights are rounded to halves.
template <class K, class V, unsigned Dim>
struct PrefillKernel {
    static constexpr unsigned warps = 4;
    static constexpr unsigned threads = warps * exec::gpu::warp_threads;
    static constexpr unsigned queries = 16 * warps;

    AttendCall call;

    [[nodiscard]] exec::gpu::Launch launch() const noexcept {
        constexpr unsigned tile_bytes = (stages * Tiles::chunks + query_chunks) * sizeof(exec::gpu::Chunk);
        constexpr unsigned result_bytes = queries * Dim * sizeof(float);
        return {{(call.most_rows * call.group() + queries - 1) / queries, call.pages.layout.kv_heads,
                 call.segment_count},
                threads,
                tile_bytes < result_bytes ? result_bytes : tile_bytes};
    }

    template <class T>
    ZSE_DEVICE void operator()(T& t) const {
        const kv::Segment& segment = call.segments[t.block().z];
        const std::uint32_t items = segment.rows * call.group();
        // The last queries have the most to read: they begin first.
        const std::uint32_t first_item = (t.blocks().x - 1 - t.block().x) * queries;
        if (segment.rows <= few_rows || first_item >= items) return;
        const std::uint32_t last_item = first_item + queries < items ? first_item + queries - 1 : items - 1;
        const HeadPages pages = HeadPages::of(call.pages, segment, t.block().y);
        const std::uint32_t from = segment.first_position + first_item / call.group();
        const std::uint32_t to = segment.first_position + last_item / call.group();
        const TileWalk walk = TileWalk::of(pages.present, from, to, call.window);

        Lane lane;
        ZSE_UNROLL
        for (unsigned half = 0; half < 2; ++half) {
            const std::uint32_t item = first_item + t.warp() * 16 + half * 8 + t.lane() / 4;
            lane.there[half] = item <= last_item;
            const std::uint32_t row = (lane.there[half] ? item : last_item) / call.group();
            lane.position[half] = segment.first_position + row;
            lane.query[half] =
                call.q + (segment.first_row + row) * call.q_stride +
                static_cast<std::size_t>(t.block().y * call.group() +
                                         (lane.there[half] ? item : last_item) % call.group()) *
                    Dim;
        }
        load_queries(t, lane);
        walk_tiles(t, pages, walk, from, lane);
        finish(t, segment, first_item, last_item, lane);
    }

private:
    using Tiles = HalfTile<K, V, Dim, threads>;
    using Chunk = exec::gpu::Chunk;
    static constexpr unsigned steps = Dim / 16;
    static constexpr unsigned score_tiles = Tiles::tokens / 8;
    static constexpr unsigned value_tiles = Dim / 8;
    /// Wide heads leave no registers for queries and for codes on their way, nor shared memory for a second tile.
    static constexpr bool wide = Dim > 128;
    static constexpr unsigned stages = wide ? 1 : 2;
    static constexpr unsigned query_stride = Dim / 8 + 1;
    static constexpr unsigned query_chunks = wide ? queries * query_stride : 0;

    /// What a lane keeps of queries lane / 4 and lane / 4 + 8 of its warp.
    struct Lane {
        const float* query[2];
        std::uint32_t position[2];
        bool there[2];
        float greatest[2] = {lowest, lowest};
        float sum[2] = {0, 0};
        exec::gpu::FragmentA queries[wide ? 1 : steps];
        exec::gpu::FragmentD value[value_tiles]{};
    };

    /// Where matrix lane / 8 of four, 8 x 8 each, has row lane % 8: the two lower ones lie below each other.
    ZSE_DEVICE static unsigned matrix_row(unsigned lane) { return lane / 8 % 2 * 8 + lane % 8; }
    ZSE_DEVICE static unsigned matrix_column(unsigned lane) { return lane / 16; }

    template <class T>
    ZSE_DEVICE exec::gpu::FragmentA query_pairs(T& t, const Lane& lane, unsigned step) const {
        exec::gpu::FragmentA a;
        const float factor = call.scale * log2_e;
        ZSE_UNROLL
        for (unsigned i = 0; i < 4; ++i) {
            const unsigned half = i % 2;
            const float* from = lane.query[half] + step * 16 + i / 2 * 8 + t.lane() % 4 * 2;
            const float mine = lane.there[half] ? factor : 0.0f;
            a.pairs[i] = t.to_halves(t.load(from) * mine, t.load(from + 1) * mine);
        }
        return a;
    }
    template <class T>
    ZSE_DEVICE void load_queries(T& t, Lane& lane) const {
        if constexpr (wide) {
            const auto room = t.template shared<Chunk>(stages * Tiles::chunks * sizeof(Chunk), query_chunks);
            const auto words = room.template as<std::uint32_t>();
            for (unsigned step = 0; step < steps; ++step) {
                const exec::gpu::FragmentA a = query_pairs(t, lane, step);
                ZSE_UNROLL
                for (unsigned i = 0; i < 4; ++i) {
                    const unsigned row = t.warp() * 16 + i % 2 * 8 + t.lane() / 4;
                    words[row * query_stride * 4 + step * 8 + i / 2 * 4 + t.lane() % 4] = a.pairs[i];
                }
            }
            t.sync_warp();
        } else {
            ZSE_UNROLL
            for (unsigned step = 0; step < steps; ++step) lane.queries[step] = query_pairs(t, lane, step);
        }
    }
    template <class T>
    ZSE_DEVICE static exec::gpu::FragmentA query(T& t, const Lane& lane, unsigned step) {
        if constexpr (wide) {
            const auto room = t.template shared<Chunk>(stages * Tiles::chunks * sizeof(Chunk), query_chunks);
            const unsigned row = t.warp() * 16 + matrix_row(t.lane());
            return t.ldmatrix(room.from(row * query_stride + step * 2 + matrix_column(t.lane())));
        } else {
            return lane.queries[step];
        }
    }

    template <class T>
    ZSE_DEVICE void walk_tiles(T& t, const HeadPages& pages, const TileWalk& walk,
                               std::uint32_t lowest_position, Lane& lane) const {
        const auto tiles = t.template shared<Chunk>(0, stages * Tiles::chunks);
        if constexpr (!wide) {
            typename Tiles::Key keys[Tiles::key_rounds];
            typename Tiles::Value values[Tiles::value_rounds];
            const auto fetch = [&](std::uint32_t i) {
                const std::uint32_t tile = walk.tile(i);
                const TilePlace place = TilePlace::of(t, pages, tile);
                ZSE_UNROLL
                for (unsigned r = 0; r < Tiles::key_rounds; ++r)
                    keys[r] = Tiles::fetch_key(t, pages, place, r);
                ZSE_UNROLL
                for (unsigned r = 0; r < Tiles::value_rounds; ++r) {
                    values[r] = Tiles::fetch_value(t, pages, place, tile, r);
                }
            };
            fetch(0);
            for (std::uint32_t i = 0; i < walk.count; ++i) {
                // Threads that still read the tile before use the other half of the room.
                const auto tile = tiles.from(i % stages * Tiles::chunks);
                ZSE_UNROLL
                for (unsigned r = 0; r < Tiles::key_rounds; ++r) Tiles::put_key(t, keys[r], r, tile);
                ZSE_UNROLL
                for (unsigned r = 0; r < Tiles::value_rounds; ++r) {
                    Tiles::put_value(t, values[r], r, tile.from(Tiles::key_chunks));
                }
                if (i + 1 < walk.count) fetch(i + 1);
                t.sync();
                attend_tile(t, pages.present, lowest_position, walk.tile(i) * Tiles::tokens, tile, lane);
            }
        } else {
            for (std::uint32_t i = 0; i < walk.count; ++i) {
                const std::uint32_t tile = walk.tile(i);
                const TilePlace place = TilePlace::of(t, pages, tile);
                t.sync();
                ZSE_UNROLL
                for (unsigned r = 0; r < Tiles::key_rounds; ++r) {
                    Tiles::put_key(t, Tiles::fetch_key(t, pages, place, r), r, tiles);
                }
                ZSE_UNROLL
                for (unsigned r = 0; r < Tiles::value_rounds; ++r) {
                    Tiles::put_value(t, Tiles::fetch_value(t, pages, place, tile, r), r,
                                     tiles.from(Tiles::key_chunks));
                }
                t.sync();
                attend_tile(t, pages.present, lowest_position, tile * Tiles::tokens, tiles, lane);
            }
        }
    }

    template <class T, class Shared>
    ZSE_DEVICE void attend_tile(T& t, const Present& present, std::uint32_t lowest_position,
                                std::uint32_t tile_token, Shared tile, Lane& lane) const {
        const auto keys = tile.from(matrix_row(t.lane()) * Tiles::key_stride + matrix_column(t.lane()));
        const auto values = tile.from(Tiles::key_chunks + matrix_row(t.lane()) * Tiles::value_stride +
                                      matrix_column(t.lane()));
        exec::gpu::FragmentD d[score_tiles]{};
        ZSE_UNROLL
        for (unsigned step = 0; step < steps; ++step) {
            const exec::gpu::FragmentA a = query(t, lane, step);
            ZSE_UNROLL
            for (unsigned j = 0; j < score_tiles; j += 2) {
                const auto four = t.ldmatrix_transposed(keys.from(step * 16 * Tiles::key_stride + j));
                t.mma(d[j], a, {{four.pairs[0], four.pairs[1]}});
                t.mma(d[j + 1], a, {{four.pairs[2], four.pairs[3]}});
            }
        }
        mask(t, present, lowest_position, tile_token, lane, d);
        soften(t, lane, d);
        ZSE_UNROLL
        for (unsigned p = 0; p < score_tiles / 2; ++p) {
            exec::gpu::FragmentA a;
            ZSE_UNROLL
            for (unsigned i = 0; i < 4; ++i) {
                const float* of = d[2 * p + i / 2].values + i % 2 * 2;
                a.pairs[i] = t.to_halves(of[0], of[1]);
            }
            ZSE_UNROLL
            for (unsigned j = 0; j < value_tiles; j += 2) {
                const auto four = t.ldmatrix_transposed(values.from(p * 16 * Tiles::value_stride + j));
                t.mma(lane.value[j], a, {{four.pairs[0], four.pairs[1]}});
                t.mma(lane.value[j + 1], a, {{four.pairs[2], four.pairs[3]}});
            }
        }
    }

    template <class T>
    ZSE_DEVICE void mask(T& t, const Present& present, std::uint32_t lowest_position,
                         std::uint32_t tile_token, const Lane& lane,
                         exec::gpu::FragmentD (&d)[score_tiles]) const {
        const std::uint32_t last = tile_token + Tiles::tokens - 1;
        if (last <= lowest_position && present.all(tile_token, Tiles::tokens) &&
            tile_token >= first_seen(present.end - 1, call.window)) {
            return;
        }
        ZSE_UNROLL
        for (unsigned j = 0; j < score_tiles; ++j) {
            ZSE_UNROLL
            for (unsigned i = 0; i < 4; ++i) {
                const std::uint32_t token = tile_token + j * 8 + t.lane() % 4 * 2 + i % 2;
                const std::uint32_t position = lane.position[i / 2];
                const bool seen =
                    present.has(token) && token <= position && token >= first_seen(position, call.window);
                if (!seen) d[j].values[i] = lowest;
            }
        }
    }

    template <class T>
    ZSE_DEVICE static void soften(T& t, Lane& lane, exec::gpu::FragmentD (&d)[score_tiles]) {
        float before[2];
        ZSE_UNROLL
        for (unsigned half = 0; half < 2; ++half) {
            float greatest = lane.greatest[half];
            ZSE_UNROLL
            for (unsigned j = 0; j < score_tiles; ++j) {
                greatest = exec::gpu::Greatest{}(greatest, d[j].values[2 * half]);
                greatest = exec::gpu::Greatest{}(greatest, d[j].values[2 * half + 1]);
            }
            greatest = exec::gpu::Greatest{}(greatest, t.shuffle_xor(greatest, 1));
            greatest = exec::gpu::Greatest{}(greatest, t.shuffle_xor(greatest, 2));
            const float base = score_base(greatest);
            before[half] = t.exp2(lane.greatest[half] - base);
            lane.greatest[half] = greatest;
            float sum = 0;
            ZSE_UNROLL
            for (unsigned j = 0; j < score_tiles; ++j) {
                ZSE_UNROLL
                for (unsigned i = 0; i < 2; ++i) {
                    float& score = d[j].values[2 * half + i];
                    score = t.exp2(score - base);
                    sum += score;
                }
            }
            lane.sum[half] = lane.sum[half] * before[half] + sum;
        }
        // A factor of one changes nothing, and soon most are.
        if (t.ballot(before[0] != 1.0f || before[1] != 1.0f) == 0) return;
        ZSE_UNROLL
        for (auto& of : lane.value) {
            ZSE_UNROLL
            for (unsigned i = 0; i < 4; ++i) of.values[i] *= before[i / 2];
        }
    }

    template <class T>
    ZSE_DEVICE void finish(T& t, const kv::Segment& segment, std::uint32_t first_item,
                           std::uint32_t last_item, Lane& lane) const {
        const auto results = t.template shared<float>(0, queries * Dim);
        float sum[2];
        ZSE_UNROLL
        for (unsigned half = 0; half < 2; ++half) {
            sum[half] = lane.sum[half] + t.shuffle_xor(lane.sum[half], 1);
            sum[half] += t.shuffle_xor(sum[half], 2);
        }
        t.sync();  // the tiles of all warps have been read
        ZSE_UNROLL
        for (unsigned j = 0; j < value_tiles; ++j) {
            ZSE_UNROLL
            for (unsigned i = 0; i < 4; ++i) {
                const unsigned row = t.warp() * 16 + i / 2 * 8 + t.lane() / 4;
                results[row * Dim + j * 8 + t.lane() % 4 * 2 + i % 2] = lane.value[j].values[i];
            }
        }
        t.sync_warp();
        for (unsigned i = 0; i < 16; ++i) {
            const float of_row = t.shuffle(i < 8 ? sum[0] : sum[1], i % 8 * 4);
            const std::uint32_t item = first_item + t.warp() * 16 + i;
            if (item > last_item) break;  // all lanes of the warp
            kv::cuda::WarpRow<Dim / exec::gpu::warp_threads> value;
            ZSE_UNROLL
            for (unsigned j = 0; j < value.registers; ++j) {
                value.values[j] = results[(t.warp() * 16 + i) * Dim + value.index(t.lane(), j)];
            }
            store_output<V>(t, call, segment.first_row + item / call.group(),
                            t.block().y * call.group() + item % call.group(), value, of_row);
        }
    }
};

}  // namespace cuda
}  // namespace attention
}  // namespace zse::inline v1
