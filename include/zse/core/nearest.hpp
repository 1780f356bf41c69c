// SPDX-License-Identifier: Apache-2.0
// How far two words are apart, for a refusal that names what was probably meant.
#pragma once

#include <zse/core/version.hpp>

#include <algorithm>
#include <cstddef>
#include <optional>
#include <string_view>
#include <vector>

namespace zse::inline v1 {

/// Letters to change, add or drop to make one word of the other (Levenshtein 1966).
inline std::size_t distance(std::string_view a, std::string_view b) {
    std::vector<std::size_t> row(b.size() + 1);
    for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
    for (std::size_t i = 1; i <= a.size(); ++i) {
        std::size_t diagonal = row[0];
        row[0] = i;
        for (std::size_t j = 1; j <= b.size(); ++j) {
            const std::size_t changed = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
            diagonal = row[j];
            row[j] = std::min({changed, row[j] + 1, row[j - 1] + 1});
        }
    }
    return row[b.size()];
}

/// The first of the nearest words that is a slip of the finger away: a third of its letters may be wrong. None where
/// all are further.
template <class Words>
std::optional<std::string_view> near_match(const Words& words, std::string_view wanted) {
    constexpr std::size_t longest = 100;  // no word is longer, and the distance takes the product of both
    std::optional<std::string_view> best;
    std::size_t least = 0;
    for (const std::string_view word : words) {
        const std::size_t apart = distance(word, wanted.substr(0, longest));
        if (3 * apart > word.size() || (best && apart >= least)) continue;
        best = word;
        least = apart;
    }
    return best;
}

}  // namespace zse::inline v1
