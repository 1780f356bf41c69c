// SPDX-License-Identifier: Apache-2.0
// Policies in any order are one engine type; families that are left out have their defaults.
#include <zse/engine.hpp>

#include <gtest/gtest.h>

#include <type_traits>

namespace {

using zse::Engine;
namespace weights = zse::weights;
namespace kv = zse::kv;
namespace attention = zse::attention;
namespace tiers = zse::tiers;
namespace exec = zse::exec;

template <class A, class B>
constexpr bool same = std::is_same_v<A, B>;

// The five families in all 120 orders, made by putting each policy at each place of the orders of the others.
template <class... P>
struct List {};

template <class Whole, class Done, class Rest>
struct Permutations;
template <class Whole, class... Done>
struct Permutations<Whole, List<Done...>, List<>> {
    static constexpr int count = same<Engine<Done...>, Whole> ? 1 : 0;
};

template <class Whole, class Done, class Before, class After>
struct EachNext;
template <class Whole, class Done, class Before>
struct EachNext<Whole, Done, Before, List<>> {
    static constexpr int count = 0;
};
template <class Whole, class... Done, class... Before, class Next, class... After>
struct EachNext<Whole, List<Done...>, List<Before...>, List<Next, After...>> {
    static constexpr int count = Permutations<Whole, List<Done..., Next>, List<Before..., After...>>::count +
                                 EachNext<Whole, List<Done...>, List<Before..., Next>, List<After...>>::count;
};
template <class Whole, class Done, class First, class... Rest>
struct Permutations<Whole, Done, List<First, Rest...>> : EachNext<Whole, Done, List<>, List<First, Rest...>> {
};

using Five = Engine<weights::nf4<64>, kv::int8<32>, attention::reference, tiers::host, exec::cpu>;

TEST(Engine, AllOrdersOfFivePoliciesAreOneType) {
    constexpr int equal = Permutations<
        Five, List<>,
        List<exec::cpu, kv::int8<32>, tiers::host, weights::nf4<64>, attention::reference>>::count;
    EXPECT_EQ(equal, 120);
}

TEST(Engine, LeftOutFamiliesHaveDefaults) {
    using Default = Engine<>;
    static_assert(same<Default::Weights, weights::as_stored>);
    static_assert(same<Default::Kv, kv::pair<kv::f16, kv::f16>>);
    static_assert(same<Default::Attention, attention::flash<256>>);
    static_assert(same<Default::Tiers, tiers::host>);
    static_assert(same<Default::Exec, exec::cpu>);
    static_assert(same<Default, Engine<kv::f16>> &&
                  same<Default, Engine<attention::flash<>, weights::as_stored>>);
    static_assert(!same<Default, Engine<weights::f16>> && !same<Default, Engine<kv::f32>>);
    static_assert(same<Engine<kv::int4<>>, Engine<weights::as_stored, kv::int4<32, kv::rotated>>>);
}

TEST(Engine, ACodecAloneMeansKeysAndValues) {
    static_assert(same<Engine<kv::f16>, Engine<kv::pair<kv::f16, kv::f16>>>);
    static_assert(same<Engine<kv::int8<>>, Engine<kv::pair<kv::int8<32>, kv::int8<32>>>>);
    static_assert(!same<Engine<kv::pair<kv::int8<>, kv::int4<>>>, Engine<kv::pair<kv::int4<>, kv::int8<>>>>);
    static_assert(same<kv::Canonical<kv::f16>::type, kv::pair<kv::f16, kv::f16>>);
}

TEST(Engine, AChainOfOneTierIsThatTier) {
    static_assert(same<Engine<tiers::chain<tiers::host>>, Engine<tiers::host>>);
    static_assert(same<tiers::Canonical<tiers::chain<tiers::host>>::type, tiers::host>);
}

TEST(Engine, PoliciesAreSpelledAsTheirTypes) {
    EXPECT_EQ(weights::nf4<64>::spelling.view(), "weights::nf4<64>");
    EXPECT_EQ(weights::int8<128>::spelling.view(), "weights::int8<128>");
    EXPECT_EQ(kv::int4<>::spelling.view(), "kv::int4<32, kv::rotated>");
    EXPECT_EQ((kv::int4<16, kv::plain>::spelling.view()), "kv::int4<16, kv::plain>");
    EXPECT_EQ((kv::pair<kv::int8<64>, kv::f16>::spelling.view()),
              "kv::pair<kv::int8<64, kv::rotated>, kv::f16>");
    EXPECT_EQ((kv::int8<32, kv::plain>::spelling.view()), "kv::int8<32, kv::plain>");
    EXPECT_EQ(attention::flash<128>::spelling.view(), "attention::flash<128>");
    EXPECT_EQ(tiers::chain<tiers::host>::spelling.view(), "tiers::chain<tiers::host>");
}

TEST(Engine, EachPolicyBelongsToOneFamily) {
    using namespace zse::policy;
    static_assert(WeightPolicy<weights::q4_1> && !KvPolicy<weights::q4_1>);
    static_assert(KvPolicy<kv::fp8<>> && KvPolicy<kv::pair<kv::f16, kv::int8<>>> && !WeightPolicy<kv::f16>);
    static_assert(AttentionPolicy<attention::flash<64>> && AttentionPolicy<attention::reference>);
    static_assert(TierPolicy<tiers::chain<tiers::host>> && ExecPolicy<exec::cpu> && !ExecPolicy<tiers::host>);
}

}  // namespace
