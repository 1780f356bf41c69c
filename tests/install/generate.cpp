// SPDX-License-Identifier: Apache-2.0
// A consumer's program that generates: MODEL.gguf is its argument.
// expect: Paris
#include <zse/engine.hpp>

#include <iostream>

int main(int argc, char** argv) {
    if (argc != 2) return 2;
    auto engine = zse::Engine<>::open(argv[1], {.context = 64});
    zse::AnyEngine::Request request;
    request.max_tokens = 4;
    for (std::string_view piece : engine.generate("The capital of France is", request)) std::cout << piece;
    std::cout << "\n";
}
