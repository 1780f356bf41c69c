// SPDX-License-Identifier: Apache-2.0
// The encoders of GPUs, run on the host, against the codecs' own: equal bits, and rows of strange numbers.
// labels: cuda_host
#include <zse/exec/cuda/emulated.hpp>
#include <zse/kv/cuda/element.hpp>
#include <zse/kv/cuda/encode.hpp>

#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <vector>

namespace {

namespace kv = zse::kv;
using zse::exec::gpu::EmulatedBlock;
using zse::exec::gpu::Order;

/// Turns and codes one row as a key and as a value of one slot, and reads both back.
template <class C, unsigned Registers>
struct EncodeKernel {
    static constexpr unsigned threads = 32;

    const float* row;
    std::uint32_t dim;
    kv::PageLayout layout;
    std::byte* page;
    std::uint32_t slot;
    float* decoded;  ///< `[2, dim]`

    [[nodiscard]] zse::exec::gpu::Launch launch() const noexcept { return {{1, 1, 1}, threads, 0}; }

    template <class T>
    void operator()(T& t) const {
        kv::cuda::WarpRow<Registers> values;
        for (unsigned j = 0; j < Registers; ++j) {
            const unsigned i = values.index(t.lane(), j);
            values.values[j] = i < dim ? row[i] : 0.0f;
        }
        if constexpr (C::rotates) kv::cuda::rotate(t, values, dim);
        kv::cuda::encode<C>(t, values, dim, kv::cuda::TokenPlace::key(layout, page, slot));
        kv::cuda::encode<C>(t, values, dim, kv::cuda::TokenPlace::value(layout, page, slot, C::piece));
        t.sync_warp();
        for (unsigned i = t.lane(); i < dim; i += threads) {
            decoded[i] = kv::cuda::key_element<C>(t, layout, page, slot, i);
            decoded[dim + i] = kv::cuda::value_element<C>(t, layout, page, slot, i);
        }
    }
};

/// A page with one token as the codec itself puts it there.
template <class C>
void put(const kv::PageLayout& layout, std::vector<float> row, std::uint32_t slot, std::byte* page) {
    if (C::rotates) kv::rotate(row.data(), row.size());
    std::vector<std::byte> codes(C::code_bytes(row.size())), scales(C::scale_bytes(row.size()) + 2);
    C::encode(row.data(), row.size(), codes.data(), scales.data());
    layout.for_each_key_piece(slot, [&](std::size_t from, std::size_t to) {
        std::memcpy(page + to, codes.data() + from, layout.k_piece);
    });
    layout.for_each_scale(layout.k_scale, slot, [&](std::size_t from, std::size_t to) {
        std::memcpy(page + layout.k_scales_at() + to, scales.data() + from, 2);
    });
    std::memcpy(page + layout.v_codes_at() + slot * layout.v_code, codes.data(), codes.size());
    layout.for_each_scale(layout.v_scale, slot, [&](std::size_t from, std::size_t to) {
        std::memcpy(page + layout.v_scales_at() + to, scales.data() + from, 2);
    });
}

/// Rows of all magnitudes, and some that no scale fits.
std::vector<std::vector<float>> rows(std::size_t dim) {
    std::vector<std::vector<float>> all;
    std::mt19937 random(7);
    std::normal_distribution<float> normal;
    for (const float magnitude : {1.0f, 1e-3f, 3e-6f, 1e-7f, 1e-12f, 300.0f, 6e4f}) {
        all.emplace_back(dim);
        for (float& value : all.back()) value = magnitude * normal(random);
    }
    all.emplace_back(dim, 0.0f);
    all.emplace_back(dim, -1.0f);
    for (const float strange :
         {std::numeric_limits<float>::infinity(), std::nanf(""), 1e30f, -65504.0f, 1e-30f}) {
        all.push_back(all.front());
        all.back()[dim / 2 + 1] = strange;
    }
    return all;
}

template <class C, unsigned Registers>
void expect_the_codecs_bits(std::uint32_t dim) {
    for (const std::uint32_t page_tokens : {1u, 16u, 32u}) {
        const auto layout = kv::PageLayout::of<C, C>(page_tokens, 1, 1, dim, dim);
        unsigned number = 0;
        for (const auto& row : rows(dim)) {
            const std::uint32_t slot = ++number * 5 % page_tokens;
            std::vector<zse::exec::gpu::Chunk> wanted(layout.page_bytes() / 16), got(wanted);
            auto* const bytes = reinterpret_cast<std::byte*>(wanted.data());
            put<C>(layout, row, slot, bytes);
            for (const Order order : {Order::ascending, Order::descending, Order::shuffled}) {
                std::fill(got.begin(), got.end(), zse::exec::gpu::Chunk{});
                std::vector<float> decoded(2 * dim);
                EmulatedBlock::run_grid(EncodeKernel<C, Registers>{row.data(), dim, layout,
                                                                   reinterpret_cast<std::byte*>(got.data()),
                                                                   slot, decoded.data()},
                                        order);
                ASSERT_EQ(std::memcmp(got.data(), bytes, layout.page_bytes()), 0)
                    << C::name << " dim " << dim << " page " << page_tokens << " row " << number;
                // What is read back is what the codec reads.
                std::vector<std::byte> codes(C::code_bytes(dim)), scales(C::scale_bytes(dim) + 2);
                std::vector<float> turned = row, truth(dim);
                if (C::rotates) kv::rotate(turned.data(), dim);
                C::encode(turned.data(), dim, codes.data(), scales.data());
                C::decode(codes.data(), scales.data(), dim, truth.data());
                for (std::size_t i = 0; i < dim; ++i) {
                    if (std::isnan(truth[i])) {
                        ASSERT_TRUE(std::isnan(decoded[i]) && std::isnan(decoded[dim + i]));
                    } else {
                        ASSERT_EQ(decoded[i], truth[i]);
                        ASSERT_EQ(decoded[dim + i], truth[i]);
                    }
                }
            }
        }
    }
}

TEST(CudaEncode, GivesTheCodecsBits) {
    expect_the_codecs_bits<kv::f32, 2>(64);
    expect_the_codecs_bits<kv::f16, 4>(128);
    expect_the_codecs_bits<kv::fp8<32>, 4>(128);
    expect_the_codecs_bits<kv::int8<32>, 4>(128);
    expect_the_codecs_bits<kv::int8<32, kv::plain>, 2>(64);
    expect_the_codecs_bits<kv::int4<32>, 4>(128);
    expect_the_codecs_bits<kv::int4<32, kv::plain>, 2>(64);
}

TEST(CudaEncode, GivesTheCodecsBitsForOtherGroupsAndHeads) {
    expect_the_codecs_bits<kv::int4<16>, 4>(80);
    expect_the_codecs_bits<kv::int8<16>, 4>(80);
    expect_the_codecs_bits<kv::fp8<16>, 2>(48);
    expect_the_codecs_bits<kv::int4<64>, 4>(128);
    expect_the_codecs_bits<kv::int4<128>, 8>(256);
    expect_the_codecs_bits<kv::int8<64>, 8>(192);
    expect_the_codecs_bits<kv::fp8<128>, 4>(128);
    expect_the_codecs_bits<kv::int8<128>, 32>(1024);
    expect_the_codecs_bits<kv::int4<32>, 4>(96);
}

}  // namespace
