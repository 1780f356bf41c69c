// SPDX-License-Identifier: Apache-2.0
// What the host's body of the kernel vocabulary computes: operations of warps and blocks, and products of matrices.
// labels: cuda_host
#include <zse/exec/cuda/emulated.hpp>

#include <gtest/gtest.h>
#include <exec/each_thread.hpp>
#include <support/random.hpp>

#include <algorithm>
#include <bit>
#include <cmath>
#include <functional>
#include <numeric>
#include <random>
#include <vector>

namespace {

using namespace each_thread;
using zse::f16;

std::vector<std::uint32_t> counted(std::size_t count) {
    std::vector<std::uint32_t> v(count);
    std::iota(v.begin(), v.end(), 100u);
    return v;
}

// --- operations of warps and blocks -----------------------------------------------------------------------------------

TEST(CudaEmulatedWarp, ShufflesVotesAndReductions) {
    const std::vector<std::uint32_t> values = counted(64);
    runs([&](Thread& t) {
        const unsigned base = t.warp() * 32;
        const std::uint32_t mine = values[t.thread()] * 7u;
        EXPECT_EQ(t.shuffle(mine, 5), values[base + 5] * 7u);
        EXPECT_EQ(t.shuffle(mine, (t.lane() * 3) % 32), values[base + t.lane() * 3 % 32] * 7u);
        EXPECT_EQ(t.shuffle_xor(mine, 9), values[base + (t.lane() ^ 9u)] * 7u);
        EXPECT_EQ(t.shuffle_down(mine, 4), values[t.lane() + 4 < 32 ? t.thread() + 4 : t.thread()] * 7u);
        EXPECT_EQ(t.shuffle(static_cast<double>(mine) / 3, 31),
                  static_cast<double>(values[base + 31] * 7u) / 3);
        EXPECT_EQ(t.ballot(t.lane() % 3 == t.warp()), t.warp() == 0 ? 0x49249249u : 0x92492492u);
        std::uint32_t sum = 0;
        for (unsigned i = 0; i < 32; ++i) sum += values[base + i] * 7u;
        EXPECT_EQ(t.warp_reduce(mine, Sum{}), sum);
        EXPECT_EQ(t.warp_reduce(mine, Greatest{}), values[base + 31] * 7u);
    });
}

TEST(CudaEmulatedBlock, ReductionsAndScans) {
    const std::vector<float> values = support::gaussian(96, 3);
    runs<96>([&](Thread& t) {
        const unsigned i = t.thread();
        EXPECT_EQ((t.block_reduce<96>(values[i], Greatest{})), *std::ranges::max_element(values));
        std::uint64_t total = 1;
        const std::uint64_t before = t.block_scan<96>(std::uint64_t{i} << 33, total);
        EXPECT_EQ(before, std::uint64_t{i} * (i - 1) / 2 << 33);
        EXPECT_EQ(total, std::uint64_t{96 * 95 / 2} << 33);
        // The next may use other types and come at once.
        float sum = 0;
        (void)t.block_scan<96>(values[i], sum);
        float expected = 0;
        for (const float v : values) expected += v;
        EXPECT_EQ(sum, expected);
        EXPECT_EQ((t.block_reduce<96>(i, Sum{})), 96u * 95 / 2);
    });
}

TEST(CudaEmulatedBlock, TheyAreBarriers) {
    runs(
        [](Thread& t) {
            auto s = t.shared<unsigned>(0, 64);
            s[t.thread()] = t.thread();
            (void)t.block_reduce<64>(0u, Sum{});
            const unsigned v = s[63 - t.thread()];
            EXPECT_EQ(v, 63 - t.thread());
        },
        1024);
}

TEST(CudaEmulatedBlock, SortsDescending) {
    std::mt19937 random(5);
    std::vector<std::uint32_t> keys(64 * 3);
    for (auto& key : keys) key = static_cast<std::uint32_t>(random() % 1000);  // some are equal
    std::vector<std::uint32_t> sorted = keys;
    std::ranges::sort(sorted, std::greater{});
    std::vector<int> seen(keys.size());
    run([&](Thread& t) {
        std::uint32_t k[3];
        std::uint16_t v[3];
        for (unsigned i = 0; i < 3; ++i) {
            v[i] = static_cast<std::uint16_t>(t.thread() * 3 + i);
            k[i] = keys[v[i]];
        }
        t.block_sort_descending<64, 3>(k, v);
        for (unsigned i = 0; i < 3; ++i) {
            EXPECT_EQ(k[i], sorted[t.thread() * 3 + i]);
            EXPECT_EQ(keys[v[i]], k[i]);
            ++seen[v[i]];
        }
    });
    EXPECT_EQ(std::ranges::count(seen, 1), static_cast<std::ptrdiff_t>(seen.size()));
}

TEST(CudaEmulatedBlock, AtomicsOnGlobalMemory) {
    for (const Order order : orders) {
        float sum = 1;
        std::uint32_t count = 0;
        std::uint32_t most = 0;
        std::vector<int> seen(128);
        run(
            [&](Thread& t) {
                t.atomic_add(&sum, 0.5f);
                ++seen[t.atomic_add(&count, std::uint32_t{1})];
                t.atomic_max(&most, t.block().x * 64 + t.thread());
            },
            0, order, 2);
        EXPECT_EQ(sum, 65.0f);
        EXPECT_EQ(most, 127u);
        EXPECT_EQ(std::ranges::count(seen, 1), 128);
    }
}

TEST(CudaEmulatedBlock, OrdersOfThreadsAndBlocksDiffer) {
    const auto visits = [](Order order) {
        std::vector<unsigned> list;
        run([&](Thread& t) { list.push_back(t.block().x * 64 + t.thread()); }, 0, order, 3);
        EXPECT_EQ(list.size(), 192u);
        return list;
    };
    const auto up = visits(Order::ascending);
    EXPECT_TRUE(std::ranges::is_sorted(up));
    EXPECT_TRUE(std::ranges::is_sorted(visits(Order::descending), std::greater{}));
    auto mixed = visits(Order::shuffled);
    EXPECT_FALSE(std::ranges::is_sorted(mixed));
    std::ranges::sort(mixed);
    EXPECT_EQ(mixed, up);
}

// --- matrices ---------------------------------------------------------------------------------------------------------

std::vector<float> halves(std::size_t count, unsigned seed) {
    std::vector<float> v = support::gaussian(count, seed);
    for (float& x : v) x = static_cast<float>(f16(x));
    return v;
}
std::uint32_t pair(float low, float high) {
    return f16(low).bits | static_cast<std::uint32_t>(f16(high).bits) << 16;
}

/// Products of halves are exact in float; sums of 16 of them and c differ by the order alone: 17 roundings of at most
/// the sum of magnitudes.
void expect_product(const std::vector<float>& a, const std::vector<float>& b, const std::vector<float>& c,
                    const std::vector<float>& d) {
    for (unsigned i = 0; i < 16; ++i) {
        for (unsigned j = 0; j < 8; ++j) {
            double sum = static_cast<double>(c[i * 8 + j]);
            double magnitude = std::fabs(sum);
            for (unsigned k = 0; k < 16; ++k) {
                const double product = double{a[i * 16 + k]} * double{b[k * 8 + j]};
                sum += product;
                magnitude += std::fabs(product);
            }
            EXPECT_NEAR(double{d[i * 8 + j]}, sum, magnitude * 17 * 0x1p-24) << i << ", " << j;
        }
    }
}

TEST(CudaEmulatedMatrix, MmaIsAProduct) {
    const auto a = halves(16 * 16, 1);
    const auto b = halves(16 * 8, 2);
    const auto c = support::gaussian(16 * 8, 3);
    for (const Order order : orders) {
        std::vector<float> d(16 * 8);
        run<32>(
            [&](Thread& t) {
                // As the doc comment of the fragments says.
                const unsigned g = t.lane() / 4;
                const unsigned k = 2 * (t.lane() % 4);
                const auto of_a = [&](unsigned i, unsigned j) {
                    return pair(a[i * 16 + j], a[i * 16 + j + 1]);
                };
                const auto of_b = [&](unsigned i, unsigned j) {
                    return pair(b[i * 8 + j], b[(i + 1) * 8 + j]);
                };
                const FragmentA fa{{of_a(g, k), of_a(g + 8, k), of_a(g, k + 8), of_a(g + 8, k + 8)}};
                const FragmentB fb{{of_b(k, g), of_b(k + 8, g)}};
                FragmentD fd{{c[g * 8 + k], c[g * 8 + k + 1], c[(g + 8) * 8 + k], c[(g + 8) * 8 + k + 1]}};
                t.mma(fd, fa, fb);
                d[g * 8 + k] = fd.values[0];
                d[g * 8 + k + 1] = fd.values[1];
                d[(g + 8) * 8 + k] = fd.values[2];
                d[(g + 8) * 8 + k + 1] = fd.values[3];
            },
            0, order);
        expect_product(a, b, c, d);
    }
}

/// a `[16, 16]` and b `[16, 8 or 16]` row by row in shared memory, rows of b transposed on the way.
TEST(CudaEmulatedMatrix, LdmatrixFeedsMma) {
    const auto a = halves(16 * 16, 4);
    const auto b = halves(16 * 16, 5);
    const std::vector<float> c(16 * 8);
    std::vector<float> left(16 * 8);
    std::vector<float> right(16 * 8);
    std::vector<float> from_columns(16 * 8);
    run<32>(
        [&](Thread& t) {
            auto sa = t.shared<std::uint32_t>(0, 128);
            auto sb = t.shared<std::uint32_t>(512, 128);
            auto sbt = t.shared<std::uint32_t>(1024, 128);  // b transposed: [columns, k]
            for (unsigned i = t.lane(); i < 128; i += 32) {
                const unsigned row = i / 8;
                const unsigned col = i % 8 * 2;
                sa[i] = pair(a[row * 16 + col], a[row * 16 + col + 1]);
                sb[i] = pair(b[row * 16 + col], b[row * 16 + col + 1]);
                sbt[i] = pair(b[col * 16 + row], b[(col + 1) * 16 + row]);
            }
            t.sync_warp();
            // Matrices of a: rows 0-7 and 8-15, then the same of the right columns.
            const unsigned row = t.lane() % 16;
            const unsigned half = t.lane() / 16;
            const FragmentA fa = t.ldmatrix(sa.as<Chunk>().from(row * 2 + half));
            const FragmentA fb = t.ldmatrix_transposed(sb.as<Chunk>().from(row * 2 + half));
            const unsigned column = t.lane() % 8;
            const FragmentA fbt = t.ldmatrix(sbt.as<Chunk>().from(column * 2 + t.lane() / 8 % 2));
            const auto product = [&](std::uint32_t first, std::uint32_t second, std::vector<float>& d) {
                FragmentD fd{};
                t.mma(fd, fa, FragmentB{{first, second}});
                for (unsigned i = 0; i < 4; ++i) {
                    d[(t.lane() / 4 + i / 2 * 8) * 8 + t.lane() % 4 * 2 + i % 2] = fd.values[i];
                }
            };
            product(fb.pairs[0], fb.pairs[1], left);
            product(fb.pairs[2], fb.pairs[3], right);
            product(fbt.pairs[0], fbt.pairs[1], from_columns);
        },
        2048);
    std::vector<float> b_left;
    std::vector<float> b_right;
    for (unsigned k = 0; k < 16; ++k) {
        for (unsigned j = 0; j < 8; ++j) {
            b_left.push_back(b[k * 16 + j]);
            b_right.push_back(b[k * 16 + 8 + j]);
        }
    }
    expect_product(a, b_left, c, left);
    expect_product(a, b_right, c, right);
    expect_product(a, b_left, c, from_columns);
}

TEST(CudaEmulatedMatrix, OtherProductsAreTheSame) {
    // Small whole numbers are exact as halves and as bfloats, and so are their products.
    run<32>([](Thread& t) {
        const auto value = [&](unsigned i) { return static_cast<float>((t.lane() * 5 + i * 3) % 17) - 8.0f; };
        FragmentA a;
        FragmentA a_bf;
        FragmentB b;
        FragmentB b_bf;
        for (unsigned i = 0; i < 4; ++i) {
            a.pairs[i] = t.to_halves(value(2 * i), value(2 * i + 1));
            a_bf.pairs[i] = t.to_bfloats(value(2 * i), value(2 * i + 1));
        }
        for (unsigned i = 0; i < 2; ++i) {
            b.pairs[i] = t.to_halves(value(20 + i), value(30 + i));
            b_bf.pairs[i] = t.to_bfloats(value(20 + i), value(30 + i));
        }
        FragmentD d{{1, 2, 3, 4}};
        t.mma(d, a, b);
        FragmentD d_bf{{1, 2, 3, 4}};
        t.mma_bf16(d_bf, a_bf, b_bf);
        const FragmentD onto_zeros = t.product(a, b);
        for (unsigned i = 0; i < 4; ++i) {
            EXPECT_EQ(d_bf.values[i], d.values[i]);
            EXPECT_EQ(onto_zeros.values[i] + static_cast<float>(i + 1), d.values[i]);
        }
    });
}

TEST(CudaEmulatedMatrix, LdmatrixSeesRaces) {
    refuses<32>(
        [](Thread& t) {
            auto s = t.shared<Chunk>(0, 32);
            s[t.lane()] = Chunk{};
            (void)t.ldmatrix(s.from(31 - t.lane()));
        },
        "shared memory");
}

}  // namespace
