// SPDX-License-Identifier: Apache-2.0
// Perplexity: exact for a model that knows nothing, and equal to the formula for one that knows something.
// rows: 102
#include <gtest/gtest.h>
#include <support/expect_error.hpp>
#include <support/tiny_engine.hpp>

#include <zse/evaluate/perplexity.hpp>

namespace {

using support::Tiny;

std::vector<std::int32_t> text(std::size_t count) {
    return support::tiny_prompt(11, count);
}

// An output matrix of zeros gives every token the same probability.
TEST(Perplexity, AUniformModelHasThatOfItsVocabulary) {
    Tiny tiny({});
    const auto& output = tiny.file.require("output.weight");
    std::byte* at = tiny.image.data() + (output.data.data() - tiny.image.data());
    std::fill(at, at + output.bytes, std::byte{0});
    const auto engine = tiny.open({.context = 64, .output_rows = 16});
    const auto result = zse::evaluate::perplexity(*engine, text(200), 64);
    EXPECT_NEAR(result.value, tiny.spec.vocabulary, 1e-9 * tiny.spec.vocabulary);
    EXPECT_EQ(result.windows, 3u);
    EXPECT_EQ(result.tokens, 3u * 31u);  // 64 - 1 - 32 a window
}

TEST(Perplexity, IsTheFormulaInDouble) {
    for (const bool bos : {false, true}) {
        const Tiny tiny({.add_bos = bos});
        const auto engine = tiny.open({.context = 32, .output_rows = 8, .threads = 2});
        const auto tokens = text(100);
        const auto result = zse::evaluate::perplexity(*engine, tokens, 32);
        double sum = 0;
        std::size_t scored = 0;
        for (std::size_t first = 0; first + 32 <= tokens.size(); first += 32) {
            std::vector<std::int32_t> window(tokens.begin() + static_cast<std::ptrdiff_t>(first),
                                             tokens.begin() + static_cast<std::ptrdiff_t>(first + 32));
            if (bos) window[0] = static_cast<std::int32_t>(support::TinyTokens::bos);
            const auto logits = support::NaiveLlama(tiny).logits(window);
            for (std::size_t i = 16; i + 1 < 32; ++i, ++scored) {
                double total = 0;
                for (const double logit : logits[i]) total += std::exp(logit);
                sum += logits[i][static_cast<std::size_t>(window[i + 1])] - std::log(total);
            }
        }
        EXPECT_EQ(result.tokens, scored);
        EXPECT_NEAR(result.value / std::exp(-sum / static_cast<double>(scored)), 1.0, 1e-4);
    }
}

TEST(Perplexity, RefusesWhatItCannotCount) {
    const Tiny tiny({});
    const auto engine = tiny.open({.context = 64, .output_rows = 16});
    using zse::ErrorCode;
    support::expect_error([&] { zse::evaluate::perplexity(*engine, text(63), 64); }, ErrorCode::invalid_input,
                          {"63 tokens", "64"});
    support::expect_error([&] { zse::evaluate::perplexity(*engine, text(200), 65); }, ErrorCode::usage,
                          {"65"});
    support::expect_error([&] { zse::evaluate::perplexity(*engine, text(200), 3); }, ErrorCode::usage, {"3"});
}

}  // namespace
