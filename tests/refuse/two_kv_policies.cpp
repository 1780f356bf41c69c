// SPDX-License-Identifier: Apache-2.0
// An engine has one KV policy; keys and values apart are a pair.
// refuse: "zse: Engine has two kv policies, kv::int8<32, kv::rotated> and kv::f16; keep one"
#include <zse/engine.hpp>

#ifdef ZSE_REFUSE
using Tested = zse::Engine<zse::kv::int8<>, zse::kv::f16>;
#else
using Tested = zse::Engine<zse::kv::pair<zse::kv::int8<>, zse::kv::f16>>;
#endif

static_assert(sizeof(Tested) > 0);
