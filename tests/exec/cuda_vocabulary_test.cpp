// SPDX-License-Identifier: Apache-2.0
// What the host's body of the kernel vocabulary computes: operations of warps and blocks, matrices, halves.
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

TEST(CudaEmulatedMatrix, LdmatrixSeesRaces) {
    refuses<32>(
        [](Thread& t) {
            auto s = t.shared<Chunk>(0, 32);
            s[t.lane()] = Chunk{};
            (void)t.ldmatrix(s.from(31 - t.lane()));
        },
        "shared memory");
}

// --- numbers ----------------------------------------------------------------------------------------------------------

/// The half nearest to a value, to even where two are: searched among all of them.
std::uint16_t nearest_half(long double value) {
    static const auto finite = [] {
        std::vector<long double> v;
        for (unsigned bits = 0; bits < 0x7c00; ++bits)
            v.push_back(static_cast<float>(std::bit_cast<f16>(static_cast<std::uint16_t>(bits))));
        v.push_back(65536.0L);  // in the place of infinity: where it would go on
        return v;
    }();
    const long double magnitude = std::fabs(value);
    std::size_t above =
        static_cast<std::size_t>(std::ranges::lower_bound(finite, magnitude) - finite.begin());
    std::size_t chosen = std::min(above, finite.size() - 1);
    if (chosen > 0 && above < finite.size()) {
        const long double up = finite[above] - magnitude;
        const long double down = magnitude - finite[above - 1];
        if (down < up || (down == up && above % 2 == 1)) chosen = above - 1;
    }
    return static_cast<std::uint16_t>(chosen | (std::signbit(value) ? 0x8000u : 0u));
}

TEST(CudaEmulatedNumbers, ToHalvesRoundsToNearestEven) {
    std::mt19937 random(11);
    for (unsigned i = 0; i < 200'000; ++i) {
        float v[2];
        for (float& x : v) {
            // Exponents where halves are normal, subnormal, zero and too great; every fourth a tie.
            const auto exponent = 127 - 27 + random() % 45;
            std::uint32_t bits = (random() & 0x807fffffu) | static_cast<std::uint32_t>(exponent << 23);
            if (i % 4 == 0) bits = (bits & 0xffffe000u) | 0x1000u;
            x = std::bit_cast<float>(bits);
        }
        const std::uint32_t both = Thread::to_halves(v[0], v[1]);
        ASSERT_EQ(both & 0xffffu, nearest_half(v[0])) << v[0];
        ASSERT_EQ(both >> 16, nearest_half(v[1])) << v[1];
        const float low = Thread::low(both);
        if (std::isfinite(low)) {
            ASSERT_EQ(nearest_half(low), both & 0xffffu);
            ASSERT_EQ(nearest_half(Thread::high(both | 0x80000000u)), both >> 16 | 0x8000u);
        }
    }
    EXPECT_EQ(Thread::to_halves(65519.0f, 65520.0f), 0x7c007bffu);
    EXPECT_TRUE(std::isnan(Thread::low(Thread::to_halves(std::nanf(""), 0))));
}

TEST(CudaEmulatedNumbers, HalfArithmeticRoundsOnce) {
    std::mt19937 random(12);
    const auto any = [&](unsigned i) {
        for (;;) {
            auto bits = static_cast<std::uint32_t>(random() & 0xffffu);
            if (i % 2 == 0)
                bits = (bits & 0x83ffu) | (10 + i / 2 % 10) << 10;  // sums that do not just absorb
            if ((bits & 0x7c00u) != 0x7c00u) return bits;
        }
    };
    const auto value = [](std::uint32_t bits) {
        return static_cast<long double>(
            static_cast<float>(std::bit_cast<f16>(static_cast<std::uint16_t>(bits))));
    };
    unsigned would_differ = 0;
    const auto same = [](std::uint32_t found, std::uint16_t expected) {
        // A sum of nothing may have either sign.
        return found == expected || ((found | expected) & 0x7fffu) == 0;
    };
    for (unsigned i = 0; i < 400'000; ++i) {
        const std::uint32_t a = any(i);
        const std::uint32_t b = any(i);
        const std::uint32_t c = any(i);
        // The product has 22 bits; in the 64 of a long double, what is lost lies far below half a unit of the result.
        const long double exact = value(a) * value(b) + value(c);
        const std::uint16_t expected = nearest_half(exact);
        const std::uint32_t both = Thread::half_fma(a | b << 16, b | a << 16, c | c << 16);
        ASSERT_TRUE(same(both & 0xffffu, expected)) << a << ' ' << b << ' ' << c;
        ASSERT_TRUE(same(both >> 16, expected)) << a << ' ' << b << ' ' << c;
        ASSERT_TRUE(same(Thread::half_add(a, c) & 0xffffu, nearest_half(value(a) + value(c))));
        ASSERT_TRUE(same(Thread::half_mul(a, b) & 0xffffu, nearest_half(value(a) * value(b))));
        const f16 twice(static_cast<float>(f16(static_cast<float>(value(a) * value(b)))) +
                        static_cast<float>(value(c)));
        would_differ += !same(twice.bits, expected);
    }
    EXPECT_GT(would_differ, 1000u);  // the test can tell
    // Just above a tie: rounded to float first it would be the tie itself, and go down.
    EXPECT_EQ(Thread::half_fma(0x3c01u, 0x3c01u, Thread::to_halves(0, 0)) & 0xffffu,
              nearest_half(value(0x3c01) * value(0x3c01)));
    EXPECT_EQ(Thread::half_fma(0x1400u, 0x3c00u | 0u, 0x3c00u) & 0xffffu, nearest_half(value(0x1400) + 1));
}

TEST(CudaEmulatedNumbers, E4m3AllCodes) {
    for (unsigned code = 0; code < 256; ++code) {
        const std::uint32_t both =
            Thread::e4m3_to_halves(static_cast<std::uint16_t>(code | (255 - code) << 8));
        const auto expected = [](unsigned c) {
            // OCP 8-bit floating point: bias 7, no infinities, one NaN a sign.
            const unsigned exponent = c >> 3 & 15u;
            const double mantissa = c & 7u;
            const double v = exponent == 0 ? mantissa / 8 * std::pow(2.0, -6)
                                           : (1 + mantissa / 8) * std::pow(2.0, double{1.0} * exponent - 7);
            return (c & 0x80u) != 0 ? -v : v;
        };
        const auto check = [&](float found, unsigned c) {
            if ((c & 0x7fu) == 0x7f) {
                EXPECT_TRUE(std::isnan(found)) << c;
            } else {
                EXPECT_EQ(double{found}, expected(c)) << c;
                EXPECT_EQ(std::signbit(found), (c & 0x80u) != 0);
            }
        };
        check(Thread::low(both), code);
        check(Thread::high(both), 255 - code);
    }
}

TEST(CudaEmulatedNumbers, Functions) {
    for (const float v : {0.25f, 1.0f, 3.5f, 10.0f}) {
        EXPECT_FLOAT_EQ(Thread::exp(-v), static_cast<float>(std::exp(-double{v})));
        EXPECT_FLOAT_EQ(Thread::exp2(-v), static_cast<float>(std::exp2(-double{v})));
        EXPECT_FLOAT_EQ(Thread::log2(v), static_cast<float>(std::log2(double{v})));
        EXPECT_FLOAT_EQ(Thread::rsqrt(v), static_cast<float>(1 / std::sqrt(double{v})));
    }
}

}  // namespace
