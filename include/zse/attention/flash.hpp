// SPDX-License-Identifier: Apache-2.0
// Tiled attention with an online softmax over paged, coded keys and values (Dao et al., arXiv 2205.14135).
#pragma once

#include <zse/attention/arguments.hpp>
#include <zse/attention/partial.hpp>

namespace zse::inline v1 {
namespace attention {

/// Tokens are split every `Split` absolute positions; each split gives a partial state, and the states merge
/// in order of position. So the bits of a row depend on its own tokens alone, and scratch does not grow with
/// the context.
template <std::size_t Split = 256>
struct flash {
    static_assert(
        policy::require<"zse: attention::flash<" + policy::decimal<Split>() +
                            "> needs a split of 64, 128, 256, 512 or 1024 tokens; use attention::flash<256>",
                        (Split >= 64 && Split <= 1024 && (Split & (Split - 1)) == 0)>());
    static constexpr auto policy_family = policy::Family::attention;
    static constexpr auto spelling = "attention::flash<" + policy::decimal<Split>() + ">";
    static constexpr std::string_view name = "flash";

    /// An item is a block of rows of one segment and one key head, with all query heads that share it: keys
    /// and values are decoded once for all of them.
    struct Attend {
        Arguments arguments;

        /// Tokens decoded at a time: with 128 values a head, keys fill 32 KiB, a level-1 cache.
        static constexpr std::size_t tile_tokens = 64;
        /// Query rows that share a decoded tile; more would only enlarge the scratch.
        static constexpr std::size_t most_block_heads = 64;

        [[nodiscard]] constexpr std::size_t block_rows() const noexcept {
            const std::size_t rows = most_block_heads / arguments.group();
            return rows < 1 ? 1 : (rows > 16 ? 16 : rows);
        }
        [[nodiscard]] constexpr std::size_t blocks_per_segment() const noexcept {
            return ceil_div(arguments.most_rows, block_rows());
        }
        [[nodiscard]] constexpr std::size_t items() const noexcept {
            return arguments.batch.segments.size() * blocks_per_segment() *
                   arguments.cache.pages.layout.kv_heads;
        }
        /// Head widths padded to whole vectors of any instruction set.
        [[nodiscard]] constexpr std::size_t k_width() const noexcept {
            return round_up(arguments.cache.pages.layout.k_dim, 16);
        }
        [[nodiscard]] constexpr std::size_t v_width() const noexcept {
            return round_up(arguments.cache.pages.layout.v_dim, 16);
        }
        [[nodiscard]] constexpr Bytes thread_bytes() const noexcept {
            const std::size_t queries = block_rows() * arguments.group();
            const std::size_t floats = queries * (k_width() + Split + 2 * v_width() + 4) +
                                       tile_tokens * (k_width() > v_width() ? k_width() : v_width());
            return floats * sizeof(float);
        }

        void run(std::size_t item, const exec::Worker& worker) const noexcept {
            const std::size_t kv_heads = arguments.cache.pages.layout.kv_heads;
            const std::size_t kv_head = item % kv_heads;
            const std::size_t block = item / kv_heads % blocks_per_segment();
            const kv::Segment& segment = arguments.batch.segments[item / kv_heads / blocks_per_segment()];
            const std::size_t first = block * block_rows();
            if (first >= segment.rows) return;
            attend_block(segment, kv_head, first, std::min<std::size_t>(first + block_rows(), segment.rows),
                         reinterpret_cast<float*>(worker.scratch));
        }

    private:
        struct Scratch {
            float* queries;   ///< `[queries, k_width]`
            float* scores;    ///< `[queries, Split]`
            float* values;    ///< `[queries, v_width]` merged so far
            float* part;      ///< `[queries, v_width]` of this split
            float* tile;      ///< `[tile_tokens, width]` decoded keys or values
            Partial* states;  ///< `[queries]`
            Partial* parts;   ///< `[queries]`
        };

        [[nodiscard]] Scratch divide(float* floats, std::size_t queries) const noexcept {
            Scratch s{};
            s.queries = floats;
            s.scores = s.queries + queries * k_width();
            s.values = s.scores + queries * Split;
            s.part = s.values + queries * v_width();
            s.states = reinterpret_cast<Partial*>(s.part + queries * v_width());
            s.parts = s.states + queries;
            s.tile = reinterpret_cast<float*>(s.parts + queries);
            return s;
        }

        /// Rows [first, last) of a segment for one key head.
        void attend_block(const kv::Segment& segment, std::size_t kv_head, std::size_t first,
                          std::size_t last, float* floats) const noexcept {
            const std::size_t group = arguments.group();
            const std::size_t queries = (last - first) * group;
            const Scratch s = divide(floats, block_rows() * group);
            std::fill(s.queries, s.queries + queries * k_width(), 0.0f);
            std::fill(s.values, s.values + queries * v_width(), 0.0f);
            std::fill(s.tile, s.tile + tile_tokens * std::max(k_width(), v_width()), 0.0f);
            for (std::size_t i = 0; i < queries; ++i) {
                arguments.load_query(segment.first_row + first + i / group, kv_head * group + i % group,
                                     s.queries + i * k_width());
                s.states[i] = Partial{};
            }
            const std::size_t end = segment.first_position + last;  // one past the last token any row sees
            for (std::size_t start = 0; start < end; start += Split) {
                attend_split(segment, kv_head, start, std::min(start + Split, end),
                             segment.first_position + first, queries, s);
                for (std::size_t i = 0; i < queries; ++i) {
                    merge(s.states[i], s.values + i * v_width(), s.parts[i], s.part + i * v_width(),
                          v_width());
                }
            }
            for (std::size_t i = 0; i < queries; ++i) {
                arguments.store_output(segment.first_row + first + i / group, kv_head * group + i % group,
                                       s.values + i * v_width(), s.states[i].sum);
            }
        }

        /// The partial states of tokens [start, end) for all queries; query i stands at position
        /// first_position + i / group and sees tokens up to its own.
        void attend_split(const kv::Segment& segment, std::size_t kv_head, std::size_t start, std::size_t end,
                          std::size_t first_position, std::size_t queries, const Scratch& s) const noexcept {
            const std::size_t group = arguments.group();
            const auto seen = [&](std::size_t query) {  // tokens of this split that the query sees
                const std::size_t position = first_position + query / group;
                return position < start ? std::size_t{0} : std::min(position + 1, end) - start;
            };
            for (std::size_t tile = start; tile < end; tile += tile_tokens) {
                const std::size_t tile_end = std::min(tile + tile_tokens, end);
                arguments.load_keys(segment, kv_head, tile, tile_end, s.tile, k_width());
                for (std::size_t i = 0; i < queries; ++i) {
                    const std::size_t count = std::min(seen(i), tile_end - start);
                    score(s.queries + i * k_width(), s.tile, tile - start, count, s.scores + i * Split);
                }
            }
            for (std::size_t i = 0; i < queries; ++i) s.parts[i] = softmax(s.scores + i * Split, seen(i));
            // Rows of the tile keep zeros above v_dim: keys may have been wider.
            std::fill(s.tile, s.tile + tile_tokens * v_width(), 0.0f);
            std::fill(s.part, s.part + queries * v_width(), 0.0f);
            for (std::size_t tile = start; tile < end; tile += tile_tokens) {
                const std::size_t tile_end = std::min(tile + tile_tokens, end);
                arguments.load_values(segment, kv_head, tile, tile_end, s.tile, v_width());
                for (std::size_t i = 0; i < queries; ++i) {
                    const std::size_t count = std::min(seen(i), tile_end - start);
                    add_values(s.scores + i * Split, s.tile, tile - start, count, s.part + i * v_width());
                }
            }
            std::fill(s.tile, s.tile + tile_tokens * k_width(), 0.0f);
        }

        /// scores[t] = query . key t, for t in [first, last) of the split; the tile begins at token `first`.
        void score(const float* query, const float* keys, std::size_t first, std::size_t last,
                   float* scores) const noexcept {
            namespace simd = kernels::cpu;
            for (std::size_t t = first; t < last; ++t) {
                const float* key = keys + (t - first) * k_width();
                auto sum = simd::hn::Zero(simd::f32_tag);
                for (std::size_t d = 0; d < k_width(); d += simd::lanes) {
                    sum = simd::hn::MulAdd(simd::hn::LoadU(simd::f32_tag, query + d),
                                           simd::hn::LoadU(simd::f32_tag, key + d), sum);
                }
                scores[t] = simd::sum_lanes(sum);
            }
        }

        /// Replaces scores by exp(score - greatest); returns the state. `count` scores of a split.
        static Partial softmax(float* scores, std::size_t count) noexcept {
            namespace simd = kernels::cpu;
            namespace hn = simd::hn;
            Partial state;
            for (std::size_t t = 0; t < count; ++t) state.greatest = std::fmax(state.greatest, scores[t]);
            const auto greatest = hn::Set(simd::f32_tag, state.greatest);
            auto sum = hn::Zero(simd::f32_tag);
            // Beyond the end stand minus infinities, whose weight is zero: lane sums do not depend on where a
            // split ends.
            for (std::size_t t = count; t < round_up(count, simd::lanes); ++t) {
                scores[t] = -std::numeric_limits<float>::infinity();
            }
            for (std::size_t t = 0; t < count; t += simd::lanes) {
                const auto weight =
                    hn::Exp(simd::f32_tag, hn::Sub(hn::LoadU(simd::f32_tag, scores + t), greatest));
                hn::StoreU(weight, simd::f32_tag, scores + t);
                sum = hn::Add(sum, weight);
            }
            state.sum = count == 0 ? 0.0f : simd::sum_lanes(sum);
            return state;
        }

        /// value += sum of weights[t] * value t, for t in [first, last) of the split, in order.
        void add_values(const float* weights, const float* values, std::size_t first, std::size_t last,
                        float* value) const noexcept {
            namespace simd = kernels::cpu;
            for (std::size_t d = 0; d < v_width(); d += simd::lanes) {
                auto sum = simd::hn::LoadU(simd::f32_tag, value + d);
                for (std::size_t t = first; t < last; ++t) {
                    sum = simd::hn::MulAdd(
                        simd::hn::Set(simd::f32_tag, weights[t]),
                        simd::hn::LoadU(simd::f32_tag, values + (t - first) * v_width() + d), sum);
                }
                simd::hn::StoreU(sum, simd::f32_tag, value + d);
            }
        }
    };
};

}  // namespace attention
}  // namespace zse::inline v1
