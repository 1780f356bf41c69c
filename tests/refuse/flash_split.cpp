// SPDX-License-Identifier: Apache-2.0
// Splits of the attention are powers of two.
// refuse: "zse: attention::flash<100> needs a split of 64, 128, 256, 512 or 1024 tokens"
// refuse: "; use attention::flash<256>"
#include <zse/engine.hpp>

#ifdef ZSE_REFUSE
using Tested = zse::Engine<zse::attention::flash<100>>;
#else
using Tested = zse::Engine<zse::attention::flash<128>>;
#endif

static_assert(sizeof(Tested) > 0);
