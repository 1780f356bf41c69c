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
                   (2 * static_cast<Bytes>(layout.k_dim) + 2 * static_cast<Bytes>(layout.v_dim)) *
                       sizeof(float);
        }
        void run(std::size_t row, const exec::Worker& worker) const noexcept {
            const kv::PageLayout& layout = arguments.cache.pages.layout;
            const kv::Segment& segment = arguments.batch.segments[arguments.batch.segment_of_row[row]];
            const std::size_t tokens = arguments.batch.positions[row] + std::size_t{1};
            auto* scores = reinterpret_cast<double*>(worker.scratch);
            double* sums = scores + arguments.most_tokens;
            auto* query = reinterpret_cast<float*>(sums + layout.v_dim);
            float* key = query + layout.k_dim;
            float* value = key + layout.k_dim;
            float* result = value + layout.v_dim;
            for (std::size_t head = 0; head < arguments.heads; ++head) {
                const std::size_t kv_head = head / arguments.group();
                arguments.load_query(row, head, query);
                double greatest = -std::numeric_limits<double>::infinity();
                for (std::size_t t = 0; t < tokens; ++t) {
                    arguments.cache.get_key(segment.pages[t / layout.page_tokens], kv_head,
                                            t % layout.page_tokens, key);
                    double score = 0;
                    for (std::size_t i = 0; i < layout.k_dim; ++i) {
                        score += static_cast<double>(query[i]) * static_cast<double>(key[i]);
                    }
                    scores[t] = score;
                    greatest = std::fmax(greatest, score);
                }
                std::fill(sums, sums + layout.v_dim, 0.0);
                double sum = 0;
                for (std::size_t t = 0; t < tokens; ++t) {
                    const double weight = std::exp(scores[t] - greatest);
                    sum += weight;
                    arguments.cache.get_value(segment.pages[t / layout.page_tokens], kv_head,
                                              t % layout.page_tokens, value);
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
