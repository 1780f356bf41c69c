// SPDX-License-Identifier: Apache-2.0
// zse tokenize, zse logits and zse perplexity: what a model makes of a text.
#include "opening.hpp"

#include <fmt/core.h>

#include <zse/evaluate/perplexity.hpp>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <numeric>

namespace zse_cli {
namespace {

std::string read_file(const std::string& path) {
    const zse::io::MappedFile file = zse::io::MappedFile::open(path);
    const auto bytes = file.bytes();
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

struct TextOptions {
    ModelOptions model;
    std::string text;
    std::string file;
    std::uint32_t window = 512;
    std::uint32_t top = 10;
    bool baseline = false;
    bool no_special = false;
};

int tokenize(const TextOptions& options) {
    const auto file = zse::io::Gguf::open(options.model.model);
    const auto vocabulary = zse::engine::vocabulary_from_gguf(file);
    zse::tokenizer::EncodeOptions how;
    how.add_special = how.parse_special = !options.no_special;
    const auto tokens =
        vocabulary->tokenizer.encode(options.file.empty() ? options.text : read_file(options.file), how);
    if (options.model.json) {
        nlohmann::json pieces = nlohmann::json::array();
        for (const auto token : tokens) pieces.push_back(vocabulary->tokenizer.token_text(token));
        fmt::print("{}\n", dump({{"tokens", tokens}, {"pieces", pieces}}));
        return 0;
    }
    for (const auto token : tokens) fmt::print("{:>8}  {}\n", token, vocabulary->tokenizer.token_text(token));
    fmt::print(stderr, "{} tokens\n", tokens.size());
    return 0;
}

int logits(const TextOptions& options) {
    constexpr std::uint32_t rows = 32;  // rows of logits in memory at once
    const Chosen chosen = choose(options.model, rows);
    const auto engine = open(chosen);
    zse::AnyEngine::Request request;
    request.tokens = engine->tokenizer().encode(options.text);
    request.max_tokens = 0;
    nlohmann::json positions = nlohmann::json::array();
    const auto tokens = request.tokens;
    const std::uint32_t top = std::min(options.top, engine->spec().vocabulary);
    std::vector<std::int32_t> ids(engine->spec().vocabulary);
    request.observe = [&](std::uint32_t position, std::span<const float> row) {
        std::iota(ids.begin(), ids.end(), 0);
        const auto higher = [&](std::int32_t a, std::int32_t b) {
            const float x = row[static_cast<std::size_t>(a)];
            const float y = row[static_cast<std::size_t>(b)];
            return x != y ? x > y : a < b;
        };
        std::partial_sort(ids.begin(), ids.begin() + top, ids.end(), higher);
        nlohmann::json best = nlohmann::json::array();
        if (!options.model.json) fmt::print("{:>6} {:>8}:", position, tokens[position]);
        for (std::uint32_t i = 0; i < top; ++i) {
            const float logit = row[static_cast<std::size_t>(ids[i])];
            best.push_back({{"id", ids[i]}, {"logit", logit}});
            if (!options.model.json) fmt::print(" {}={:.4f}", ids[i], logit);
        }
        if (!options.model.json) fmt::print("\n");
        positions.push_back(std::move(best));
    };
    engine->submit(std::move(request));
    while (!engine->idle()) engine->step();
    if (options.model.json)
        fmt::print("{}\n", nlohmann::json{{"tokens", tokens}, {"positions", positions}}.dump());
    return 0;
}

zse::evaluate::Perplexity measure(const ModelOptions& options, const std::string& text,
                                  std::uint32_t window) {
    constexpr std::uint32_t rows = 64;  // rows of logits in memory at once
    ModelOptions with_context = options;
    if (with_context.context == 0) with_context.context = window;
    const auto engine = open(choose(with_context, rows));
    return zse::evaluate::perplexity(*engine, engine->tokenizer().encode(text), window);
}

int perplexity(const TextOptions& options) {
    const std::string text = read_file(options.file);
    const auto result = measure(options.model, text, options.window);
    nlohmann::json out{{"perplexity", result.value},
                       {"tokens", result.tokens},
                       {"windows", result.windows},
                       {"context", options.window},
                       {"weights", options.model.weights}};
    std::string delta;
    if (options.baseline) {
        ModelOptions sixteen = options.model;
        sixteen.weights = "f16";
        sixteen.kv = "none";
        sixteen.k = sixteen.v = "";
        const auto baseline = measure(sixteen, text, options.window);
        const double percent = 100.0 * (result.value / baseline.value - 1.0);
        out["baseline_perplexity"] = baseline.value;
        out["delta_percent"] = percent;
        delta = fmt::format(", {:+.3f} % against {:.4f} with f16 weights and KV", percent, baseline.value);
    }
    if (options.model.json) {
        fmt::print("{}\n", dump(out));
    } else {
        fmt::print("perplexity {:.4f} over {} tokens in {} windows of {}{}\n", result.value, result.tokens,
                   result.windows, options.window, delta);
    }
    return 0;
}

CLI::App* declare(CLI::App& app, Action& action, const std::shared_ptr<TextOptions>& options,
                  const char* name, const char* what, int (*function)(const TextOptions&)) {
    CLI::App* command = app.add_subcommand(name, what);
    options->model.declare(*command);
    command->callback(
        [options, function, &action] { action = [options, function] { return function(*options); }; });
    return command;
}

}  // namespace

void declare_tokenize(CLI::App& app, Action& action) {
    auto options = std::make_shared<TextOptions>();
    CLI::App* command = declare(app, action, options, "tokenize", "print the tokens of a text", tokenize);
    auto* text = command->add_option("TEXT,--prompt", options->text, "the text");
    auto* file = command->add_option("--file", options->file, "read the text from a file")->excludes(text);
    command->add_flag("--no-special", options->no_special, "add no special tokens and parse none");
    command->callback([options, text, file, &action] {
        if (text->count() + file->count() == 0) throw CLI::RequiredError("TEXT or --file");
        action = [options] { return tokenize(*options); };
    });
}

void declare_logits(CLI::App& app, Action& action) {
    auto options = std::make_shared<TextOptions>();
    CLI::App* command =
        declare(app, action, options, "logits", "print the highest logits after each token", logits);
    command->add_option("--prompt", options->text, "the text, used as it is")->required();
    command->add_option("--top", options->top, "logits of a position")
        ->check(CLI::Range(1u, 1u << 24))
        ->capture_default_str();
}

void declare_perplexity(CLI::App& app, Action& action) {
    auto options = std::make_shared<TextOptions>();
    CLI::App* command =
        declare(app, action, options, "perplexity", "measure how well a model predicts a text", perplexity);
    command->add_option("--file", options->file, "the text")->required();
    command->add_option("--context", options->window, "tokens of a window")
        ->check(CLI::Range(4u, 1u << 24))
        ->capture_default_str();
    command->add_flag("--baseline", options->baseline,
                      "measure f16 weights and KV too, and print the difference");
}

}  // namespace zse_cli
