// SPDX-License-Identifier: Apache-2.0
// Groups of 8-bit keys and values are powers of two.
// refuse: "zse: kv::int8<24> needs a group of 16, 32, 64 or 128 values; use kv::int8<32>"
#include <zse/engine.hpp>

#ifdef ZSE_REFUSE
using Tested = zse::Engine<zse::kv::int8<24>>;
#else
using Tested = zse::Engine<zse::kv::int8<16>>;
#endif

static_assert(sizeof(Tested) > 0);
