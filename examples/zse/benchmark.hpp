// SPDX-License-Identifier: Apache-2.0
// What the measurements of zse benchmark share.
#pragma once

#include "opening.hpp"
#include "watch.hpp"

#include <cstdint>
#include <string>
#include <vector>

namespace zse_cli {

struct BenchmarkOptions {
    ModelOptions model;
    std::uint32_t prompt = 512;
    std::uint32_t generation = 128;
    std::uint32_t depth = 0;
    std::uint32_t sequences = 1;
    std::uint32_t repetitions = 5;
    std::string metric = "speed";
    bool offload_sweep = false;
    std::vector<std::uint32_t> contexts, batches;  ///< of a sweep of memory
    ProfileOptions profile;
};

/// Tokens that any vocabulary has, different enough to be no special case.
std::vector<std::int32_t> tokens(std::size_t count, std::uint32_t vocabulary);

/// The options of the model that is measured: prompts are equal here, and all of them are to be computed.
ModelOptions measured(const BenchmarkOptions& options);

/// --metric memory: bytes by tier and kind, of one setting or of several.
int benchmark_memory(const BenchmarkOptions& options);

}  // namespace zse_cli
