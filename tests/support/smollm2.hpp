// SPDX-License-Identifier: Apache-2.0
// The demo model for tests: where it is, and engines over it.
#pragma once

#include <zse/engine.hpp>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

namespace support {

/// ZSE_MODEL, which the build sets; a test that needs the model fails without it.
inline std::filesystem::path smollm2_path() {
    if (const char* path = std::getenv("ZSE_MODEL")) return path;
    const char* home = std::getenv("HOME");
    return std::filesystem::path(home != nullptr ? home : "") /
           ".cache/zse/models/SmolLM2-135M-Instruct.Q4_1.gguf";
}

/// The model file and its vocabulary, read once a process.
struct SmolLm2 {
    zse::io::Gguf file = zse::io::Gguf::open(smollm2_path());
    zse::ModelSpec spec = zse::model::spec_from_gguf(file);
    std::shared_ptr<const zse::engine::Vocabulary> vocabulary =
        zse::engine::vocabulary_from_gguf(file, spec.vocabulary);

    static const SmolLm2& get() {
        static const SmolLm2 model;
        return model;
    }
};

template <class Engine>
std::unique_ptr<zse::AnyEngine> open_smollm2(const zse::engine::Options& options) {
    const SmolLm2& model = SmolLm2::get();
    return Engine::open(model.file, model.spec, model.vocabulary, options);
}

inline void run_to_end(zse::AnyEngine& engine) {
    while (!engine.idle()) engine.step();
}

/// The logits that follow each of these tokens, `[tokens][vocabulary]`, in one request.
inline std::vector<std::vector<float>> all_logits(zse::AnyEngine& engine,
                                                  const std::vector<std::int32_t>& tokens) {
    std::vector<std::vector<float>> rows;
    zse::AnyEngine::Request request;
    request.tokens = tokens;
    request.max_tokens = 0;
    request.observe = [&](std::uint32_t, std::span<const float> row) {
        rows.emplace_back(row.begin(), row.end());
    };
    engine.submit(std::move(request));
    run_to_end(engine);
    return rows;
}

/// The tokens that the engine generates greedily after a prompt, going on past the end of an answer.
inline std::vector<std::int32_t> greedy(zse::AnyEngine& engine, const std::vector<std::int32_t>& prompt,
                                        std::uint32_t count) {
    std::vector<std::int32_t> generated;
    zse::AnyEngine::Request request;
    request.tokens = prompt;
    request.max_tokens = count;
    request.ignore_end = true;
    engine.submit(std::move(request));
    while (!engine.idle()) {
        for (const auto& event : engine.step()) {
            if (event.token >= 0) generated.push_back(event.token);
        }
    }
    return generated;
}

}  // namespace support
