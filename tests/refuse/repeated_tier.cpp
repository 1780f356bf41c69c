// SPDX-License-Identifier: Apache-2.0
// A chain names each tier once.
// refuse: "zse: tiers::chain<tiers::host, tiers::host> names a tier twice or a slow one before a fast one"
// refuse: "; use each tier once, in the order gpu, host, disk"
#include <zse/engine.hpp>

#ifdef ZSE_REFUSE
using Tested = zse::Engine<zse::tiers::chain<zse::tiers::host, zse::tiers::host>>;
#else
using Tested = zse::Engine<zse::tiers::chain<zse::tiers::host>>;
#endif

static_assert(sizeof(Tested) > 0);
