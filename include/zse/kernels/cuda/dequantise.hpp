// SPDX-License-Identifier: Apache-2.0
// A packed matrix as rows of halves, for a library's product where tokens are so many that reading them twice pays.
#pragma once

#include <zse/exec/cuda/stream.hpp>
#include <zse/kernels/cuda/fragment.hpp>
#include <zse/policy/list.hpp>

namespace zse::inline v1 {
namespace kernels {
namespace cuda {

/// Weights rounded to halves, nf4 in steps of 1/127 as all kernels multiply. A warp decodes slabs of a group of 16 rows:
/// operands of mma lie in pieces of 4 bytes, so they meet as rows in shared memory and leave in stores of 16 bytes.
template <class Codec>
struct DequantiseKernel {
    using Weights = Fragment<Codec>;
    static constexpr unsigned threads = 256;

    const std::byte* weights = nullptr;  ///< packed
    std::uint32_t rows = 0;
    std::uint32_t columns = 0;    ///< a multiple of 8
    std::byte* halves = nullptr;  ///< `[rows, columns]`, at a multiple of 16 bytes

    [[nodiscard]] exec::gpu::Launch launch() const noexcept {
        const std::uint32_t slabs = (columns + Weights::columns - 1) / Weights::columns;
        return {{(slabs + warps - 1) / warps, (rows + group_rows - 1) / group_rows, 1},
                threads,
                warps * warp_chunks * chunk};
    }

    template <class T>
    ZSE_DEVICE void operator()(T& t) const {
        const unsigned slab = t.block().x * warps + t.warp();
        const weights::MmaLayout layout{Codec::format, columns};
        if (slab >= layout.slabs()) return;
        typename Weights::Slab in;
        Weights::load(t, weights + t.block().y * layout.group_bytes() + slab * layout.slab_bytes(), in);
        const auto out =
            t.template shared<exec::gpu::Chunk>(0, warps * warp_chunks).from(t.warp() * warp_chunks);
        const auto words = out.template as<std::uint32_t>();
        ZSE_UNROLL
        for (unsigned s = 0; s < Weights::steps; ++s) {
            std::uint32_t pairs[4];
            decode(t, in, s, pairs);
            ZSE_UNROLL
            for (unsigned p = 0; p < 4; ++p) {
                const unsigned row = t.lane() / 4 + p % 2 * 8;
                words[place(row, s * 2 + p / 2) * 4 + t.lane() % 4] = pairs[p];
            }
        }
        t.sync_warp();
        ZSE_UNROLL
        for (unsigned i = 0; i < warp_chunks / exec::gpu::warp_threads; ++i) {
            const unsigned at = i * exec::gpu::warp_threads + t.lane();
            const unsigned row = t.block().y * group_rows + at / row_chunks;
            const unsigned column = slab * Weights::columns + at % row_chunks * 8;
            const exec::gpu::Chunk value = out[place(at / row_chunks, at % row_chunks)];
            if (row >= rows || column >= columns) continue;
            auto* to = reinterpret_cast<exec::gpu::Chunk*>(halves);
            to[(static_cast<std::size_t>(row) * columns + column) / 8] = value;
        }
    }

private:
    static constexpr unsigned chunk = sizeof(exec::gpu::Chunk);
    static constexpr unsigned warps = threads / exec::gpu::warp_threads;
    static constexpr unsigned group_rows = weights::MmaLayout::rows;
    static constexpr unsigned row_chunks = Weights::columns * 2 / chunk;
    static constexpr unsigned warp_chunks = group_rows * row_chunks;

    /// Where a row's chunk lies: the eight rows that a warp writes to at once are in eight different bank groups.
    ZSE_DEVICE static unsigned place(unsigned row, unsigned chunk_of_row) {
        return row * row_chunks + (chunk_of_row ^ row % 8);
    }

    template <class T>
    ZSE_DEVICE static void decode(T& t, const typename Weights::Slab& in, unsigned s,
                                  std::uint32_t (&pairs)[4]) {
        if constexpr (Weights::split_values) {
            ZSE_UNROLL
            for (unsigned p = 0; p < 4; ++p) {
                const exec::gpu::Chunk& c = in.codes[s * 2 + p / 2];
                const std::uint32_t lower = c.words[p % 2 * 2];
                const std::uint32_t upper = c.words[p % 2 * 2 + 1];
                pairs[p] = t.to_halves(__builtin_bit_cast(float, lower), __builtin_bit_cast(float, upper));
            }
        } else if constexpr (Weights::bfloat) {
            ZSE_UNROLL
            for (unsigned p = 0; p < 4; ++p) {
                const std::uint32_t pair = in.codes[s].words[p];
                pairs[p] = t.to_halves(__builtin_bit_cast(float, pair << 16),
                                       __builtin_bit_cast(float, pair & 0xffff0000u));
            }
        } else {
            const exec::gpu::FragmentA codes = Weights::step(t, in, s);
            RowPair scale{1, 1};
            RowPair minimum{0, 0};
            if constexpr (Weights::scaled) scale = Weights::scales(t, in, s / Weights::block_steps);
            if constexpr (Weights::has_minimum) minimum = Weights::minima(t, in, s / Weights::block_steps);
            ZSE_UNROLL
            for (unsigned p = 0; p < 4; ++p) {
                const float by = p % 2 == 0 ? scale.low : scale.high;
                const float plus = p % 2 == 0 ? minimum.low : minimum.high;
                pairs[p] = t.to_halves(t.low(codes.pairs[p]) * by + plus, t.high(codes.pairs[p]) * by + plus);
            }
        }
    }
};

/// A packed matrix and where its halves go.
struct DequantiseCall {
    const std::byte* weights = nullptr;
    std::uint32_t rows = 0;
    std::uint32_t columns = 0;    ///< a multiple of 8
    std::byte* halves = nullptr;  ///< `[rows, columns]`, at a multiple of 16 bytes
};

template <class Codec, class Launcher>
void dequantise(exec::gpu::Stream& stream, const DequantiseCall& call) noexcept {
    if (call.columns % 8 != 0) return stream.fail(1, "zse: rows of halves need a multiple of 8 columns");
    Launcher::launch(stream, DequantiseKernel<Codec>{call.weights, call.rows, call.columns, call.halves});
}

/// The kernels that the above launches, for the file that compiles them.
template <class Codec>
struct DequantiseKernelList {
    using type = policy::List<DequantiseKernel<Codec>>;
};

}  // namespace cuda
}  // namespace kernels
}  // namespace zse::inline v1
