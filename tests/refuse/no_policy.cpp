// SPDX-License-Identifier: Apache-2.0
// What is no policy is refused by its place.
// refuse: "zse: Engine parameter 2 is no policy; use one of weights::, kv::, attention::, tiers::, exec::"
#include <zse/engine.hpp>

#ifdef ZSE_REFUSE
using Tested = zse::Engine<zse::weights::f16, float>;
#else
using Tested = zse::Engine<zse::weights::f16, zse::kv::f16>;
#endif

static_assert(sizeof(Tested) > 0);
