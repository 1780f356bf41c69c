// SPDX-License-Identifier: Apache-2.0
// Instruction sets: their names and order, and what is chosen on this processor.
#include <zse/kernels/isa.hpp>
#include <zse/kernels/rows.hpp>

#include <gtest/gtest.h>
#include <support/expect_error.hpp>
#include <support/instruction_sets.hpp>

#include <algorithm>
#include <set>
#include <string>

namespace {

using namespace zse::kernels;

TEST(Isa, NamesSayThemAndAreFoundAgain) {
    EXPECT_EQ(name(Isa::portable), "portable");
    EXPECT_EQ(name(Isa::avx2), "avx2");
    EXPECT_EQ(name(Isa::avx512), "avx512");
    EXPECT_EQ(name(Isa::avx512_vnni), "avx512_vnni");
    EXPECT_EQ(name(Isa::neon), "neon");
    for (const Isa isa : built_isas) EXPECT_EQ(isa_called(name(isa)), isa);
    for (const std::string_view unknown : {"", "avx", "AVX2", "avx2 ", "sse4"}) {
        EXPECT_EQ(isa_called(unknown), std::nullopt) << unknown;
    }
}

TEST(Isa, StandsForThoseOfThisArchitectureNarrowestFirst) {
    EXPECT_EQ(built_isas.front(), Isa::portable);
    EXPECT_TRUE(std::is_sorted(built_isas.begin(), built_isas.end()));
    EXPECT_EQ(std::set<Isa>(built_isas.begin(), built_isas.end()).size(), built_isas.size());
#if defined(__x86_64__)
    EXPECT_EQ(isa_called("neon"), std::nullopt);
#elif defined(__aarch64__)
    EXPECT_EQ(isa_called("avx2"), std::nullopt);
#endif
}

TEST(Isa, WiderOnesOfX86HoldTheNarrower) {
    EXPECT_TRUE(usable(Isa::portable));
    EXPECT_TRUE(!usable(Isa::avx512) || usable(Isa::avx2));
    EXPECT_TRUE(!usable(Isa::avx512_vnni) || usable(Isa::avx512));
}

TEST(Isa, WidestIsTheLastThatIsUsable) {
    EXPECT_TRUE(usable(widest()));
    for (const Isa isa : built_isas) EXPECT_TRUE(isa <= widest() || !usable(isa)) << name(isa);
}

TEST(Chosen, IsTheWidestOrTheOneThatIsNamed) {
    EXPECT_EQ(chosen(std::nullopt), widest());
    support::on_each_isa([](Isa isa) { EXPECT_EQ(chosen(isa), isa); });
}

TEST(Chosen, RefusesWhatTheProcessorLacksAndSaysWhatItHas) {
    std::string names;
    for (const Isa isa : built_isas) {
        if (usable(isa)) names += (names.empty() ? "" : ", ") + std::string(name(isa));
    }
    EXPECT_EQ(usable_names(), names);
    // At least those of another architecture are refused.
    int refused = 0;
    for (const Isa isa : {Isa::portable, Isa::avx2, Isa::avx512, Isa::avx512_vnni, Isa::neon}) {
        if (usable(isa)) continue;
        support::expect_error([&] { chosen(isa); }, zse::ErrorCode::unsupported,
                              {"this processor does not run " + std::string(name(isa)) + " kernels",
                               "use one of " + names + ", or leave it out"});
        ++refused;
    }
    EXPECT_GT(refused, 0);
}

TEST(Isa, EachHasKernelsOfItsOwn) {
    std::set<const RowKernels*> tables;
    for (const Isa isa : built_isas) tables.insert(row_kernels(isa));
    EXPECT_EQ(tables.size(), built_isas.size());
}

}  // namespace
