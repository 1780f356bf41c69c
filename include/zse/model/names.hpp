// SPDX-License-Identifier: Apache-2.0
// Finding a public model by what users call it, and the nearest name to one that is not known.
#pragma once

#include <zse/core/size.hpp>
#include <zse/model/models.hpp>

#include <algorithm>
#include <string>
#include <vector>

namespace zse::inline v1 {
namespace models {
namespace detail {

/// A name without what varies: the organisation before it, case, punctuation, and words on how it was tuned or stored.
inline std::string plain(std::string_view name) {
    if (const auto slash = name.rfind('/'); slash != std::string_view::npos) name.remove_prefix(slash + 1);
    std::string word;
    std::string joined;
    const auto close = [&] {
        static constexpr std::array<std::string_view, 10> tuning{
            "hf", "chat", "instruct", "it", "base", "meta", "awq", "gptq", "gguf", "latest"};
        if (std::find(tuning.begin(), tuning.end(), word) == tuning.end()) joined += word;
        word.clear();
    };
    for (const char raw : name) {
        const char c = v1::detail::lower(raw);
        if ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9')) {
            word += c;
        } else {
            close();
        }
    }
    close();
    return joined;
}

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

}  // namespace detail

/// The model of this name: "llama3-8b", "Llama-3-8B" and "meta-llama/Meta-Llama-3-8B-Instruct" are one. Null where
/// there is none.
inline const Named* find(std::string_view name) {
    const std::string wanted = detail::plain(name);
    for (const Named& model : all) {
        if (detail::plain(model.name) == wanted) return &model;
    }
    return nullptr;
}

/// The known model whose name is nearest.
inline const Named& nearest(std::string_view name) {
    const std::string wanted = detail::plain(name.substr(0, 100));
    return *std::min_element(all.begin(), all.end(), [&](const Named& a, const Named& b) {
        return detail::distance(detail::plain(a.name), wanted) <
               detail::distance(detail::plain(b.name), wanted);
    });
}

/// The model of this name; throws not_found, with the nearest name.
inline const Named& require(std::string_view name) {
    if (const Named* found = find(name)) return *found;
    throw Error(ErrorCode::not_found,
                text("no model is called ", v1::detail::shown(name), "; did you mean ", nearest(name).name,
                     "? Name a file, one of the models that zse plan --models lists, or a shape (--params, "
                     "--layers, --hidden)"));
}

}  // namespace models
}  // namespace zse::inline v1
