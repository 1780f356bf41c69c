// SPDX-License-Identifier: Apache-2.0
// Blocks of NF4 are powers of two.
// refuse: "zse: weights::nf4<48> needs a block of 32, 64 or 128; use weights::nf4<64>"
#include <zse/engine.hpp>

#ifdef ZSE_REFUSE
using Tested = zse::Engine<zse::weights::nf4<48>>;
#else
using Tested = zse::Engine<zse::weights::nf4<32>>;
#endif

static_assert(sizeof(Tested) > 0);
