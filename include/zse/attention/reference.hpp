// SPDX-License-Identifier: Apache-2.0
// Attention as the formula says it, in double precision: the truth for tests, with scratch that grows with
// the context.
#pragma once

#include <zse/attention/arguments.hpp>

#include <cmath>
#include <limits>

namespace zse::inline v1 {
namespace attention {

/// One row at a time, all scores kept.
struct reference {
    static constexpr auto policy_family = policy::Family::attention;
    static constexpr policy::Sentence spelling{"attention::reference"};
    static constexpr std::string_view name = "reference";
    /// Stretches in which chunks are cut where tokens are dropped or coded anew.
    static constexpr std::uint32_t cut = 256;

    struct Attend {
        Arguments arguments;

        [[nodiscard]] constexpr std::size_t items() const noexcept { return arguments.batch.rows; }
        /// A row is computed at once: nothing is left to merge.
        [[nodiscard]] constexpr bool spreads() const noexcept { return false; }
        [[nodiscard]] constexpr std::size_t partials_floats() const noexcept { return 0; }
        void finish(std::size_t /*row*/) const noexcept {}
        [[nodiscard]] constexpr Bytes thread_bytes() const noexcept {
            const kv::PageLayout& layout = arguments.cache.pages.layout;
            return arguments.most_tokens * sizeof(double) + layout.v_dim * sizeof(double) +
                   (3 * static_cast<Bytes>(layout.k_dim) + 2 * static_cast<Bytes>(layout.v_dim)) *
                       sizeof(float);
        }
        [[nodiscard]] constexpr Bytes workspace_bytes() const noexcept { return arguments.workspace_bytes(); }
        void enqueue(exec::gpu::Stream& stream) const noexcept {
            arguments.enqueue(stream, arguments.kernels.device->attend_reference);
        }
        void run(std::size_t row, const exec::Worker& worker) const noexcept {
            const kv::PageLayout& layout = arguments.cache.pages.layout;
            const kv::Segment& segment = arguments.batch.segments[arguments.batch.segment_of_row[row]];
            const std::size_t position = arguments.batch.positions[row];
            const std::size_t first = arguments.first_seen(position);
            auto* scores = reinterpret_cast<double*>(worker.scratch);
            double* sums = scores + arguments.most_tokens;
            auto* query = reinterpret_cast<float*>(sums + layout.v_dim);
            float* turned_query = query + layout.k_dim;
            float* key = turned_query + layout.k_dim;
            float* value = key + layout.k_dim;
            float* result = value + layout.v_dim;
            const auto dropped = [&](std::size_t t) {
                return t < segment.boundary &&
                       t >= (segment.old_pages == nullptr ? segment.sinks : segment.old_tokens);
            };
            const auto is_old = [&](std::size_t t) {
                return t < segment.boundary && segment.old_pages != nullptr;
            };
            for (std::size_t head = 0; head < arguments.heads; ++head) {
                const std::size_t kv_head = head / arguments.group();
                arguments.load_query(row, head, false, query);
                std::copy_n(query, layout.k_dim, turned_query);
                kv::rotate(turned_query, layout.k_dim);
                double greatest = -std::numeric_limits<double>::infinity();
                for (std::size_t t = first; t <= position; ++t) {
                    if (dropped(t)) continue;
                    const kv::LayerCache& cache = is_old(t) ? arguments.old_cache : arguments.cache;
                    const kv::PageIndex* pages = is_old(t) ? segment.old_pages : segment.pages;
                    cache.get_key(pages[t / layout.page_tokens], kv_head, t % layout.page_tokens, key);
                    const float* with = cache.k->rotates ? turned_query : query;
                    double score = 0;
                    for (std::size_t i = 0; i < layout.k_dim; ++i) {
                        score += static_cast<double>(with[i]) * static_cast<double>(key[i]);
                    }
                    scores[t] = score;
                    greatest = std::fmax(greatest, score);
                }
                std::fill(sums, sums + layout.v_dim, 0.0);
                double sum = 0;
                // Old tokens come first: their values are turned back once, before the others are added.
                const auto turn_back = [&] {
                    for (std::size_t i = 0; i < layout.v_dim; ++i) result[i] = static_cast<float>(sums[i]);
                    kv::rotate(result, layout.v_dim);
                    for (std::size_t i = 0; i < layout.v_dim; ++i) sums[i] = static_cast<double>(result[i]);
                };
                bool turned = false;
                for (std::size_t t = first; t <= position; ++t) {
                    if (dropped(t)) continue;
                    const kv::LayerCache& cache = is_old(t) ? arguments.old_cache : arguments.cache;
                    const kv::PageIndex* pages = is_old(t) ? segment.old_pages : segment.pages;
                    if (cache.v->rotates != turned) {
                        turn_back();
                        turned = !turned;
                    }
                    const double weight = std::exp(scores[t] - greatest);
                    sum += weight;
                    cache.get_value(pages[t / layout.page_tokens], kv_head, t % layout.page_tokens, value);
                    for (std::size_t i = 0; i < layout.v_dim; ++i)
                        sums[i] += weight * static_cast<double>(value[i]);
                }
                for (std::size_t i = 0; i < layout.v_dim; ++i) result[i] = static_cast<float>(sums[i] / sum);
                arguments.store_output(row, head, result, 1.0f);
            }
        }
    };
};

}  // namespace attention
}  // namespace zse::inline v1
