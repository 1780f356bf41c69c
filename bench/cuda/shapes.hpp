// SPDX-License-Identifier: Apache-2.0
// The models whose shapes are measured.
#pragma once

#include <zse/model/models.hpp>

#include <array>
#include <string_view>

namespace zse_bench {

struct Shape {
    std::string_view name;
    const zse::ModelSpec* spec;
};

inline constexpr std::array<Shape, 3> shapes{{{"Llama-3-8B", &zse::models::llama3_8b},
                                              {"Qwen2.5-7B", &zse::models::qwen2_5_7b},
                                              {"Llama-2-7B", &zse::models::llama2_7b}}};

}  // namespace zse_bench
