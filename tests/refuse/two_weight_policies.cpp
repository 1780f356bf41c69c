// SPDX-License-Identifier: Apache-2.0
// An engine has one weight policy.
// refuse: "zse: Engine has two weights policies, weights::f16 and weights::nf4<64>; keep one"
#include <zse/engine.hpp>

#ifdef ZSE_REFUSE
using Tested = zse::Engine<zse::weights::f16, zse::kv::f16, zse::weights::nf4<64>>;
#else
using Tested = zse::Engine<zse::weights::f16, zse::kv::f16>;
#endif

static_assert(sizeof(Tested) > 0);
