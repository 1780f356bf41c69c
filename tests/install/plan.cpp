// SPDX-License-Identifier: Apache-2.0
// A consumer's program that plans: the compiler checks the budget, the program prints it.
// expect: ^weights 4825169920 bytes, KV 150994944 bytes
#include <zse/engine.hpp>
#include <zse/model/models.hpp>

#include <cstdio>

using Small = zse::Engine<zse::weights::nf4<64>, zse::kv::int4<32>>;
constexpr zse::memory::Plan plan = Small::plan(zse::models::llama3_8b, {.context = 4096});
static_assert(plan.total() < zse::GB(6));

int main() {
    std::printf("weights %llu bytes, KV %llu bytes\n",
                static_cast<unsigned long long>(plan.host[zse::memory::Kind::weights]),
                static_cast<unsigned long long>(plan.host[zse::memory::Kind::kv]));
}
