// SPDX-License-Identifier: Apache-2.0
// Sentences: text that is put together at compile time and can be a template argument.
#include <zse/policy/family.hpp>

#include <gtest/gtest.h>

namespace {

using namespace zse::policy;

template <Sentence S>
constexpr std::size_t length_of = S.size();

static_assert(length_of<"four"> == 4);
static_assert(("a" + Sentence("b") + "c").view() == "abc");
static_assert((Sentence("") + "").size() == 0);

TEST(Sentence, JoinsPartsAndNumbers) {
    constexpr auto joined =
        "group " + decimal<24>() + " of " + decimal<0>() + Sentence(" and ") + decimal<1000000>();
    EXPECT_EQ(joined.view(), "group 24 of 0 and 1000000");
    EXPECT_EQ(joined.size(), joined.view().size());
}

TEST(Sentence, EqualTextIsOneTemplateArgument) {
    EXPECT_TRUE(("kv" + Sentence("::f16")).view() == Sentence("kv::f16").view());
    EXPECT_EQ(&length_of<Sentence("kv::f16")>, &length_of<"kv" + Sentence("::f16")>);
}

TEST(Family, NamesAreThoseOfTheirNamespaces) {
    EXPECT_EQ(family_name<Family::weights>().view(), "weights");
    EXPECT_EQ(family_name<Family::kv>().view(), "kv");
    EXPECT_EQ(family_name<Family::attention>().view(), "attention");
    EXPECT_EQ(family_name<Family::tiers>().view(), "tiers");
    EXPECT_EQ(family_name<Family::exec>().view(), "exec");
}

struct NoSpelling {
    static constexpr auto policy_family = Family::kv;
};
static_assert(!Policy<int> && !Policy<NoSpelling>);
static_assert(require<"accepted", true>());

}  // namespace
