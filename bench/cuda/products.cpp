// SPDX-License-Identifier: Apache-2.0
// Products of a layer for 1 to 64 tokens: how much of the bandwidth that reading alone reaches they use.
#include "layer.hpp"

#include <zse/weights/as_stored.hpp>

namespace zse_bench {
namespace {

constexpr std::uint32_t batches[] = {1, 2, 4, 8, 16, 32, 64};

template <class Codec>
void row(Bench& bench, const Roof& roof, const Shape& shape, Layers<Codec>& layers, std::string_view what,
         std::uint32_t tokens) {
    layers.prepare(bench, tokens);
    const Spread seconds =
        bench.seconds(layers.count(), [&](zse::exec::gpu::Stream& stream) { layers.enqueue(stream); });
    std::printf("| %s | %s | %s | %u | %.1f | %s |\n", std::string(shape.name).c_str(),
                std::string(Codec::name).c_str(), std::string(what).c_str(), tokens, seconds.median * 1e6,
                roof.bandwidth(seconds, static_cast<double>(layers.bytes())).c_str());
    std::fflush(stdout);
}

template <class Codec>
void measure(Bench& bench, const Roof& roof, const Shape& shape) {
    {
        Layers<Codec> layers(bench, *shape.spec, {std::begin(parts), std::end(parts)});
        for (const std::uint32_t tokens : batches) row(bench, roof, shape, layers, "layer", tokens);
        bench.release();
    }
    for (const Part part : parts) {
        Layers<Codec> layers(bench, *shape.spec, {part});
        row(bench, roof, shape, layers, name(part), 1);
        bench.release();
    }
}

}  // namespace

void measure_products(Bench& bench, const Roof& roof) {
    std::printf(
        "\n### Products of a layer\n\n| Shape | Weights | What | Tokens | Microseconds | GB/s (least to "
        "most) | "
        "Of reading |\n|---|---|---|---|---|---|---|\n");
    for (const Shape& shape : shapes) {
        measure<zse::weights::nf4<64>>(bench, roof, shape);
        measure<zse::weights::q4_0>(bench, roof, shape);
        measure<zse::weights::int8<32>>(bench, roof, shape);
    }
}

}  // namespace zse_bench
