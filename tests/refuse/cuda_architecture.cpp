// SPDX-License-Identifier: Apache-2.0
// An executor on a GPU names for which GPUs it is compiled.
// refuse: "zse: exec::cuda names no architecture; use exec::cuda<90>"
#include <zse/exec/cuda/policy.hpp>

#ifdef ZSE_REFUSE
using Tested = zse::exec::cuda<>;
#else
using Tested = zse::exec::cuda<90>;
#endif

static_assert(Tested::device);
