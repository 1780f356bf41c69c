// SPDX-License-Identifier: Apache-2.0
// Groups of 8-bit weights are powers of two.
// refuse: "zse: weights::int8<24> needs a group of 32, 64 or 128; use weights::int8<32>"
#include <zse/engine.hpp>

#ifdef ZSE_REFUSE
using Tested = zse::Engine<zse::weights::int8<24>>;
#else
using Tested = zse::Engine<zse::weights::int8<128>>;
#endif

static_assert(sizeof(Tested) > 0);
