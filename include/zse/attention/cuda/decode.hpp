// SPDX-License-Identifier: Apache-2.0
// Attention of few rows over paged, coded keys and values: codes go from shared memory to tensor cores through registers,
// and a context is split among blocks.
#pragma once

#include <zse/attention/cuda/keys.hpp>
#include <zse/attention/cuda/output.hpp>
#include <zse/attention/cuda/values.hpp>

namespace zse::inline v1 {
namespace attention {
namespace cuda {

/// A block takes up to 8 queries (the rows and heads of one segment that share a key head) over one part of the context;
/// each of its warps walks tiles of 32 tokens on its own and keeps an online softmax (Dao et al., arXiv 2205.14135),
/// and the states of the warps merge at the end. A product has 16 rows: query i takes row i for what a half holds of
/// it and row i + 8 for the rest, so queries and weights are as exact as float32, at no cost where memory is what
/// one waits for. More than 8 queries are several blocks, which find each other's keys in the level-2 cache.
template <class K, class V, unsigned Dim>
struct DecodeKernel {
    using Layout = Tile<K, V, Dim>;
    using KeyTile = Keys<K, V, Dim>;
    using ValueTile = Values<K, V, Dim>;

    /// Two tiles of each warp are under way. Warps as many as keep a block near 72 KiB, so that three share a
    /// multiprocessor of 228 KiB and one fits into 99 KiB.
    static constexpr unsigned stages = 2;
    static constexpr unsigned warp_bytes = stages * (Layout::key_bytes + Layout::value_bytes);
    static constexpr unsigned block_bytes = 72 * 1024;
    static constexpr unsigned warps =
        4 * warp_bytes <= block_bytes ? 4 : (2 * warp_bytes <= block_bytes ? 2 : 1);
    static constexpr unsigned threads = warps * exec::gpu::warp_threads;
    static constexpr unsigned blocks_per_sm = 3;

    AttendCall call;
    SplitRule rule;
    std::uint32_t parts = 1;  ///< blocks of one context

    [[nodiscard]] exec::gpu::Launch launch() const noexcept {
        constexpr unsigned merge_bytes = warps * tile_queries * partial_floats(Dim) * sizeof(float);
        constexpr unsigned bytes = warps * warp_bytes + query_chunks * sizeof(exec::gpu::Chunk);
        return {{parts, call.pages.layout.kv_heads * query_tiles(), call.segment_count},
                threads,
                bytes < merge_bytes ? merge_bytes : bytes};
    }

    template <class T>
    ZSE_DEVICE void operator()(T& t) const {
        const kv::Segment& segment = call.segments[t.block().z];
        const std::uint32_t kv_head = t.block().y / query_tiles();
        const std::uint32_t first_item = t.block().y % query_tiles() * tile_queries;
        const std::uint32_t items = segment.rows * call.group();
        if (segment.rows > few_rows || first_item >= items) return;
        const HeadPages pages = HeadPages::of(call.pages, segment, kv_head);
        const TileWalk walk =
            TileWalk::of(pages.present, segment.first_position, pages.present.end - 1, call.window);
        const std::uint32_t each = rule.tiles_each(walk.count);
        const std::uint32_t begin = t.block().x * each;
        if (begin >= walk.count) return;
        const std::uint32_t end = begin + each < walk.count ? begin + each : walk.count;

        Lane lane;
        const std::uint32_t item = first_item + t.lane() / 4;
        lane.position = segment.first_position + (item < items ? item / call.group() : 0);
        walk_tiles(t, segment, kv_head, items, item, pages, walk, begin, end, lane);
        finish(t, segment, kv_head, first_item, items, walk, lane);
    }

private:
    /// What a lane keeps of query lane / 4: the state of the softmax, and its part of the value.
    struct Lane {
        std::uint32_t position = 0;
        float greatest = lowest;
        float sum = 0;
        exec::gpu::FragmentD value[ValueTile::stretches][ValueTile::tiles]{};
    };
    /// Scores of tokens 8 q to 8 q + 7 of a tile, then their weights.
    static constexpr unsigned lane_tokens = 8;
    /// Wide heads leave no registers for queries: the warps of a block read the same ones, from behind their tiles, and
    /// loops over steps stay loops. So three blocks share a multiprocessor.
    static constexpr bool wide = Dim > 64;
    static constexpr unsigned query_chunks = wide ? KeyTile::steps * exec::gpu::warp_threads : 0;
    static_assert(sizeof(exec::gpu::FragmentA) == sizeof(exec::gpu::Chunk));
    struct Queries {
        exec::gpu::FragmentA steps[wide ? 1 : KeyTile::steps];
    };

    /// What is left of a number after rounding to a half, times this, is a half again, and not a subnormal one.
    static constexpr float rest_unit = 2048;
    static constexpr float per_rest_unit = 1.0f / rest_unit;

    [[nodiscard]] constexpr std::uint32_t query_tiles() const noexcept {
        const std::uint32_t rows = call.most_rows < few_rows ? call.most_rows : few_rows;
        return (rows * call.group() + tile_queries - 1) / tile_queries;
    }

    /// Two values as a pair of halves, and what is left of them.
    template <class T>
    ZSE_DEVICE static void split(T& t, float a, float b, std::uint32_t& whole, std::uint32_t& rest) {
        whole = t.to_halves(a, b);
        rest = t.to_halves((a - t.low(whole)) * rest_unit, (b - t.high(whole)) * rest_unit);
    }
    ZSE_DEVICE static float joined(float whole, float rest) { return whole + rest * per_rest_unit; }

    template <class T>
    ZSE_DEVICE void load_queries(T& t, const kv::Segment& segment, std::uint32_t kv_head, std::uint32_t items,
                                 std::uint32_t item, Queries& queries) const {
        const bool mine = item < items;
        const std::uint32_t row = segment.first_row + (mine ? item / call.group() : 0);
        const std::uint32_t head = kv_head * call.group() + (mine ? item % call.group() : 0);
        const float* from = call.q + row * call.q_stride + static_cast<std::size_t>(head) * Dim;
        const float factor = mine ? call.scale * log2_e : 0.0f;
        ZSE_UNROLL
        for (unsigned step = 0; step < KeyTile::steps; ++step) {
            float values[4];
            ZSE_UNROLL
            for (unsigned i = 0; i < 4; ++i) {
                values[i] = t.load(from + KeyTile::dim(step, t.lane() % 4, i)) * factor;
            }
            exec::gpu::FragmentA a;
            split(t, values[0], values[1], a.pairs[0], a.pairs[1]);
            split(t, values[2], values[3], a.pairs[2], a.pairs[3]);
            if constexpr (wide) {
                if (step % warps == t.warp()) {
                    query_room(t)[step * exec::gpu::warp_threads + t.lane()] =
                        __builtin_bit_cast(exec::gpu::Chunk, a);
                }
            } else {
                queries.steps[step] = a;
            }
        }
        if constexpr (wide) t.sync();
    }
    template <class T>
    ZSE_DEVICE static auto query_room(T& t) {
        return t.template shared<exec::gpu::Chunk>(warps * warp_bytes, query_chunks);
    }
    template <class T>
    ZSE_DEVICE static exec::gpu::FragmentA query(T& t, const Queries& queries, unsigned step) {
        if constexpr (wide) {
            const exec::gpu::Chunk words = query_room(t)[step * exec::gpu::warp_threads + t.lane()];
            return __builtin_bit_cast(exec::gpu::FragmentA, words);
        } else {
            return queries.steps[step];
        }
    }

    template <class T>
    ZSE_DEVICE void walk_tiles(T& t, const kv::Segment& segment, std::uint32_t kv_head, std::uint32_t items,
                               std::uint32_t item, const HeadPages& pages, const TileWalk& walk,
                               std::uint32_t begin, std::uint32_t end, Lane& lane) const {
        using exec::gpu::Chunk;
        constexpr unsigned key_chunks = Layout::key_bytes / sizeof(Chunk);
        constexpr unsigned value_chunks = Layout::value_bytes / sizeof(Chunk);
        const auto ring = t.template shared<Chunk>(t.warp() * warp_bytes, warp_bytes / sizeof(Chunk));
        const auto values = ring.from(stages * key_chunks);

        // The addresses of a tile are looked up one tile before they are used.
        std::uint32_t next = begin + t.warp();
        TilePlace place;
        const auto look_up = [&] {
            if (next < end) place = TilePlace::of(t, pages, walk.tile(next));
        };
        const auto send_keys = [&](unsigned stage) {
            if (next < end) TileCopy<K, V, Dim>::keys(t, pages, place, ring.from(stage * key_chunks));
            t.commit();
        };
        const auto send_values = [&](unsigned stage) {
            if (next < end) {
                TileCopy<K, V, Dim>::values(t, pages, place, walk.tile(next),
                                            values.from(stage * value_chunks));
            }
            t.commit();
            next += warps;
            look_up();
        };
        look_up();
        for (unsigned stage = 0; stage < stages; ++stage) {
            send_keys(stage);
            send_values(stage);
        }
        Queries queries;
        load_queries(t, segment, kv_head, items, item, queries);

        // Copies end in the order in which they began: keys and values of a tile by turns.
        constexpr unsigned behind = 2 * stages - 1;
        unsigned stage = 0;
        for (;;) {
            const std::uint32_t i = next - stages * warps;
            if (i >= end) break;
            float weights[lane_tokens];
            t.template wait<behind>();
            t.sync_warp();
            score(t, ring.from(stage * key_chunks), queries, weights);
            t.sync_warp();
            send_keys(stage);
            mask(t, pages.present, segment.first_position, walk.tile(i) * Layout::tokens, lane, weights);
            soften(t, lane, weights);
            t.template wait<behind>();
            t.sync_warp();
            clear_absent(t, pages.present, walk.tile(i) * Layout::tokens, values.from(stage * value_chunks));
            add_values(t, values.from(stage * value_chunks), weights, lane);
            t.sync_warp();
            send_values(stage);
            stage = (stage + 1) % stages;
        }
        t.template wait<0>();
    }

    template <class T, class Shared>
    ZSE_DEVICE static void score(T& t, Shared tile, const Queries& queries, float (&scores)[lane_tokens]) {
        ZSE_UNROLL
        for (float& score : scores) score = 0;
        ZSE_UNROLL_BY((wide ? 1 : KeyTile::steps))
        for (unsigned part = 0; part < KeyTile::steps / KeyTile::scale_steps; ++part) {
            exec::gpu::FragmentD d[KeyTile::tiles]{};
            ZSE_UNROLL_BY((wide ? 2 : KeyTile::steps))
            for (unsigned s = 0; s < KeyTile::scale_steps; s += KeyTile::word_steps) {
                const unsigned step = part * KeyTile::scale_steps + s;
                exec::gpu::FragmentB b[KeyTile::word_steps][KeyTile::tiles];
                KeyTile::load(t, tile, step, b);
                ZSE_UNROLL
                for (unsigned w = 0; w < KeyTile::word_steps; ++w) {
                    const exec::gpu::FragmentA a = query(t, queries, step + w);
                    ZSE_UNROLL
                    for (unsigned j = 0; j < KeyTile::tiles; ++j) t.mma(d[j], a, b[w][j]);
                }
            }
            exec::gpu::Chunk scales{};
            if constexpr (kv::cuda::has_scales<K>) scales = KeyTile::scales(t, tile, part);
            ZSE_UNROLL
            for (unsigned k = 0; k < lane_tokens; ++k) {
                // Column 2 q + e of tile j is token 8 q + 4 e + j.
                const float* of = d[k % 4].values;
                const float sum = joined(of[k / 4], of[k / 4 + 2]);
                if constexpr (kv::cuda::has_scales<K>) {
                    const std::uint32_t pair = scales.words[k / 2];
                    scores[k] += sum * ((k % 2 == 0 ? t.low(pair) : t.high(pair)) * unit<K>);
                } else {
                    scores[k] += sum;
                }
            }
        }
    }

    /// Scores of tokens that a row does not see become -infinity.
    template <class T>
    ZSE_DEVICE void mask(T& t, const Present& present, std::uint32_t lowest_position,
                         std::uint32_t tile_token, const Lane& lane, float (&scores)[lane_tokens]) const {
        // The same for all lanes of the warp: most tiles are seen as a whole.
        const std::uint32_t last = tile_token + Layout::tokens - 1;
        if (last <= lowest_position && present.all(tile_token, Layout::tokens) &&
            tile_token >= first_seen(present.end - 1, call.window)) {
            return;
        }
        const std::uint32_t first = first_seen(lane.position, call.window);
        ZSE_UNROLL
        for (unsigned k = 0; k < lane_tokens; ++k) {
            const std::uint32_t token = tile_token + t.lane() % 4 * lane_tokens + k;
            if (!present.has(token) || token > lane.position || token < first) scores[k] = lowest;
        }
    }
    /// Scales of tokens that are not there become zeros: what no number is would outlive a weight of zero.
    template <class T, class Shared>
    ZSE_DEVICE static void clear_absent(T& t, const Present& present, std::uint32_t tile_token, Shared tile) {
        if constexpr (kv::cuda::has_scales<V>) {
            if (present.all(tile_token, Layout::tokens)) return;
            const auto scales =
                tile.from(Layout::v_scales_at / sizeof(exec::gpu::Chunk)).template as<std::uint16_t>();
            if (!present.has(tile_token + t.lane())) {
                for (unsigned i = 0; i < Layout::v_groups; ++i) scales[i * Layout::tokens + t.lane()] = 0;
            }
            t.sync_warp();
        }
    }

    /// Scores to weights, with what came before brought to the same base.
    template <class T>
    ZSE_DEVICE static void soften(T& t, Lane& lane, float (&scores)[lane_tokens]) {
        float greatest = lane.greatest;
        ZSE_UNROLL
        for (const float score : scores) greatest = exec::gpu::Greatest{}(greatest, score);
        greatest = exec::gpu::Greatest{}(greatest, t.shuffle_xor(greatest, 1));
        greatest = exec::gpu::Greatest{}(greatest, t.shuffle_xor(greatest, 2));
        const float base = score_base(greatest);
        const float before = t.exp2(lane.greatest - base);
        lane.greatest = greatest;
        float sum = 0;
        ZSE_UNROLL
        for (float& score : scores) {
            score = t.exp2(score - base);
            sum += score;
        }
        lane.sum = lane.sum * before + sum;
        // A factor of one changes nothing, and soon most are.
        if (t.ballot(before != 1.0f) == 0) return;
        ZSE_UNROLL
        for (auto& stretch : lane.value) {
            ZSE_UNROLL
            for (auto& d : stretch) {
                ZSE_UNROLL
                for (float& v : d.values) v *= before;
            }
        }
    }

    template <class T, class Shared>
    ZSE_DEVICE static void add_values(T& t, Shared tile, const float (&weights)[lane_tokens], Lane& lane) {
        exec::gpu::FragmentA a[ValueTile::products];
        ZSE_UNROLL
        for (unsigned stretch = 0; stretch < ValueTile::stretches; ++stretch) {
            if (stretch % ValueTile::scale_stretches == 0) {
                exec::gpu::Chunk scales{};
                if constexpr (kv::cuda::has_scales<V>) {
                    scales = ValueTile::scales(t, tile, stretch / ValueTile::scale_stretches);
                }
                ZSE_UNROLL
                for (unsigned k = 0; k < lane_tokens; k += 2) {
                    float first = weights[k];
                    float second = weights[k + 1];
                    if constexpr (kv::cuda::has_scales<V>) {
                        first *= t.low(scales.words[k / 2]);
                        second *= t.high(scales.words[k / 2]);
                    }
                    std::uint32_t* pairs = a[k / 4].pairs + k % 4;
                    split(t, first, second, pairs[0], pairs[1]);
                }
            }
            exec::gpu::FragmentB b[ValueTile::products][ValueTile::tiles];
            ValueTile::load(t, tile, stretch, b);
            ZSE_UNROLL
            for (unsigned p = 0; p < ValueTile::products; ++p) {
                ZSE_UNROLL
                for (unsigned j = 0; j < ValueTile::tiles; ++j) t.mma(lane.value[stretch][j], a[p], b[p][j]);
            }
        }
    }

    /// Merges the states of the warps, and writes an output, or a partial state of a part.
    template <class T>
    ZSE_DEVICE void finish(T& t, const kv::Segment& segment, std::uint32_t kv_head, std::uint32_t first_item,
                           std::uint32_t items, const TileWalk& walk, Lane& lane) const {
        constexpr unsigned state = partial_floats(Dim);
        const auto states = t.template shared<float>(0, warps * tile_queries * state);
        const auto mine = states.from((t.warp() * tile_queries + t.lane() / 4) * state);
        lane.sum += t.shuffle_xor(lane.sum, 1);
        lane.sum += t.shuffle_xor(lane.sum, 2);
        t.sync();  // the tiles of all warps have been read
        ZSE_UNROLL
        for (unsigned stretch = 0; stretch < ValueTile::stretches; ++stretch) {
            ZSE_UNROLL
            for (unsigned j = 0; j < ValueTile::tiles; ++j) {
                const float* d = lane.value[stretch][j].values;
                const unsigned column = t.lane() % 4 * 2;
                mine[ValueTile::dim(stretch, j, column)] = joined(d[0], d[2]) * unit<V>;
                mine[ValueTile::dim(stretch, j, column + 1)] = joined(d[1], d[3]) * unit<V>;
            }
        }
        if (t.lane() % 4 == 0) {
            mine[Dim] = lane.greatest;
            mine[Dim + 1] = lane.sum;
        }
        t.sync();
        const bool alone = call.extra_states == 0 && rule.parts(walk.count) == 1;
        for (unsigned query = t.warp(); query < tile_queries && first_item + query < items; query += warps) {
            float greatest = lowest;
            ZSE_UNROLL
            for (unsigned w = 0; w < warps; ++w) {
                const float of_warp = states[(w * tile_queries + query) * state + Dim];
                greatest = exec::gpu::Greatest{}(greatest, of_warp);
            }
            float sum = 0;
            kv::cuda::WarpRow<Dim / exec::gpu::warp_threads> value{};
            ZSE_UNROLL
            for (unsigned w = 0; w < warps; ++w) {
                const auto from = states.from((w * tile_queries + query) * state);
                const float factor = t.exp2(from[Dim] - score_base(greatest));
                sum += from[Dim + 1] * factor;
                ZSE_UNROLL
                for (unsigned j = 0; j < value.registers; ++j) {
                    value.values[j] += from[value.index(t.lane(), j)] * factor;
                }
            }
            const std::uint32_t row = (first_item + query) / call.group();
            const std::uint32_t head = kv_head * call.group() + (first_item + query) % call.group();
            if (alone) {
                store_output<V>(t, call, segment.first_row + row, head, value, sum);
                continue;
            }
            float* to =
                call.partials + PartialPlace::of(call, parts).at(call, t.block().z, row, head, t.block().x);
            ZSE_UNROLL
            for (unsigned j = 0; j < value.registers; ++j) to[value.index(t.lane(), j)] = value.values[j];
            if (t.lane() == 0) {
                to[Dim] = greatest;
                to[Dim + 1] = sum;
            }
        }
    }
};

}  // namespace cuda
}  // namespace attention
}  // namespace zse::inline v1
