// SPDX-License-Identifier: Apache-2.0
// RoPE and the append of a batch by the kernel of GPUs, run on the host, against plain loops and the codecs' decoders.
// labels: cuda_host
#include <zse/exec/cuda/emulated.hpp>
#include <zse/kernels/rows.hpp>
#include <zse/kv/append.hpp>
#include <zse/kv/cuda/append.hpp>

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

namespace {

namespace kv = zse::kv;
using zse::exec::gpu::EmulatedBlock;
using zse::exec::gpu::Order;
using zse::kernels::Isa;
using zse::kernels::RopePairs;

constexpr std::array<Order, 3> orders{Order::ascending, Order::descending, Order::shuffled};

static_assert(kv::cuda::pairs_neighbours(RopePairs::neighbours) &&
              !kv::cuda::pairs_neighbours(RopePairs::halves));

struct Shape {
    std::uint32_t dim = 64;
    std::uint32_t rope_dim = 64;
    std::uint32_t page_tokens = 16;
    RopePairs order = RopePairs::neighbours;
};

/// Two sequences: a chunk of 5 rows that crosses pages, and one row far on.
template <class K, class V, unsigned Registers>
void expect_appended(const Shape& shape) {
    constexpr std::uint32_t heads = 3;
    constexpr std::uint32_t kv_heads = 2;
    const auto layout = kv::PageLayout::of<K, V>(shape.page_tokens, 1, kv_heads, shape.dim, shape.dim);
    const std::vector<std::uint32_t> positions{14, 15, 16, 17, 18, 70};
    const std::vector<std::uint32_t> segment_of_row{0, 0, 0, 0, 0, 1};
    const std::size_t pages = layout.pages(19) + layout.pages(71);
    std::vector<kv::PageIndex> first, second;
    for (std::size_t i = 0; i < pages; ++i) {
        (i < layout.pages(19) ? first : second).push_back(static_cast<kv::PageIndex>(pages - 1 - i));
    }
    std::vector<kv::Segment> segments(2);
    segments[0] = {0, 5, 14, first.data()};
    segments[1] = {5, 1, 70, second.data()};
    const std::size_t rows = positions.size();
    const std::size_t q_width = heads * shape.dim;
    const std::size_t kv_width = kv_heads * shape.dim;
    const std::size_t stride = q_width + 2 * kv_width + 3;
    std::vector<float> values(rows * stride);
    std::mt19937 random(3);
    std::uniform_real_distribution<float> uniform(-2.0f, 2.0f);
    for (float& value : values) value = uniform(random);
    std::vector<float> cosines(rows * shape.rope_dim + 1), sines(cosines);
    for (std::size_t row = 0; row < rows; ++row) {
        zse::kernels::rope_angles(positions[row], 10000, 1, shape.rope_dim, nullptr, shape.order,
                                  cosines.data() + row * shape.rope_dim, sines.data() + row * shape.rope_dim);
    }
    const auto turned = [&](const float* head, std::size_t row) {
        std::vector<float> result(head, head + shape.dim);
        for (std::size_t i = 0; i < shape.rope_dim; ++i) {
            const std::size_t half = shape.rope_dim / 2;
            const std::size_t partner =
                shape.order == RopePairs::neighbours ? (i ^ 1u) : (i < half ? i + half : i - half);
            result[i] =
                head[i] * cosines[row * shape.rope_dim + i] + head[partner] * sines[row * shape.rope_dim + i];
        }
        return result;
    };

    for (const Order order : orders) {
        std::vector<zse::exec::gpu::Chunk> pool(pages * layout.page_bytes() / 16);
        std::vector<float> batch = values;
        kv::cuda::AppendCall call;
        call.pages = {reinterpret_cast<std::byte*>(pool.data()), layout.page_bytes(), layout};
        call.segments = segments.data();
        call.segment_of_row = segment_of_row.data();
        call.positions = positions.data();
        call.rows = static_cast<std::uint32_t>(rows);
        call.q = batch.data();
        call.k = batch.data() + q_width;
        call.v = batch.data() + q_width + kv_width;
        call.row_stride = stride;
        call.heads = heads;
        call.cosines = cosines.data();
        call.sines = sines.data();
        call.dim = shape.rope_dim;
        call.order = shape.order;
        EmulatedBlock::run_grid(kv::cuda::AppendKernel<K, V, Registers>{call}, order);

        const kv::LayerCache cache{call.pages, kv::side_kernels<K>(Isa::portable),
                                   kv::side_kernels<V>(Isa::portable)};
        std::vector<zse::exec::gpu::Chunk> wanted(pool.size());
        kv::LayerCache truth = cache;
        truth.pages.pool = reinterpret_cast<std::byte*>(wanted.data());
        for (std::size_t row = 0; row < rows; ++row) {
            for (std::size_t head = 0; head < heads; ++head) {
                const std::size_t at = row * stride + head * shape.dim;
                auto query = turned(values.data() + at, row);
                if (K::rotates) kv::rotate(query.data(), query.size());
                // Products and sums of few terms, in another order at most.
                for (std::size_t i = 0; i < shape.dim; ++i) ASSERT_NEAR(batch[at + i], query[i], 2e-6f);
            }
            const auto& list = segment_of_row[row] == 0 ? first : second;
            const kv::PageIndex page = list[positions[row] / layout.page_tokens];
            const std::size_t slot = positions[row] % layout.page_tokens;
            for (std::size_t head = 0; head < kv_heads; ++head) {
                const float* k = values.data() + row * stride + q_width + head * shape.dim;
                const auto key = turned(k, row);
                truth.put_key(page, head, slot, key.data());
                truth.put_value(page, head, slot, k + kv_width);
            }
        }
        // The host's loops here are those of the kernel, operation by operation, so the bytes of whole pages agree: slots
        // of no row stayed as they were. (On a GPU, RoPE rounds once less, and codes may differ by one step.)
        ASSERT_EQ(std::memcmp(pool.data(), wanted.data(), pool.size() * 16), 0)
            << K::name << " " << V::name << " dim " << shape.dim << " page " << shape.page_tokens;
        // Keys, values and what lies between rows were not written to.
        for (std::size_t row = 0; row < rows; ++row) {
            ASSERT_EQ(std::memcmp(batch.data() + row * stride + q_width,
                                  values.data() + row * stride + q_width, (stride - q_width) * sizeof(float)),
                      0);
        }
    }
}

TEST(CudaAppend, WritesWhatTheCodecsWrite) {
    for (const std::uint32_t page_tokens : {1u, 8u, 16u, 32u}) {
        expect_appended<kv::f16, kv::f16, 2>({64, 64, page_tokens});
        expect_appended<kv::int8<>, kv::int4<>, 2>({64, 64, page_tokens, RopePairs::halves});
        expect_appended<kv::fp8<>, kv::fp8<>, 4>({128, 128, page_tokens, RopePairs::halves});
        expect_appended<kv::int4<>, kv::int8<>, 4>({128, 128, page_tokens});
    }
    expect_appended<kv::f32, kv::f32, 2>({64, 64});
    expect_appended<kv::int4<32, kv::plain>, kv::int4<32, kv::plain>, 4>({96, 96});
}

TEST(CudaAppend, TurnsAsManyValuesOfAHeadAsItIsTold) {
    expect_appended<kv::int8<16>, kv::int4<16>, 4>({80, 32, 16, RopePairs::halves});
    expect_appended<kv::f16, kv::f16, 4>({80, 32, 16, RopePairs::neighbours});
    expect_appended<kv::f16, kv::f16, 2>({64, 0});
}

TEST(CudaRopeAngles, AreThoseOfTheProcessor) {
    const std::vector<std::uint32_t> positions{0, 1, 77, 4095, 131071, 1000003};
    constexpr std::uint32_t dim = 96;
    std::vector<float> factors(dim / 2);
    for (std::size_t i = 0; i < factors.size(); ++i) factors[i] = 1.0f + static_cast<float>(i) / 7.0f;
    for (const RopePairs order : {RopePairs::neighbours, RopePairs::halves}) {
        for (const float* of :
             {static_cast<const float*>(nullptr), static_cast<const float*>(factors.data())}) {
            std::vector<float> cosines(positions.size() * dim), sines(cosines), true_cosines(cosines),
                true_sines(cosines);
            for (std::size_t row = 0; row < positions.size(); ++row) {
                zse::kernels::rope_angles(positions[row], 500000, 4, dim, of, order,
                                          true_cosines.data() + row * dim, true_sines.data() + row * dim);
            }
            zse::kernels::cuda::RopeAnglesCall call;
            call.positions = positions.data();
            call.count = static_cast<std::uint32_t>(positions.size());
            call.dim = dim;
            call.base = 500000;
            call.linear = 4;
            call.factors = of;
            call.order = order;
            call.cosines = cosines.data();
            call.sines = sines.data();
            for (const Order threads : orders) {
                EmulatedBlock::run_grid(kv::cuda::RopeAnglesKernel{call}, threads);
                // The same library computes both here.
                EXPECT_EQ(cosines, true_cosines);
                EXPECT_EQ(sines, true_sines);
            }
        }
    }
}

}  // namespace
