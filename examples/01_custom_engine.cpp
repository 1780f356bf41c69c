// SPDX-License-Identifier: Apache-2.0
// A custom engine: pick policies in any order, and the compiler puts them together.
#include <zse/engine.hpp>

#include <iostream>
#include <type_traits>

// [custom]
using Small = zse::Engine<zse::weights::nf4<64>,                            // 4-bit weights
                          zse::kv::pair<zse::kv::int8<>, zse::kv::int4<>>,  // keys in 8 bits, values in 4
                          zse::attention::flash<>>;                         // the rest is default
// The order does not matter: it is the same type.
static_assert(std::is_same_v<Small, zse::Engine<zse::attention::flash<>, zse::weights::nf4<64>,
                                                zse::kv::pair<zse::kv::int8<>, zse::kv::int4<>>>>);
// [custom]

int main(int argc, char** argv) try {
    if (argc != 2) {
        std::cerr << "usage: example_01_custom_engine MODEL.gguf\n";
        return 2;
    }
    auto engine = Small::open(argv[1], {.context = 256});
    std::cout << engine.description() << "\n"
              << engine.plan().total() << " bytes planned, "
              << engine.ledger().held(zse::memory::Tier::host).total() << " held\n";
    zse::AnyEngine::Request request;
    request.max_tokens = 16;
    for (std::string_view piece : engine.generate("The capital of France is", request)) std::cout << piece;
    std::cout << "\n";
} catch (const zse::Error& error) {
    std::cerr << error.what() << "\n";
    return zse::exit_status(error.code());
}
