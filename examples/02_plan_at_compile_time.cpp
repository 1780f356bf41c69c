// SPDX-License-Identifier: Apache-2.0
// A plan that the compiler checks: if it compiles, it fits its budget.
#include <zse/engine.hpp>
#include <zse/model/models.hpp>

#include <iostream>

// [plan]
using Server = zse::Engine<zse::weights::nf4<64>, zse::kv::int4<32>>;

static_assert(Server::plan(zse::models::llama3_8b, {.context = 8'192, .batch = 4}).host.total() <=
              zse::GB(8));
static_assert(Server::plan(zse::models::qwen2_5_7b, {.context = 32'768, .batch = 4}).host.total() <=
              zse::GB(8));
static_assert(Server::plan(zse::models::smollm2_135m, {.context = 8'192}).host.total() <= zse::MB(220));
// [plan]

int main() {
    for (const auto& model : zse::models::all) {
        const auto plan = Server::plan(*model.spec, {.context = 4'096});
        std::cout << model.name << ": weights " << plan.host[zse::memory::Kind::weights] << ", KV "
                  << plan.host[zse::memory::Kind::kv] << ", in all " << zse::human(plan.total()) << "\n";
    }
}
