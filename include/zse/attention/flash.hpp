// SPDX-License-Identifier: Apache-2.0
// Tiled attention with an online softmax over paged, coded keys and values (Dao et al., arXiv 2205.14135).
#pragma once

#include <zse/attention/arguments.hpp>

namespace zse::inline v1 {
namespace attention {

/// Tokens are split every `Split` absolute positions; each split gives a partial state, and the states merge in order
/// of position. So the bits of a row depend on its own tokens alone, and splits of one row can be computed by several
/// threads.
template <std::size_t Split = 256>
struct flash {
    static_assert(
        policy::require<"zse: attention::flash<" + policy::decimal<Split>() +
                            "> needs a split of 64, 128, 256, 512 or 1024 tokens; use attention::flash<256>",
                        (Split >= 64 && Split <= 1024 && (Split & (Split - 1)) == 0)>());
    static constexpr auto policy_family = policy::Family::attention;
    static constexpr auto spelling = "attention::flash<" + policy::decimal<Split>() + ">";
    static constexpr std::string_view name = "flash";

    /// An item is a block of rows of one segment and one key head, with all query heads that share it: keys and
    /// values are read once for all of them. Where a batch has too few such items for its threads and each segment is
    /// a single row, an item is one split of it, whose state goes to `partials`; Finish merges them.
    struct Attend {
        Arguments arguments;

        /// Queries that share a pass over the keys; more would only enlarge the scratch.
        static constexpr std::size_t most_queries = 64;
        /// More queries than this compute for longer than memory takes.
        static constexpr std::size_t most_ahead_queries = 16;

        [[nodiscard]] constexpr std::size_t block_rows() const noexcept {
            const std::size_t rows = most_queries / arguments.group();
            return rows < 1 ? 1 : (rows > 16 ? 16 : rows);
        }
        [[nodiscard]] constexpr std::size_t blocks_per_segment() const noexcept {
            return ceil_div(arguments.most_rows, block_rows());
        }
        /// Rows that may be spread: so few that their heads do not feed four items to each thread.
        [[nodiscard]] constexpr std::size_t spread_rows() const noexcept {
            return ceil_div(4 * arguments.threads, arguments.cache.pages.layout.kv_heads);
        }
        [[nodiscard]] constexpr bool spreads() const noexcept {
            return arguments.threads > 1 && arguments.most_rows == 1 &&
                   arguments.batch.segments.size() <= spread_rows();
        }
        [[nodiscard]] constexpr std::size_t most_splits() const noexcept {
            return ceil_div(arguments.most_tokens, Split);
        }
        [[nodiscard]] std::size_t splits() const noexcept {  // of the longest segment
            std::size_t most = 0;
            for (const kv::Segment& segment : arguments.batch.segments) {
                most = std::max(most, ceil_div(segment.first_position + segment.rows, Split));
            }
            return most;
        }
        [[nodiscard]] std::size_t items() const noexcept {
            const std::size_t heads = arguments.batch.segments.size() * arguments.cache.pages.layout.kv_heads;
            return spreads() ? heads * splits() : heads * blocks_per_segment();
        }
        /// Head widths padded to whole vectors of any instruction set.
        [[nodiscard]] constexpr std::size_t k_width() const noexcept {
            return round_up(arguments.cache.pages.layout.k_dim, 16);
        }
        [[nodiscard]] constexpr std::size_t v_width() const noexcept {
            return round_up(arguments.cache.pages.layout.v_dim, 16);
        }
        /// Floats of one partial state: a value, and its greatest score and sum.
        [[nodiscard]] constexpr std::size_t partial_floats() const noexcept { return v_width() + 2; }
        /// Floats of `partials`.
        [[nodiscard]] constexpr std::size_t partials_floats() const noexcept {
            if (arguments.threads == 1) return 0;
            return spread_rows() * arguments.heads * most_splits() * partial_floats();
        }
        [[nodiscard]] constexpr Bytes thread_bytes() const noexcept {
            const std::size_t queries = block_rows() * arguments.group();
            const std::size_t floats =
                queries * (k_width() + Split + 2 * v_width() + 4) + k_width() + gather_floats();
            return floats * sizeof(float);
        }

        void run(std::size_t item, const exec::Worker& worker) const noexcept {
            const std::size_t kv_heads = arguments.cache.pages.layout.kv_heads;
            const std::size_t kv_head = item % kv_heads;
            if (spreads()) {
                const std::size_t each = splits();
                const std::size_t which = item / kv_heads / each;
                attend_one_split(arguments.batch.segments[which], which, kv_head, item / kv_heads % each,
                                 reinterpret_cast<float*>(worker.scratch));
                return;
            }
            const std::size_t block = item / kv_heads % blocks_per_segment();
            const kv::Segment& segment = arguments.batch.segments[item / kv_heads / blocks_per_segment()];
            const std::size_t first = block * block_rows();
            if (first >= segment.rows) return;
            attend_block(segment, kv_head, first, std::min<std::size_t>(first + block_rows(), segment.rows),
                         reinterpret_cast<float*>(worker.scratch));
        }

        /// Merges what attend_one_split() left for a row, and writes its outputs.
        void finish(std::size_t row) const noexcept {
            float value[kv::most_head_dim];
            const kv::Segment& segment = arguments.batch.segments[row];  // each segment is one row
            const std::size_t count = ceil_div(segment.first_position + std::size_t{1}, Split);
            for (std::size_t head = 0; head < arguments.heads; ++head) {
                std::fill_n(value, v_width(), 0.0f);
                Partial state;
                for (std::size_t split = 0; split < count; ++split) {
                    const float* from = partial(row, head, split);
                    arguments.kernels.softmax->merge(state, value, {from[v_width()], from[v_width() + 1]},
                                                     from, v_width());
                }
                arguments.store_output(segment.first_row, head, value, state.sum);
            }
        }

    private:
        struct Scratch {
            std::byte* queries;   ///< `[queries][query_bytes]`
            float* query;         ///< `[k_width]`, one on its way
            float* scores;        ///< `[queries, Split]`
            float* values;        ///< `[queries, v_width]` merged so far
            float* part;          ///< `[queries, v_width]` of this split
            std::byte* gathered;  ///< a KeyBlock of tokens from several pages
            Partial* states;      ///< `[queries]`
            Partial* parts;       ///< `[queries]`
        };

        [[nodiscard]] constexpr std::size_t gather_floats() const noexcept {
            const kv::PageLayout& layout = arguments.cache.pages.layout;
            return KeyBlock::tokens * (layout.k_code + layout.k_scale + 16) / sizeof(float);
        }
        [[nodiscard]] Scratch divide(float* floats) const noexcept {
            const std::size_t queries = block_rows() * arguments.group();
            Scratch s{};
            s.scores = floats;
            s.values = s.scores + queries * Split;
            s.part = s.values + queries * v_width();
            s.queries = reinterpret_cast<std::byte*>(s.part + queries * v_width());
            s.query = reinterpret_cast<float*>(s.queries) + queries * k_width();
            s.states = reinterpret_cast<Partial*>(s.query + k_width());
            s.parts = s.states + queries;
            s.gathered = reinterpret_cast<std::byte*>(s.parts + queries);
            return s;
        }
        [[nodiscard]] float* partial(std::size_t which, std::size_t head, std::size_t split) const noexcept {
            return arguments.partials +
                   ((which * arguments.heads + head) * most_splits() + split) * partial_floats();
        }

        void prepare(const Scratch& s, std::size_t row, std::size_t head, std::size_t query) const noexcept {
            const std::size_t dim = arguments.cache.pages.layout.k_dim;
            arguments.load_query(row, head, s.query);
            arguments.kernels.keys->prepare(s.query, dim,
                                            s.queries + query * arguments.kernels.keys->query_bytes(dim));
        }

        /// Rows [first, last) of a segment for one key head.
        void attend_block(const kv::Segment& segment, std::size_t kv_head, std::size_t first,
                          std::size_t last, float* floats) const noexcept {
            const std::size_t group = arguments.group();
            const std::size_t queries = (last - first) * group;
            const Scratch s = divide(floats);
            std::fill_n(s.values, queries * v_width(), 0.0f);
            for (std::size_t i = 0; i < queries; ++i) {
                prepare(s, segment.first_row + first + i / group, kv_head * group + i % group, i);
                s.states[i] = Partial{};
            }
            const std::size_t end = segment.first_position + last;  // one past the last token any row sees
            for (std::size_t start = 0; start < end; start += Split) {
                attend_split(segment, kv_head, start, std::min(start + Split, end),
                             segment.first_position + first, queries, {start + Split, kv_head}, s);
                for (std::size_t i = 0; i < queries; ++i) {
                    arguments.kernels.softmax->merge(s.states[i], s.values + i * v_width(), s.parts[i],
                                                     s.part + i * v_width(), v_width());
                }
            }
            for (std::size_t i = 0; i < queries; ++i) {
                arguments.store_output(segment.first_row + first + i / group, kv_head * group + i % group,
                                       s.values + i * v_width(), s.states[i].sum);
            }
        }

        /// One split of a segment of one row, for all query heads of a key head.
        void attend_one_split(const kv::Segment& segment, std::size_t which, std::size_t kv_head,
                              std::size_t split, float* floats) const noexcept {
            const std::size_t end = segment.first_position + std::size_t{1};
            const std::size_t start = split * Split;
            if (start >= end) return;
            const std::size_t group = arguments.group();
            const Scratch s = divide(floats);
            for (std::size_t i = 0; i < group; ++i) prepare(s, segment.first_row, kv_head * group + i, i);
            const bool last_head = kv_head + 1 == arguments.cache.pages.layout.kv_heads;
            const Next next = last_head ? Next{start + Split, 0} : Next{start, kv_head + 1};
            attend_split(segment, kv_head, start, std::min(start + Split, end), segment.first_position, group,
                         next, s);
            for (std::size_t i = 0; i < group; ++i) {
                float* to = partial(which, kv_head * group + i, split);
                std::copy_n(s.part + i * v_width(), v_width(), to);
                to[v_width()] = s.parts[i].greatest;
                to[v_width() + 1] = s.parts[i].sum;
            }
        }

        /// What will be attended to after a split.
        struct Next {
            std::size_t start;
            std::size_t kv_head;
        };

        /// The partial states of tokens [start, end) for all queries; query i stands at position first_position +
        /// i / group and sees tokens up to its own.
        void attend_split(const kv::Segment& segment, std::size_t kv_head, std::size_t start, std::size_t end,
                          std::size_t first_position, std::size_t queries, const Next& next,
                          const Scratch& s) const noexcept {
            const std::size_t group = arguments.group();
            const auto seen = [&](std::size_t query) {  // tokens of this split that the query sees
                const std::size_t position = first_position + query / group;
                return position < start ? std::size_t{0} : std::min(position + 1, end) - start;
            };
            // Pages lie far apart, so no hardware looks ahead from one to the next. While keys are read, values are
            // asked for; while values are read, the keys that come after.
            for (std::size_t token = start; token < end; token += KeyBlock::tokens) {
                prefetch_values(segment, kv_head, token);
                const KeyBlock keys = key_block(segment, kv_head, token, end, s.gathered);
                arguments.kernels.keys->score(keys, s.queries, queries, s.scores + (token - start), Split);
            }
            for (std::size_t i = 0; i < queries; ++i) {
                s.parts[i] = arguments.kernels.softmax->softmax(s.scores + i * Split, seen(i));
            }
            std::fill_n(s.part, queries * v_width(), 0.0f);
            // Queries of one row see the same tokens; later rows see more, up to all of the split.
            const std::byte* pages[Split];
            ValuePages values = value_pages(segment, kv_head, start, end, pages);
            const std::byte* ahead[Split];
            const std::size_t next_end = next.start + (end - start);
            if (queries <= most_ahead_queries && next_end <= segment.first_position + segment.rows) {
                list_heads(segment, next.kv_head, next.start, next_end, 0, ahead);
                values.ahead = ahead;
                values.ahead_bytes = arguments.cache.pages.layout.v_codes_at();
            }
            for (std::size_t i = 0; i < queries;) {
                values.tokens = seen(i);
                const std::size_t count = values.tokens == end - start ? queries - i : group;
                arguments.kernels.values->accumulate(values, s.scores + i * Split, Split, count,
                                                     s.part + i * v_width(), v_width());
                i += count;
            }
        }

        /// Asks for the values of the block that begins at `token`.
        void prefetch_values(const kv::Segment& segment, std::size_t kv_head,
                             std::size_t token) const noexcept {
            const kv::PageLayout& layout = arguments.cache.pages.layout;
            const std::byte* at =
                arguments.cache.pages.head(segment.pages[token / layout.page_tokens], kv_head);
            touch(at + layout.v_codes_at());
            touch(at + layout.head_bytes() - 1);
            for (std::size_t line = layout.v_codes_at(); line < layout.head_bytes(); line += 64) {
                __builtin_prefetch(at + line, 0, 2);
            }
        }

        /// The keys of 16 tokens from `token`; those at or after `end` may be anything.
        [[nodiscard]] KeyBlock key_block(const kv::Segment& segment, std::size_t kv_head, std::size_t token,
                                         std::size_t end, std::byte* gathered) const noexcept {
            const kv::PageLayout& layout = arguments.cache.pages.layout;
            KeyBlock block;
            block.dim = layout.k_dim;
            if (layout.page_tokens >= KeyBlock::tokens) {
                const std::byte* at =
                    arguments.cache.pages.head(segment.pages[token / layout.page_tokens], kv_head);
                const std::size_t slot = token % layout.page_tokens;
                block.codes = at + slot * layout.k_piece;
                block.scales = at + layout.k_scales_at() + slot * kv::PageLayout::scale_piece;
                block.piece_stride = layout.page_tokens * layout.k_piece;
                block.scale_stride = layout.page_tokens * kv::PageLayout::scale_piece;
                return block;
            }
            block.codes = gathered;
            block.scales = gathered + KeyBlock::tokens * layout.k_code;
            block.piece_stride = KeyBlock::tokens * layout.k_piece;
            block.scale_stride = KeyBlock::tokens * kv::PageLayout::scale_piece;
            for (std::size_t t = 0; t < KeyBlock::tokens && token + t < end; ++t) {
                const std::size_t slot = (token + t) % layout.page_tokens;
                const std::byte* at =
                    arguments.cache.pages.head(segment.pages[(token + t) / layout.page_tokens], kv_head);
                const auto copy = [&](std::byte* to, const std::byte* from, std::size_t pieces,
                                      std::size_t size) {
                    for (std::size_t p = 0; p < pieces; ++p) {
                        std::memcpy(to + (p * KeyBlock::tokens + t) * size,
                                    from + (p * layout.page_tokens + slot) * size, size);
                    }
                };
                copy(gathered, at, layout.k_code / layout.k_piece, layout.k_piece);
                copy(gathered + KeyBlock::tokens * layout.k_code, at + layout.k_scales_at(),
                     layout.k_scale / kv::PageLayout::scale_piece, kv::PageLayout::scale_piece);
            }
            return block;
        }

        /// For each page of tokens [first, last), the byte of this head at `offset`.
        void list_heads(const kv::Segment& segment, std::size_t kv_head, std::size_t first, std::size_t last,
                        std::size_t offset, const std::byte** pages) const noexcept {
            const std::size_t page_tokens = arguments.cache.pages.layout.page_tokens;
            for (std::size_t token = first; token < last; token += page_tokens) {
                *pages++ = arguments.cache.pages.head(segment.pages[token / page_tokens], kv_head) + offset;
            }
        }

        /// The values of tokens [first, last), where `first` is a multiple of any page's tokens.
        [[nodiscard]] ValuePages value_pages(const kv::Segment& segment, std::size_t kv_head,
                                             std::size_t first, std::size_t last,
                                             const std::byte** pages) const noexcept {
            const kv::PageLayout& layout = arguments.cache.pages.layout;
            list_heads(segment, kv_head, first, last, layout.v_codes_at(), pages);
            ValuePages values;
            values.codes = pages;
            values.scales_at = layout.v_scales_at() - layout.v_codes_at();
            values.page_tokens = layout.page_tokens;
            values.dim = layout.v_dim;
            return values;
        }
    };
};

/// After attention, row by row: what was spread over several items is merged, and the outputs are brought to the form
/// that the product after it reads.
template <class Attend>
struct Finish {
    Attend attend;
    kernels::Activations out;  ///< its floats are the outputs themselves

    [[nodiscard]] constexpr std::size_t items() const noexcept {
        return attend.spreads() || out.codes != nullptr ? out.tokens : 0;
    }
    [[nodiscard]] constexpr Bytes thread_bytes() const noexcept { return 0; }
    void run(std::size_t row, const exec::Worker& /*worker*/) const noexcept {
        if (attend.spreads()) attend.finish(row);
        if (out.codes == nullptr) return;
        attend.arguments.kernels.rows->quantise(attend.arguments.out + row * out.columns, out.columns,
                                                out.coded(row));
    }
};

}  // namespace attention
}  // namespace zse::inline v1
