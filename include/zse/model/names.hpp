// SPDX-License-Identifier: Apache-2.0
// Finding a public model by what users call it, and the nearest name to one that is not known.
#pragma once

#include <zse/core/nearest.hpp>
#include <zse/core/size.hpp>
#include <zse/model/models.hpp>

#include <algorithm>
#include <string>

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
        return distance(detail::plain(a.name), wanted) < distance(detail::plain(b.name), wanted);
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
