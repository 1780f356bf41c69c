// SPDX-License-Identifier: Apache-2.0
// Appending to pages and attention over them, of a prompt and of one token after it, on a GPU and on the host.
// rows: 64
// labels: cuda_host cuda_device
#include <zse/attention/cuda/cache_launches.hpp>

#include <gtest/gtest.h>
#include <cuda/place.hpp>
#include <support/random.hpp>

#include <algorithm>
#include <cmath>

namespace {

using namespace zse_test;

/// Rows of queries, keys and values, as a product gives them: `[tokens, heads + 2 * kv_heads, dim]`.
struct AttentionCase {
    static constexpr std::uint32_t heads = 8;
    static constexpr std::uint32_t kv_heads = 2;
    static constexpr std::uint32_t dim = 128;
    static constexpr std::uint32_t page_tokens = 16;
    static constexpr std::uint32_t prompt = 90;
    static constexpr std::uint32_t tokens = prompt + 1;
    static constexpr std::uint32_t row = (heads + 2 * kv_heads) * dim;
    static constexpr float scale = 0.088f;  // 1 / sqrt(dim)

    std::vector<float> values = support::gaussian(std::size_t{tokens} * row, 1);

    [[nodiscard]] const float* head(std::uint32_t token, std::uint32_t i) const {
        return values.data() + std::size_t{token} * row + std::size_t{i} * dim;
    }
    /// Attention of a query head of a token to it and all before it, in double.
    [[nodiscard]] std::vector<double> exact(std::uint32_t token, std::uint32_t query_head) const {
        const std::uint32_t kv_head = query_head / (heads / kv_heads);
        std::vector<double> sum(dim);
        double weight_sum = 0;
        for (std::uint32_t other = 0; other <= token; ++other) {
            double score = 0;
            for (std::uint32_t i = 0; i < dim; ++i)
                score += double{head(token, query_head)[i]} * double{head(other, heads + kv_head)[i]};
            const double weight = std::exp(score * double{scale});
            weight_sum += weight;
            for (std::uint32_t i = 0; i < dim; ++i)
                sum[i] += weight * double{head(other, heads + kv_heads + kv_head)[i]};
        }
        for (double& value : sum) value /= weight_sum;
        return sum;
    }
};

/// Outputs `[tokens, heads, dim]`: those of the prompt in one call, then that of the last token, its context split.
template <class K, class V, class Where>
std::vector<float> attended(Place<Where>& place, const AttentionCase& c) {
    using Case = AttentionCase;
    namespace attention = zse::attention::cuda;
    const auto& launches = attention::cache_launches<K, V, typename Where::Launcher>;
    const auto layout =
        zse::kv::PageLayout::of<K, V>(Case::page_tokens, 1, Case::kv_heads, Case::dim, Case::dim);
    constexpr std::uint32_t pages = (Case::tokens + Case::page_tokens - 1) / Case::page_tokens;
    std::vector<zse::kv::PageIndex> numbers(pages);
    for (std::uint32_t i = 0; i < pages; ++i) numbers[i] = pages - 1 - i;  // not in order
    const zse::kv::PageIndex* const page_list = place.put(numbers);
    zse::kv::LayerPages layer;
    layer.pool = place.template zeros<std::byte>(layout.page_bytes() * pages);
    layer.page_bytes = layout.page_bytes();
    layer.layout = layout;

    float* const values = place.put(c.values);
    float* const out = place.template zeros<float>(std::size_t{Case::tokens} * Case::heads * Case::dim);
    auto* const greatest = place.template zeros<std::uint32_t>(Case::tokens);
    const std::uint64_t partials = attention::partials_floats(1, Case::heads, Case::dim, Case::tokens);
    float* const partials_at = place.template zeros<float>(partials);
    for (const bool last : {false, true}) {
        const std::uint32_t first = last ? Case::prompt : 0;
        const std::uint32_t rows = last ? 1 : Case::prompt;
        std::vector<std::uint32_t> positions(rows);
        for (std::uint32_t i = 0; i < rows; ++i) positions[i] = first + i;
        zse::kv::Segment segment;
        segment.rows = rows;
        segment.first_position = first;
        segment.pages = page_list;

        attention::AttendCall attend;
        attend.pages = layer;
        attend.segments = place.put(std::vector<zse::kv::Segment>{segment});
        attend.segment_count = 1;
        attend.rows = rows;
        attend.most_rows = rows;
        attend.most_tokens = Case::tokens;
        attend.segment_of_row = place.put(std::vector<std::uint32_t>(rows));
        attend.positions = place.put(positions);
        attend.q = values + std::size_t{first} * Case::row;
        attend.q_stride = Case::row;
        attend.heads = Case::heads;
        attend.scale = Case::scale;
        attend.out = out + std::size_t{first} * Case::heads * Case::dim;
        attend.greatest = greatest + first;
        attend.partials = partials_at;
        attend.partials_floats = partials;
        attend.splits = 3;

        zse::kv::cuda::AppendCall append;
        append.pages = layer;
        append.segments = attend.segments;
        append.segment_of_row = attend.segment_of_row;
        append.positions = attend.positions;
        append.rows = rows;
        append.q = values + std::size_t{first} * Case::row;
        append.k = append.q + Case::heads * Case::dim;
        append.v = append.k + Case::kv_heads * Case::dim;
        append.row_stride = Case::row;
        append.heads = Case::heads;
        launches.append(place.stream(), append);
        launches.attend(place.stream(), attend);
    }
    return place.get(out, std::size_t{Case::tokens} * Case::heads * Case::dim);
}

/// The errors of 128 values of a head, as a share of the deviation of the values (1).
double deviation(const float* found, const auto* wanted, std::size_t count) {
    double squares = 0;
    for (std::size_t i = 0; i < count; ++i) {
        const double error = double{found[i]} - double{wanted[i]};
        squares += error * error;
    }
    return std::sqrt(squares / static_cast<double>(count));
}

/// `codec_error` is how far coding a token changes it, as a share: attention to it alone, its own first token, errs by
/// as much, and by less where it averages over many.
template <class K, class V, class Where>
void check_attention(Place<Where>& place, double codec_error) {
    using Case = AttentionCase;
    const Case c;
    const std::vector<float> found = attended<K, V>(place, c);
    const auto host_runtime = OnHost::open();
    Place<OnHost> host(*host_runtime);
    const std::vector<float> on_host = attended<K, V>(host, c);
    for (std::uint32_t token = 0; token < Case::tokens; ++token) {
        for (std::uint32_t head = 0; head < Case::heads; ++head) {
            const std::size_t at = (std::size_t{token} * Case::heads + head) * Case::dim;
            const std::vector<double> exact = c.exact(token, head);
            ASSERT_LE(deviation(&found[at], exact.data(), Case::dim), codec_error)
                << token << ", head " << head;
            // Weights of the softmax are rounded to halves, from scores that another exp2 may round elsewhere.
            ASSERT_LE(deviation(&found[at], &on_host[at], Case::dim), 1e-3) << token << ", head " << head;
        }
    }
}

// Of normally distributed values: halves have 11 bits; fp8 has 4 bits, and errs by up to 1/16 and by 1/40 as a rule; 8 bits
// have steps of 1/127 of the greatest of 32 values, 2.1 deviations or so, and 4 bits of 1/7 of it.
template <class Where>
void check_attention_f16(Place<Where>& place) {
    check_attention<zse::kv::f16, zse::kv::f16>(place, 0.002);
}
template <class Where>
void check_attention_fp8(Place<Where>& place) {
    check_attention<zse::kv::fp8<32>, zse::kv::fp8<32>>(place, 0.05);
}
template <class Where>
void check_attention_int8(Place<Where>& place) {
    check_attention<zse::kv::int8<32>, zse::kv::int8<32>>(place, 0.02);
}
template <class Where>
void check_attention_int8_int4(Place<Where>& place) {
    check_attention<zse::kv::int8<32>, zse::kv::int4<32>>(place, 0.2);
}
template <class Where>
void check_attention_int4(Place<Where>& place) {
    check_attention<zse::kv::int4<32>, zse::kv::int4<32>>(place, 0.2);
}

template <class Where>
constexpr Check<Where> checks[] = {{"f16", check_attention_f16},
                                   {"fp8", check_attention_fp8},
                                   {"int8", check_attention_int8},
                                   {"int8/int4", check_attention_int8_int4},
                                   {"int4", check_attention_int4}};

TEST(AttentionOnHost, AgreeWithTheirReferences) {
    agree<OnHost>(*OnHost::open(), checks<OnHost>);
}
TEST(AttentionOnDevice, AgreeWithTheirReferences) {
    const auto runtime = OnDevice::open();
    if (runtime == nullptr) GTEST_SKIP();
    agree<OnDevice>(*runtime, checks<OnDevice>);
}
TEST(AttentionOnDevice, LeaveMemoryAsItWas) {
    const auto runtime = OnDevice::open();
    if (runtime == nullptr) GTEST_SKIP();
    leave_memory<OnDevice>(*runtime, checks<OnDevice>);
}

}  // namespace
