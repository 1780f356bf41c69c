// SPDX-License-Identifier: Apache-2.0
// Matrix products of one codec on a GPU: which kernels a call launches, for one token or for thousands.
#pragma once

#include <zse/kernels/cuda/embed.hpp>
#include <zse/kernels/cuda/prefill.hpp>
#include <zse/kernels/cuda/small_batch.hpp>
#include <zse/policy/list.hpp>

namespace zse::inline v1 {
namespace kernels {
namespace cuda {
namespace detail {

/// The shapes for so many fragment columns: see SmallBatchShape. `InvariantTile` is for up to 4 tokens where bits must
/// not depend on the batch: there and in the taller shapes no warps share columns.
template <bool Gated>
struct SmallBatchShapes {
    using OneTile = SmallBatchShape<1, 8, Gated>;
    using InvariantTile = SmallBatchShape<1, 1, Gated>;
    using TwoTiles = SmallBatchShape<2, 8, Gated>;
    using FourTiles = SmallBatchShape<4, 1, Gated>;
};

/// What a call asks of a small batch, whether plain or gated.
struct SmallBatchCall {
    LinearCall product;
    std::uint32_t* out_greatest = nullptr;
    /// Up to here, activations are split in two without `invariant` as well: memory is what bounds so few tokens.
    static constexpr std::uint32_t few = 16;
};

/// Ways to split the columns, and units of each. Where bits must not depend on the batch, they are found from the shape
/// of the matrices alone.
template <class Kernel>
void split_columns(Kernel& kernel, bool invariant) noexcept {
    constexpr std::uint32_t ways = Kernel::Shape::k_ways;
    // For each warp, or adding up costs more than it gains.
    constexpr std::uint32_t least_units = ways == 1 ? 4 : 2 * ways;
    std::uint32_t blocks = kernel.row_blocks() * kernel.slices;
    if (invariant) {
        std::uint64_t rows = 0;
        for (std::uint32_t i = 0; i < kernel.count; ++i) rows += kernel.outputs[i].rows;
        blocks =
            static_cast<std::uint32_t>(ceil_div(rows * (Kernel::Shape::gated ? 2 : 1), Workspace::most_rows));
    }
    const std::uint32_t units = Kernel::units(kernel.x.columns);
    std::uint32_t splits = Workspace::full / (blocks == 0 ? 1 : blocks);
    if (splits > Workspace::most_splits) splits = Workspace::most_splits;
    if (splits > units / least_units) splits = units / least_units;
    if (splits == 0) splits = 1;
    kernel.split_units = static_cast<std::uint32_t>(round_up(ceil_div(units, splits), ways));
    kernel.splits = static_cast<std::uint32_t>(ceil_div(units, kernel.split_units));
}

template <class Codec, class Shape, class Launcher>
void launch_small_batch(exec::gpu::Stream& stream, const SmallBatchCall& call, bool split) noexcept {
    const LinearCall& product = call.product;
    SmallBatchKernel<Codec, Shape> kernel;
    for (std::uint32_t i = 0; i < 3; ++i) kernel.outputs[i] = product.outputs[i];
    kernel.count = product.count;
    kernel.x.x = product.x;
    kernel.x.greatest = product.greatest;
    kernel.x.tokens = product.tokens;
    kernel.x.columns = product.columns;
    kernel.x.width = Shape::tiles == 1 ? 2 * product.tokens : Shape::tiles * 8;
    kernel.x.split = split;
    const std::uint32_t width = product.tokens * (split ? 2 : 1);
    kernel.slices = Shape::sliced ? static_cast<std::uint32_t>(ceil_div(width, kernel.x.width)) : 1;
    kernel.out_greatest = call.out_greatest;
    kernel.workspace = product.workspace;
    split_columns(kernel, product.invariant);
    if (kernel.partial_bytes() > product.workspace_bytes) {
        stream.fail(1, "zse: a product has too small a workspace");
    }
    Launcher::launch(stream, kernel);
}

/// One launch of up to 64 tokens.
template <class Codec, bool Gated, class Launcher>
void small_batch(exec::gpu::Stream& stream, const SmallBatchCall& call, bool split) noexcept {
    using Shapes = SmallBatchShapes<Gated>;
    const bool invariant = call.product.invariant;
    if (split && call.product.tokens <= 4) {
        if (invariant) {
            return launch_small_batch<Codec, typename Shapes::InvariantTile, Launcher>(stream, call, split);
        }
        return launch_small_batch<Codec, typename Shapes::OneTile, Launcher>(stream, call, split);
    }
    if (split && call.product.tokens <= 8 && !invariant) {
        return launch_small_batch<Codec, typename Shapes::TwoTiles, Launcher>(stream, call, split);
    }
    launch_small_batch<Codec, typename Shapes::FourTiles, Launcher>(stream, call, split);
}

/// Any number of tokens, 64 at a time; rows of results follow one another as rows of x do.
template <class Codec, bool Gated, class Launcher>
void small_batches(exec::gpu::Stream& stream, SmallBatchCall call) noexcept {
    LinearCall& product = call.product;
    const std::uint32_t tokens = product.tokens;
    constexpr std::uint32_t most = Workspace::small_batch;
    // float32 is there for exact comparisons, and rounds nothing to 11 bits.
    const bool split = product.invariant || Fragment<Codec>::split_values || tokens <= SmallBatchCall::few;
    for (std::uint32_t first = 0; first < tokens; first += most) {
        product.tokens = tokens - first < most ? tokens - first : most;
        small_batch<Codec, Gated, Launcher>(stream, call, split);
        product.x += std::uint64_t{most} * product.columns;
        product.greatest += most;
        for (LinearCall::Output& output : product.outputs) {
            if (output.y != nullptr) output.y += most * output.y_stride;
        }
        if (call.out_greatest != nullptr) call.out_greatest += most;
    }
}

/// Whether a call goes to the kernels for many tokens, which see a workspace without its counters.
template <class Codec>
bool prefills(std::uint32_t tokens, bool invariant) noexcept {
    return tokens > Workspace::small_batch && !invariant && !Fragment<Codec>::split_values;
}
template <class Call>
Call behind_counters(Call call) noexcept {
    call.workspace += Workspace::zeros;
    call.workspace_bytes -= call.workspace_bytes < Workspace::zeros ? call.workspace_bytes : Workspace::zeros;
    return call;
}

template <class Codec, class Launcher>
void linear(exec::gpu::Stream& stream, const LinearCall& call) noexcept {
    if (prefills<Codec>(call.tokens, call.invariant)) {
        return prefill_linear<Codec, Launcher>(stream, behind_counters(call));
    }
    small_batches<Codec, false, Launcher>(stream, {call});
}

template <class Codec, class Launcher>
void gated(exec::gpu::Stream& stream, const GatedCall& call) noexcept {
    if (prefills<Codec>(call.tokens, call.invariant)) {
        return prefill_gated<Codec, Launcher>(stream, behind_counters(call));
    }
    SmallBatchCall small;
    LinearCall& product = small.product;
    product.outputs[0] = {call.gate, call.rows, call.out, call.rows, false, nullptr};
    product.outputs[1].weights = call.up;
    product.count = 1;
    product.x = call.x;
    product.greatest = call.greatest;
    product.tokens = call.tokens;
    product.columns = call.columns;
    product.workspace = call.workspace;
    product.workspace_bytes = call.workspace_bytes;
    product.invariant = call.invariant;
    small.out_greatest = call.out_greatest;
    small_batches<Codec, true, Launcher>(stream, small);
}

template <class Codec, class Launcher>
void embed(exec::gpu::Stream& stream, const EmbedCall& call) noexcept {
    Launcher::launch(stream, EmbedKernel<Codec>{call});
}

template <class Codec, class Prefill>
struct MatrixKernelsOf;
template <class Codec, class... Prefill>
struct MatrixKernelsOf<Codec, policy::List<Prefill...>> {
    template <bool Gated, class Shapes = SmallBatchShapes<Gated>>
    struct Small {
        using One = SmallBatchKernel<Codec, typename Shapes::OneTile>;
        using Invariant = SmallBatchKernel<Codec, typename Shapes::InvariantTile>;
        using Two = SmallBatchKernel<Codec, typename Shapes::TwoTiles>;
        using Four = SmallBatchKernel<Codec, typename Shapes::FourTiles>;
    };
    using type =
        policy::List<EmbedKernel<Codec>, typename Small<false>::One, typename Small<false>::Invariant,
                     typename Small<false>::Two, typename Small<false>::Four, typename Small<true>::One,
                     typename Small<true>::Invariant, typename Small<true>::Two, typename Small<true>::Four,
                     Prefill...>;
};

}  // namespace detail

/// The launches of a codec. Up to 64 tokens each weight is read once and decoded to exact values; up to 16 tokens, and
/// with LinearCall::invariant, activations keep 22 bits (16 beside bfloat16), else 11 (8).
template <class Codec, class Launcher>
inline constexpr MatrixLaunches matrix_launches{
    &detail::linear<Codec, Launcher>, &detail::gated<Codec, Launcher>, &detail::embed<Codec, Launcher>};

/// The kernels that those launch, for the file that compiles them.
template <class Codec>
struct MatrixKernelList {
    using type = typename detail::MatrixKernelsOf<Codec, typename PrefillKernelList<Codec>::type>::type;
};

}  // namespace cuda
}  // namespace kernels
}  // namespace zse::inline v1
