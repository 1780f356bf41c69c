// SPDX-License-Identifier: Apache-2.0
// Bytes a second that a GPU reads when a kernel does nothing else.
#include "measure.hpp"
#include "read_kernel.hpp"

#include <algorithm>

namespace zse_bench {

Roof measure_reading(Bench& bench) {
    // Far beyond the level-2 cache, and long enough that launching it is nothing.
    constexpr zse::Bytes bytes = zse::GiB(2);
    const unsigned multiprocessors = bench.runtime().multiprocessors();
    ReadKernel kernel{.from = bench.zeros<zse::exec::gpu::Chunk>(bytes / 16),
                      .chunks = bytes / 16,
                      .multiprocessors = multiprocessors};
    kernel.sums = bench.zeros<std::uint32_t>(zse::Bytes{kernel.launch().blocks.x} * ReadKernel::threads);
    const Spread seconds = bench.seconds(
        1, [&](zse::exec::gpu::Stream& stream) { zse::exec::gpu::Native::launch(stream, kernel); });
    bench.release();
    const Spread rate = seconds.rate(static_cast<double>(bytes) * 1e-9);
    std::printf("\n### Reading\n\n| Bytes | GB/s (least to most) |\n|---|---|\n| 2 GiB | %s |\n",
                written(rate, 0).c_str());
    return {rate.median * 1e9};
}

}  // namespace zse_bench
