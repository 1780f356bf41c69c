// SPDX-License-Identifier: Apache-2.0
// What zse plan is asked about: files, public models by name, or shapes from a few numbers, one or several together.
#pragma once

#include "opening.hpp"

#include <zse/planning/adapters.hpp>
#include <zse/planning/rough.hpp>

#include <string>
#include <vector>

namespace zse_cli {

/// A model that may be no file.
struct Subject {
    std::string name;
    zse::ModelSpec spec;
    zse::Bytes file_bytes = 0;  ///< 0: a shape
    std::uint64_t parameters =
        0;  ///< as stated: those of a shape from a few numbers come out within a rounding of it
    std::vector<std::string> assumed;

    [[nodiscard]] bool is_shape() const noexcept { return file_bytes == 0; }
};

/// The model of a file, or of a name where there is no such file.
Subject subject_called(const std::string& name);

/// The plan of one subject. Shapes can be planned in any format of a file.
zse::memory::Plan plan_of(const Subject& subject, const zse::planning::Setting& setting,
                          const zse::engine::Choice& like, const zse::planning::Adapters& adapters);

/// The sum of the plans of all. Where the context is left open, no model is planned beyond its trained length.
zse::planning::Planner planner_of(const std::vector<Subject>& subjects, const zse::engine::Choice& like,
                                  const zse::planning::Adapters& adapters, bool open_context);

}  // namespace zse_cli
