// SPDX-License-Identifier: Apache-2.0
// Streaming generation with sampling: text arrives piece by piece, never splitting a character.
#include <zse/engine.hpp>

#include <iostream>

int main(int argc, char** argv) try {
    if (argc != 3) {
        std::cerr << "usage: example_03_streaming MODEL.gguf PROMPT\n";
        return 2;
    }
    // [stream]
    auto engine = zse::Engine<>::open(argv[1], {.context = 512, .threads = 2});

    zse::AnyEngine::Request request;
    request.sampling = {.temperature = 0.7f, .top_k = 40, .top_p = 0.95f, .seed = 42};
    request.max_tokens = 48;
    request.stop = {"\n\n"};

    auto answer = engine.generate(argv[2], request);
    for (std::string_view piece : answer) std::cout << piece << std::flush;
    std::cout << "\n(" << answer.tokens() << " tokens, ended by " << zse::engine::name(answer.finish())
              << ")\n";
    // [stream]
} catch (const zse::Error& error) {
    std::cerr << error.what() << "\n";
    return zse::exit_status(error.code());
}
