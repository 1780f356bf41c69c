// SPDX-License-Identifier: Apache-2.0
// Products of a layer for a prompt of 2,048 tokens, beside cuBLASLt with weights in bfloat16.
#include "cublaslt.hpp"
#include "layer.hpp"

#include <zse/weights/as_stored.hpp>

#include <memory>

namespace zse_bench {
namespace {

constexpr std::uint32_t tokens = 2'048;

double operations(const zse::ModelSpec& spec) noexcept {
    double all = 0;
    for (const Part part : parts) {
        const PartShape shape = PartShape::of(spec, part);
        all += 2.0 * tokens * static_cast<double>(shape.all_rows()) * shape.columns;
    }
    return all;
}

template <class Codec>
Spread by_zse(Bench& bench, const zse::ModelSpec& spec) {
    Layers<Codec> layers(bench, spec, {std::begin(parts), std::end(parts)});
    layers.prepare(bench, tokens);
    const Spread seconds =
        bench.seconds(layers.count(), [&](zse::exec::gpu::Stream& stream) { layers.enqueue(stream); });
    bench.release();
    return seconds;
}

/// The same products without the activation between them. Zeros where there is no library.
Spread by_cublaslt(Bench& bench, const zse::ModelSpec& spec) try {
    struct Product {
        std::unique_ptr<CublasLt> library;
        const std::byte* w;
        const std::byte* x;
        std::byte* y;
    };
    auto* const workspace = bench.zeros<std::byte>(CublasLt::workspace_bytes);
    const std::vector<std::byte> tile(4096, std::byte{0x3c});  // bfloat16 0x3c3c: about 0.01
    std::vector<Product> products;
    for (const Part part : parts) {
        const PartShape shape = PartShape::of(spec, part);
        products.push_back({std::make_unique<CublasLt>(shape.all_rows(), shape.columns, tokens, workspace),
                            bench.fill(tile, 2 * shape.all_rows() * shape.columns),
                            bench.fill(tile, zse::Bytes{2} * tokens * shape.columns),
                            bench.zeros<std::byte>(2 * shape.all_rows() * tokens)});
    }
    const Spread seconds = bench.seconds(1, [&](zse::exec::gpu::Stream& stream) {
        for (const Product& product : products) product.library->run(stream, product.w, product.x, product.y);
    });
    bench.release();
    return seconds;
} catch (const zse::Error& error) {
    if (error.code() != zse::ErrorCode::unsupported) throw;
    std::fprintf(stderr, "without cuBLASLt: %s\n", error.what());
    bench.release();
    return {};
}

void row(const Shape& shape, std::string_view weights, const Spread& seconds, const Spread& library) {
    const double work = operations(*shape.spec) * 1e-12;
    std::printf("| %s | %s | %s | %s | %.2f |\n", std::string(shape.name).c_str(),
                std::string(weights).c_str(), written(seconds.rate(work), 0).c_str(),
                library.median == 0 ? "not there" : written(library.rate(work), 0).c_str(),
                library.median / seconds.median);
    std::fflush(stdout);
}

}  // namespace

void measure_prompts(Bench& bench) {
    std::printf(
        "\n### Products of a layer at 2,048 tokens\n\n| Shape | Weights | TFLOP/s | cuBLASLt in bfloat16 | "
        "Ratio |\n"
        "|---|---|---|---|---|\n");
    for (const Shape& shape : shapes) {
        const Spread library = by_cublaslt(bench, *shape.spec);
        row(shape, "nf4", by_zse<zse::weights::nf4<64>>(bench, *shape.spec), library);
        row(shape, "q4_0", by_zse<zse::weights::q4_0>(bench, *shape.spec), library);
        row(shape, "int8", by_zse<zse::weights::int8<32>>(bench, *shape.spec), library);
    }
}

}  // namespace zse_bench
