// SPDX-License-Identifier: Apache-2.0
// A GPU needs its own memory as the first tier.
// refuse: "zse: Engine with tiers::host on exec::cuda<90> needs tiers that a GPU reaches"
// refuse: "; use tiers::chain<tiers::gpu, tiers::host>"
#include <zse/engine/cuda.hpp>

#ifdef ZSE_REFUSE
using Tiers = zse::tiers::host;
#else
using Tiers = zse::tiers::chain<zse::tiers::gpu, zse::tiers::host>;
#endif

static_assert(sizeof(zse::Engine<Tiers, zse::exec::cuda<90>>) > 0);
