// SPDX-License-Identifier: Apache-2.0
// A plan at compile time is refused where the group of a KV codec does not divide the head size.
// refuse: "needs a group that divides the head size"
// refuse: "use kv::f16, or a group of 16"
#include <zse/engine.hpp>
#include <zse/model/models.hpp>

constexpr zse::ModelSpec heads_of(std::uint32_t head_dim) {
    zse::ModelSpec spec = zse::models::smollm2_135m;
    spec.head_dim = spec.rope_dim = head_dim;
    return spec;
}

#ifdef ZSE_REFUSE
constexpr std::uint32_t head_dim = 48;
#else
constexpr std::uint32_t head_dim = 64;
#endif

constexpr auto plan = zse::Engine<zse::kv::int4<32>>::plan(heads_of(head_dim), {.context = 1024});
static_assert(plan.total() > 0);
