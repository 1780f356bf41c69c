// SPDX-License-Identifier: Apache-2.0
// Kernels on a GPU against what it can do at most, as the tables of docs/benchmarks.md: cuda_bench [SECTION...].
#include "measure.hpp"

#include <cstdio>
#include <string_view>
#include <vector>

int main(int argc, char** argv) try {
    const std::vector<std::string_view> wanted(argv + 1, argv + argc);
    constexpr std::string_view names[] = {"products", "attention", "prompts"};
    for (const std::string_view name : wanted) {
        if (std::ranges::find(names, name) == std::end(names)) {
            std::fprintf(
                stderr,
                "usage: cuda_bench [products] [attention] [prompts]\nWithout a section: all of them.\n");
            return 2;
        }
    }
    const auto asked = [&](std::string_view name) {
        return wanted.empty() || std::ranges::find(wanted, name) != wanted.end();
    };

    zse_bench::Bench bench;
    const auto memory = bench.runtime().memory();
    std::printf("%s, %u multiprocessors, %.1f GB, level-2 cache %.0f MB; medians of 20 (least to most)\n",
                bench.runtime().name().c_str(), bench.runtime().multiprocessors(),
                static_cast<double>(memory.total) * 1e-9, static_cast<double>(bench.cache_bytes()) * 1e-6);
    const zse_bench::Roof roof = measure_reading(bench);
    if (asked("products")) measure_products(bench, roof);
    if (asked("attention")) measure_attention(bench, roof);
    if (asked("prompts")) measure_prompts(bench);
    return 0;
} catch (const zse::Error& error) {
    std::fprintf(stderr, "cuda_bench: %s\n", error.what());
    return 1;
}
