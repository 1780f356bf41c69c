// SPDX-License-Identifier: Apache-2.0
// Tiled attention with an online softmax over paged, coded keys and values (Dao et al., arXiv 2205.14135).
#pragma once

#include <zse/attention/arguments.hpp>
#include <zse/attention/key_block.hpp>

#include <limits>

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
    /// Stretches in which chunks are cut where tokens are dropped or coded anew: whole splits, so that a split has one
    /// codec.
    static constexpr std::uint32_t cut = Split < 256 ? 256 : Split;

    /// An item is a block of rows of one segment and one key head, with all query heads that share it: keys and
    /// values are read once for all of them. Where a batch has too few such items for its threads and each segment is
    /// a single row, an item is one split of it, whose state goes to `partials`; Finish merges them.
    struct Attend {
        Arguments arguments;

        /// Queries that share a pass over the keys; more would only enlarge the scratch.
        static constexpr std::size_t most_queries = 64;
        /// More queries than this compute for longer than memory takes.
        static constexpr std::size_t most_ahead_queries = 16;
        /// Any page begins at a multiple of this.
        static constexpr std::size_t most_page_tokens = 32;

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

        [[nodiscard]] constexpr Bytes workspace_bytes() const noexcept { return arguments.workspace_bytes(); }
        void enqueue(exec::gpu::Stream& stream) const noexcept {
            arguments.enqueue(stream, arguments.kernels.device->attend);
        }

        /// Merges what attend_one_split() left for a row, and writes its outputs.
        void finish(std::size_t row) const noexcept {
            float value[kv::most_head_dim];
            const kv::Segment& segment = arguments.batch.segments[row];  // each segment is one row
            for (std::size_t head = 0; head < arguments.heads; ++head) {
                std::fill_n(value, v_width(), 0.0f);
                Partial state;
                bool turned = false;
                for (std::size_t start = 0; start <= segment.first_position; start += Split) {
                    const Span span = visible(segment, start, segment.first_position, segment.first_position);
                    if (span.empty()) continue;
                    turn(value, turned, source(segment, start).cache->v->rotates);
                    const float* from = partial(row, head, start / Split);
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
        /// Where the tokens of a split lie, and what reads them.
        struct Source {
            const kv::LayerCache* cache;
            const CacheKernels* kernels;
            const kv::PageIndex* pages;
        };
        /// Tokens [from, end) of a split that begins at `start`: those that some row of a block sees. `from` is where a
        /// page may begin.
        struct Span {
            std::size_t start = 0;
            std::size_t from = 0;
            std::size_t end = 0;
            [[nodiscard]] constexpr bool empty() const noexcept { return from >= end; }
        };

        [[nodiscard]] static bool is_old(const kv::Segment& segment, std::size_t start) noexcept {
            return start < segment.boundary && segment.old_pages != nullptr;
        }
        [[nodiscard]] Source source(const kv::Segment& segment, std::size_t start) const noexcept {
            if (is_old(segment, start))
                return {&arguments.old_cache, &arguments.old_kernels, segment.old_pages};
            return {&arguments.cache, &arguments.kernels, segment.pages};
        }
        /// What rows at positions first to last see of the split at `start`.
        [[nodiscard]] Span visible(const kv::Segment& segment, std::size_t start, std::size_t first,
                                   std::size_t last) const noexcept {
            Span span{start, start, std::min(start + Split, last + 1)};
            if (start < segment.boundary) {  // what is old and kept, or the sinks alone
                const bool old = segment.old_pages != nullptr;
                span.end = std::min<std::size_t>(span.end, old ? segment.old_tokens : segment.sinks);
            }
            const std::size_t seen = arguments.first_seen(first);
            if (seen >= span.end) {
                span.end = span.from;
            } else if (seen > start) {
                span.from = seen / most_page_tokens * most_page_tokens;
            }
            return span;
        }
        /// Brings values to the basis in which the next ones are: tokens of two codecs may be turned differently.
        void turn(float* value, bool& turned, bool wanted) const noexcept {
            if (turned == wanted) return;
            arguments.cache.v->rotate(value, arguments.cache.pages.layout.v_dim);
            turned = wanted;
        }

        [[nodiscard]] constexpr std::size_t gather_floats() const noexcept {
            const auto bytes = [](const kv::PageLayout& layout) {
                return KeyBlock::tokens * (layout.k_code + layout.k_scale + 16);
            };
            return std::max(bytes(arguments.cache.pages.layout), bytes(arguments.old_cache.pages.layout)) /
                   sizeof(float);
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

        void prepare(const Source& from, const Scratch& s, std::size_t row, std::size_t head,
                     std::size_t query) const noexcept {
            const std::size_t dim = arguments.cache.pages.layout.k_dim;
            arguments.load_query(row, head, from.cache->k->rotates, s.query);
            from.kernels->keys->prepare(s.query, dim,
                                        s.queries + query * from.kernels->keys->query_bytes(dim));
        }

        /// Rows [first, last) of a segment for one key head.
        void attend_block(const kv::Segment& segment, std::size_t kv_head, std::size_t first,
                          std::size_t last, float* floats) const noexcept {
            const std::size_t group = arguments.group();
            const std::size_t queries = (last - first) * group;
            const Scratch s = divide(floats);
            std::fill_n(s.values, queries * v_width(), 0.0f);
            for (std::size_t i = 0; i < queries; ++i) s.states[i] = Partial{};
            const CacheKernels* prepared = nullptr;
            bool turned = false;
            const std::size_t first_position = segment.first_position + first;
            const std::size_t last_position = segment.first_position + last - 1;
            for (std::size_t start = 0; start <= last_position; start += Split) {
                const Span span = visible(segment, start, first_position, last_position);
                if (span.empty()) continue;
                const Source from = source(segment, start);
                if (from.kernels != prepared) {
                    for (std::size_t i = 0; i < queries; ++i) {
                        prepare(from, s, segment.first_row + first + i / group, kv_head * group + i % group,
                                i);
                        bool basis = turned;
                        turn(s.values + i * v_width(), basis, from.cache->v->rotates);
                    }
                    turned = from.cache->v->rotates;
                    prepared = from.kernels;
                }
                attend_split(segment, from, kv_head, span, first_position, queries, {start + Split, kv_head},
                             s);
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
            const std::size_t start = split * Split;
            const std::size_t position = segment.first_position;
            if (start > position) return;
            const Span span = visible(segment, start, position, position);
            if (span.empty()) return;
            const std::size_t group = arguments.group();
            const Scratch s = divide(floats);
            const Source from = source(segment, start);
            for (std::size_t i = 0; i < group; ++i)
                prepare(from, s, segment.first_row, kv_head * group + i, i);
            const bool last_head = kv_head + 1 == arguments.cache.pages.layout.kv_heads;
            const Next next = last_head ? Next{start + Split, 0} : Next{start, kv_head + 1};
            attend_split(segment, from, kv_head, span, position, group, next, s);
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

        /// The partial states of a span of tokens for all queries; query i stands at position first_position +
        /// i / group and sees tokens up to its own.
        void attend_split(const kv::Segment& segment, const Source& source, std::size_t kv_head,
                          const Span& span, std::size_t first_position, std::size_t queries, const Next& next,
                          const Scratch& s) const noexcept {
            const std::size_t group = arguments.group();
            const auto seen = [&](std::size_t query) {  // tokens of this split up to the query's own
                const std::size_t position = first_position + query / group;
                return position < span.start ? std::size_t{0} : std::min(position + 1, span.end) - span.start;
            };
            const auto hidden = [&](std::size_t query) {  // of those, how many lie before its window
                const std::size_t first = arguments.first_seen(first_position + query / group);
                return first < span.start ? std::size_t{0} : first - span.start;
            };
            // Pages lie far apart, so no hardware looks ahead from one to the next. While keys are read, values are
            // asked for; while values are read, the keys that come after.
            for (std::size_t token = span.from; token < span.end; token += KeyBlock::tokens) {
                prefetch_values(source, kv_head, token);
                const KeyBlock keys =
                    key_block(source.cache->pages, source.pages, kv_head, token, span.end, s.gathered);
                source.kernels->keys->score(keys, s.queries, queries, s.scores + (token - span.start), Split);
            }
            for (std::size_t i = 0; i < queries; ++i) {
                float* scores = s.scores + i * Split;
                const std::size_t before = hidden(i);
                if (before >= seen(i)) {
                    s.parts[i] = Partial{};
                    std::fill_n(scores, span.end - span.start, 0.0f);
                    continue;
                }
                // Sums run over whole vectors from the start of the split, so what a window hides changes no order.
                std::fill_n(scores, before, -std::numeric_limits<float>::infinity());
                s.parts[i] = arguments.kernels.softmax->softmax(scores, seen(i));
            }
            std::fill_n(s.part, queries * v_width(), 0.0f);
            // Queries of one row see the same tokens; later rows see more, up to all of the split.
            const std::byte* pages[Split];
            const std::size_t skipped = span.from - span.start;
            ValuePages values = value_pages(source, kv_head, span.from, span.end, pages);
            const std::byte* ahead[Split];
            const std::size_t next_end = next.start + (span.end - span.from);
            const bool all_there = !is_old(segment, next.start) || next_end <= segment.old_tokens;
            if (queries <= most_ahead_queries && next_end <= segment.first_position + segment.rows &&
                is_old(segment, next.start) == is_old(segment, span.start) && all_there) {
                list_heads(source, next.kv_head, next.start, next_end, 0, ahead);
                values.ahead = ahead;
                values.ahead_bytes = source.cache->pages.layout.v_codes_at();
            }
            for (std::size_t i = 0; i < queries;) {
                const std::size_t tokens = seen(i);
                const std::size_t count = tokens == span.end - span.start ? queries - i : group;
                values.tokens = tokens > skipped ? tokens - skipped : 0;
                source.kernels->values->accumulate(values, s.scores + i * Split + skipped, Split, count,
                                                   s.part + i * v_width(), v_width());
                i += count;
            }
        }

        /// Asks for the values of the block that begins at `token`.
        static void prefetch_values(const Source& source, std::size_t kv_head, std::size_t token) noexcept {
            const kv::PageLayout& layout = source.cache->pages.layout;
            const std::byte* at = source.cache->pages.head(source.pages[token / layout.page_tokens], kv_head);
            touch(at + layout.v_codes_at());
            touch(at + layout.head_bytes() - 1);
            for (std::size_t line = layout.v_codes_at(); line < layout.head_bytes(); line += 64) {
                __builtin_prefetch(at + line, 0, 2);
            }
        }

        /// For each page of tokens [first, last), the byte of this head at `offset`.
        static void list_heads(const Source& source, std::size_t kv_head, std::size_t first, std::size_t last,
                               std::size_t offset, const std::byte** pages) noexcept {
            const std::size_t page_tokens = source.cache->pages.layout.page_tokens;
            for (std::size_t token = first; token < last; token += page_tokens) {
                *pages++ = source.cache->pages.head(source.pages[token / page_tokens], kv_head) + offset;
            }
        }

        /// The values of tokens [first, last), where `first` is a multiple of any page's tokens.
        [[nodiscard]] static ValuePages value_pages(const Source& source, std::size_t kv_head,
                                                    std::size_t first, std::size_t last,
                                                    const std::byte** pages) noexcept {
            const kv::PageLayout& layout = source.cache->pages.layout;
            list_heads(source, kv_head, first, last, layout.v_codes_at(), pages);
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
