// SPDX-License-Identifier: Apache-2.0
// Groups of 8-bit floats as keys and values are powers of two.
// refuse: "zse: kv::fp8<24> needs a group of 16, 32, 64 or 128 values; use kv::fp8<32>"
#include <zse/engine.hpp>

#ifdef ZSE_REFUSE
using Tested = zse::Engine<zse::kv::fp8<24>>;
#else
using Tested = zse::Engine<zse::kv::fp8<16>>;
#endif

static_assert(sizeof(Tested) > 0);
