// SPDX-License-Identifier: Apache-2.0
// Products of packed matrices on a GPU, for every codec and from one token to more than a small batch, against sums in
// double over what the codec decodes.
// rows: 64
// labels: cuda_host
#include <zse/exec/cuda/emulated.hpp>
#include <zse/kernels/cuda/linear.hpp>
#include <zse/weights/as_stored.hpp>

#include <gtest/gtest.h>
#include <support/aligned_bytes.hpp>
#include <support/random.hpp>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

namespace {

namespace gpu = zse::exec::gpu;
namespace weights = zse::weights;
using support::AlignedBytes;
using zse::kernels::cuda::EmbedCall;
using zse::kernels::cuda::GatedCall;
using zse::kernels::cuda::LinearCall;
using zse::kernels::cuda::Workspace;

/// Runs kernels on the host in an order of choice.
struct Ordered {
    static inline gpu::Order order = gpu::Order::ascending;

    template <gpu::Kernel K>
    static void launch(gpu::Stream& stream, const K& kernel) noexcept {
        if (stream.failed()) return;
        try {
            stream.count();
            gpu::EmulatedBlock::run_grid(kernel, order, 7);
        } catch (const std::exception& error) {
            ADD_FAILURE() << error.what();
            stream.fail(1, "a kernel failed");
        }
    }
};

template <class Codec>
constexpr const zse::kernels::cuda::MatrixLaunches& launches =
    zse::kernels::cuda::matrix_launches<Codec, Ordered>;

/// A matrix, packed, and what products with it are compared with.
template <class Codec>
struct Packed {
    std::uint32_t rows;
    std::uint32_t columns;
    std::vector<float> decoded;  ///< `[rows, columns]`, by decode_row
    std::vector<float>
        values;  ///< the same, but nf4 in steps of 1/127 of its scale, as all kernels multiply with
    AlignedBytes bytes;

    Packed(std::uint32_t r, std::uint32_t c, unsigned seed, float size = 0.05f)
        : rows(r), columns(c), decoded(std::size_t{r} * c), values(decoded.size()), bytes(layout().bytes(r)) {
        const auto original = support::gaussian(decoded.size(), seed, size);
        const std::size_t row_bytes = Codec::format.row_bytes(columns);
        std::vector<std::byte> stored(rows * row_bytes);
        for (std::size_t row = 0; row < rows; ++row) {
            std::byte* const at = stored.data() + row * row_bytes;
            Codec::encode_row(original.data() + row * columns, columns, at);
            Codec::decode_row(at, columns, decoded.data() + row * columns);
            for (std::size_t k = 0; k < columns; ++k) values[row * columns + k] = multiplied(at, row, k);
        }
        for (std::size_t group = 0; group < layout().groups(rows); ++group) {
            layout().pack(stored.data() + group * 16 * row_bytes, row_bytes,
                          std::min<std::size_t>(16, rows - group * 16),
                          bytes.data() + group * layout().group_bytes());
        }
    }
    [[nodiscard]] weights::MmaLayout layout() const { return {Codec::format, columns}; }

private:
    [[nodiscard]] float multiplied(const std::byte* stored, std::size_t row, std::size_t k) const {
        const float value = decoded[row * columns + k];
        if constexpr (Codec::format.id == weights::FormatId::nf4) {
            zse::f16 scale;
            std::memcpy(&scale, stored + k / Codec::format.group * Codec::format.group_bytes(), 2);
            const float unit = static_cast<float>(scale) / 127.0f;
            return unit > 0 ? std::nearbyint(value / unit) * unit : 0.0f;
        }
        return value;
    }
};

struct Rows {
    std::uint32_t tokens;
    std::uint32_t columns;
    std::vector<float> x;
    std::vector<std::uint32_t> greatest;

    Rows(std::uint32_t t, std::uint32_t c, unsigned seed, float size = 1.0f)
        : tokens(t), columns(c), x(support::gaussian(std::size_t{t} * c, seed, size)), greatest(t) {
        measure();
    }
    void measure() {
        for (std::size_t t = 0; t < tokens; ++t) {
            float most = 0;
            for (std::size_t k = 0; k < columns; ++k) most = std::max(most, std::fabs(x[t * columns + k]));
            greatest[t] = std::bit_cast<std::uint32_t>(most);
        }
    }
};

/// A sum and the sum of its terms' magnitudes, which errors are relative to.
struct Truth {
    double sum = 0;
    double size = 0;
};
template <class Codec>
Truth truth(const Packed<Codec>& w, const Rows& x, std::size_t row, std::size_t token) {
    Truth t;
    for (std::size_t k = 0; k < w.columns; ++k) {
        const double term = double{w.values[row * w.columns + k]} * double{x.x[token * x.columns + k]};
        t.sum += term;
        t.size += std::fabs(term);
    }
    return t;
}

/// What a result may be off by, relative to the magnitudes of its terms. Activations of two halves keep 22 bits, of two
/// bfloat16 16; of one 11 or 8; for more than 64 tokens weights are halves of 11 bits, too. float32 is always split. Adding
/// n terms in float32 rounds to 24 bits each time, and rounding errors mostly cancel.
template <class Codec>
double tolerance(std::uint32_t tokens, bool invariant, std::uint32_t columns) {
    using Weights = zse::kernels::cuda::Fragment<Codec>;
    const bool split = tokens <= 16 || invariant || Weights::split_values;
    const double adding = std::ldexp(std::sqrt(double{static_cast<double>(columns)}), -23);
    if (split) return (Weights::bfloat ? 0x1p-16 : 0x1p-21) + adding;
    if (tokens <= 64) return (Weights::bfloat ? 0x1p-8 : 0x1p-11) + adding;
    return 0x1p-10 + adding;
}

struct Bench {
    gpu::Stream stream;
    AlignedBytes workspace;

    Bench(std::uint64_t rows, std::uint64_t columns, std::uint64_t tokens)
        : workspace(zse::kernels::cuda::workspace_bytes(rows, columns, tokens)) {
        std::memset(workspace.data(), 0, Workspace::zeros);
    }
    ~Bench() {
        EXPECT_FALSE(stream.failed()) << stream.why();
        for (std::size_t i = 0; i < Workspace::zeros; ++i) {
            if (workspace.data()[i] == std::byte{0}) continue;
            ADD_FAILURE() << "a counter is left";
            return;
        }
    }
    Bench(const Bench&) = delete;
    Bench& operator=(const Bench&) = delete;

    [[nodiscard]] LinearCall call(const Rows& x, bool invariant = false) const {
        LinearCall call;
        call.x = x.x.data();
        call.greatest = x.greatest.data();
        call.tokens = x.tokens;
        call.columns = x.columns;
        call.workspace = workspace.data();
        call.workspace_bytes = workspace.size();
        call.invariant = invariant;
        return call;
    }
    /// `[tokens, rows]`.
    template <class Codec>
    std::vector<float> product(const Packed<Codec>& w, const Rows& x, bool invariant = false) {
        std::vector<float> y(std::size_t{x.tokens} * w.rows, NAN);
        LinearCall c = call(x, invariant);
        c.outputs[0] = {w.bytes.data(), w.rows, y.data(), w.rows, false, nullptr};
        c.count = 1;
        launches<Codec>.linear(stream, c);
        return y;
    }
};

template <class Codec>
void expect_product(const Packed<Codec>& w, const Rows& x, bool invariant) {
    const auto y = Bench(w.rows, w.columns, x.tokens).product(w, x, invariant);
    const double allowed = tolerance<Codec>(x.tokens, invariant, x.columns);
    for (std::size_t t = 0; t < x.tokens; ++t) {
        for (std::size_t r = 0; r < w.rows; ++r) {
            const Truth expected = truth(w, x, r, t);
            ASSERT_NEAR(y[t * w.rows + r], expected.sum, expected.size * allowed)
                << "row " << r << " of " << w.rows << ", token " << t << " of " << x.tokens << ", "
                << x.columns << " columns";
        }
    }
}

template <class Codec>
class CudaLinear : public testing::Test {};
using Codecs =
    testing::Types<weights::f32, weights::f16, weights::bf16, weights::int8<32>, weights::int8<128>,
                   weights::nf4<64>, weights::nf4<128>, weights::q4_0, weights::q4_1, weights::q8_0>;
TYPED_TEST_SUITE(CudaLinear, Codecs);

TYPED_TEST(CudaLinear, IsTheSumOfTheDecodedWeights) {
    const Packed<TypeParam> w(72, 320, 1);
    for (const std::uint32_t tokens : {1u, 2u, 3u, 8u, 16u, 17u, 33u, 64u, 70u}) {
        expect_product(w, Rows(tokens, 320, tokens), false);
        if (this->HasFatalFailure()) return;
    }
    for (const std::uint32_t tokens : {1u, 5u, 33u, 70u}) {
        expect_product(w, Rows(tokens, 320, tokens), true);
        if (this->HasFatalFailure()) return;
    }
}

TYPED_TEST(CudaLinear, TakesAwkwardShapes) {
    const bool blocks = TypeParam::format.group != 1;
    for (const std::uint32_t columns : {32u, blocks ? 160u : 47u, 576u}) {
        for (const std::uint32_t rows : {1u, 17u, 40u}) {
            const Packed<TypeParam> w(rows, columns, rows + columns);
            for (const std::uint32_t tokens : {1u, 7u, 20u}) {
                expect_product(w, Rows(tokens, columns, tokens), false);
                if (this->HasFatalFailure()) return;
            }
        }
    }
}

TYPED_TEST(CudaLinear, SplitsTheColumnsOfFewRows) {
    // Few rows of many columns: several blocks share them, and for 6 and 18 tokens stages follow one another.
    const Packed<TypeParam> w(16, 16384 + 64, 3);
    for (const std::uint32_t tokens : {1u, 6u, 18u}) {
        expect_product(w, Rows(tokens, w.columns, tokens), false);
        if (this->HasFatalFailure()) return;
    }
    expect_product(w, Rows(2, w.columns, 9), true);
    if (this->HasFatalFailure()) return;
    const Packed<TypeParam> wide(16, 65536 + 64, 3);  // stages for few tokens, too
    expect_product(wide, Rows(4, wide.columns, 4), false);
}

TYPED_TEST(CudaLinear, AddsBiasAndToWhatIsThereForThreeMatrices) {
    constexpr std::uint32_t columns = 2112;  // enough that blocks share rows: only the last of them may add
    const Packed<TypeParam> w[3] = {{40, columns, 1}, {16, columns, 2}, {24, columns, 3}};
    for (const std::uint32_t tokens : {2u, 12u, 40u, 66u}) {
        const Rows x(tokens, columns, tokens);
        Bench bench(80, columns, tokens);
        LinearCall call = bench.call(x);
        constexpr std::size_t stride = 50;
        std::vector<float> y[3];
        std::vector<float> bias[3];
        for (unsigned i = 0; i < 3; ++i) {
            y[i] = support::gaussian(tokens * stride, i + 10);
            bias[i] = support::gaussian(w[i].rows, i + 20);
            call.outputs[i] = {
                w[i].bytes.data(), w[i].rows, y[i].data(), stride, i != 1, i == 2 ? nullptr : bias[i].data()};
        }
        call.count = 3;
        const std::vector<float> before[3] = {y[0], y[1], y[2]};
        launches<TypeParam>.linear(bench.stream, call);
        const double allowed = tolerance<TypeParam>(tokens, false, columns);
        for (unsigned i = 0; i < 3; ++i) {
            for (std::size_t t = 0; t < tokens; ++t) {
                for (std::size_t r = 0; r < stride; ++r) {
                    const std::size_t at = t * stride + r;
                    if (r >= w[i].rows) {
                        ASSERT_EQ(y[i][at], before[i][at]) << "beyond the row";
                        continue;
                    }
                    const Truth expected = truth(w[i], x, r, t);
                    const double sum = expected.sum + (i == 2 ? 0.0 : double{bias[i][r]}) +
                                       (i == 1 ? 0.0 : double{before[i][at]});
                    // Adding to values of about 1 rounds them to 24 bits.
                    ASSERT_NEAR(y[i][at], sum, expected.size * allowed + 0x1p-20)
                        << i << " " << t << " " << r;
                }
            }
        }
    }
}

TYPED_TEST(CudaLinear, GatesAndNotesTheGreatest) {
    const Packed<TypeParam> gate(40, 256, 1, 0.1f);
    const Packed<TypeParam> up(40, 256, 2);
    for (const bool invariant : {false, true}) {
        for (const std::uint32_t tokens : {1u, 3u, 8u, 16u, 30u, 64u, 70u}) {
            const Rows x(tokens, 256, tokens);
            Bench bench(80, 256, tokens);
            std::vector<float> out(tokens * 40, NAN);
            std::vector<std::uint32_t> greatest(tokens, 0);
            launches<TypeParam>.gated(
                bench.stream,
                {gate.bytes.data(), up.bytes.data(), 40, 256, x.x.data(), x.greatest.data(), tokens,
                 out.data(), greatest.data(), bench.workspace.data(), bench.workspace.size(), invariant});
            const double allowed = tolerance<TypeParam>(tokens, invariant, 256);
            for (std::size_t t = 0; t < tokens; ++t) {
                float most = 0;
                for (std::size_t r = 0; r < 40; ++r) {
                    const Truth g = truth(gate, x, r, t);
                    const Truth u = truth(up, x, r, t);
                    const double silu = g.sum / (1 + std::exp(-g.sum));
                    // The slope of silu is at most 1.1; the power of two in it has 2 units in the last place.
                    const double error =
                        allowed * (1.1 * g.size * std::fabs(u.sum) + std::fabs(silu) * u.size) +
                        0x1p-20 * std::fabs(silu * u.sum);
                    ASSERT_NEAR(out[t * 40 + r], silu * u.sum, error)
                        << "row " << r << ", token " << t << " of " << tokens;
                    most = std::max(most, std::fabs(out[t * 40 + r]));
                }
                ASSERT_EQ(std::bit_cast<float>(greatest[t]), most) << t;
            }
        }
    }
}

TYPED_TEST(CudaLinear, EmbedsRowsAsTheCodecDecodesThem) {
    const Packed<TypeParam> table(37, 288, 4);
    const std::vector<std::int32_t> tokens{36, 0, 5, 5, 16, 15};
    std::vector<float> out(tokens.size() * 288, NAN);
    gpu::Stream stream;
    launches<TypeParam>.embed(stream, {table.bytes.data(), tokens.data(), 6, 288, out.data()});
    for (std::size_t i = 0; i < tokens.size(); ++i) {
        const float* row = table.decoded.data() + static_cast<std::size_t>(tokens[i]) * 288;
        for (std::size_t k = 0; k < 288; ++k) ASSERT_EQ(out[i * 288 + k], row[k]) << i << " " << k;
    }
}

TYPED_TEST(CudaLinear, GivesARowTheSameBitsInEveryBatch) {
    // 16 rows of 4096 columns are split between blocks, 160 rows between two or more blocks of rows.
    for (const std::uint32_t rows : {16u, 160u}) {
        const std::uint32_t columns = rows == 16 ? 4096 : 256;
        const Packed<TypeParam> w(rows, columns, 6);
        const Rows all(34, columns, 7);
        const auto y = Bench(rows, columns, 34).product(w, all, true);
        for (const std::uint32_t tokens : {1u, 4u, 5u, 17u, 32u}) {
            Rows some(tokens, columns, 0);
            std::copy_n(all.x.end() - static_cast<std::ptrdiff_t>(some.x.size()), some.x.size(),
                        some.x.begin());
            some.measure();
            const auto part = Bench(rows, columns, tokens).product(w, some, true);
            const std::size_t first = std::size_t{34 - tokens} * rows;
            for (std::size_t i = 0; i < part.size(); ++i) {
                ASSERT_EQ(std::bit_cast<std::uint32_t>(part[i]), std::bit_cast<std::uint32_t>(y[first + i]))
                    << tokens << " tokens, value " << i;
            }
        }
    }
}

TYPED_TEST(CudaLinear, TakesActivationsOfAnySize) {
    const Packed<TypeParam> w(24, 128, 8);
    for (const float size : {1e6f, 1e-6f, 1e30f, 1e-30f}) {
        for (const std::uint32_t tokens : {1u, 20u}) {
            Rows x(tokens, 128, 9, size);
            if (tokens > 1) std::fill_n(x.x.begin(), 128, 0.0f);  // one row of zeros
            x.measure();
            expect_product(w, x, false);
            if (this->HasFatalFailure()) return;
        }
    }
}

TYPED_TEST(CudaLinear, DoesNotDependOnTheOrderOfThreads) {
    const Packed<TypeParam> w(40, 1024, 11);
    for (const std::uint32_t tokens : {1u, 6u, 12u, 40u}) {
        const Rows x(tokens, 1024, tokens);
        const auto y = Bench(40, 1024, tokens).product(w, x);
        for (const gpu::Order order : {gpu::Order::descending, gpu::Order::shuffled}) {
            Ordered::order = order;
            EXPECT_EQ(Bench(40, 1024, tokens).product(w, x), y) << tokens;
        }
        Ordered::order = gpu::Order::ascending;
    }
}

TEST(CudaLinearLaunch, CountsOneKernelForThreeMatricesAndRefusesASmallWorkspace) {
    using Codec = weights::q4_0;
    const Packed<Codec> w(16, 4096, 1);
    const Rows x(1, 4096, 2);
    Bench bench(48, 4096, 1);
    std::vector<float> y(48);
    LinearCall call = bench.call(x);
    for (unsigned i = 0; i < 3; ++i)
        call.outputs[i] = {w.bytes.data(), 16, y.data() + i * 16, 16, false, nullptr};
    call.count = 3;
    launches<Codec>.linear(bench.stream, call);
    EXPECT_EQ(bench.stream.kernels(), 1u);
    gpu::Stream stream;
    call.workspace_bytes = Workspace::zeros;
    launches<Codec>.linear(stream, call);
    EXPECT_TRUE(stream.failed());
    EXPECT_EQ(stream.kernels(), 0u);
}

}  // namespace
