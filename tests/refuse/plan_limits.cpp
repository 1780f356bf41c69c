// SPDX-License-Identifier: Apache-2.0
// A plan at compile time is refused where its limits make no sense.
// refuse: "the limits make no plan: "
#include <zse/engine.hpp>
#include <zse/model/models.hpp>

#ifdef ZSE_REFUSE
constexpr std::uint32_t page_tokens = 24;
#else
constexpr std::uint32_t page_tokens = 32;
#endif

constexpr auto plan =
    zse::Engine<>::plan(zse::models::llama2_7b, {.context = 1024, .page_tokens = page_tokens});
static_assert(plan.total() > 0);
