// SPDX-License-Identifier: Apache-2.0
// zse tokenize, zse logits and zse perplexity: what a model makes of a text.
#include "opening.hpp"

#include <fmt/core.h>

#include <zse/evaluate/divergence.hpp>

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
    bool kl = false;
    bool no_special = false;
};

int tokenize(const TextOptions& options) {
    const auto file = zse::io::Gguf::open(options.model.file());
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

/// An engine that scores windows of a text.
std::unique_ptr<zse::AnyEngine> open_for(ModelOptions options, std::uint32_t window) {
    constexpr std::uint32_t rows = 64;  // rows of logits in memory at once
    if (options.context == 0) options.context = window;
    options.kv.prompt_cache = false;  // all rows are wanted
    return open(choose(options, rows));
}

ModelOptions with_f16_kv(ModelOptions options) {
    options.kv = {};
    return options;
}

int perplexity(const TextOptions& options) {
    auto engine = open_for(options.model, options.window);
    const auto tokens = engine->tokenizer().encode(read_file(options.file));
    zse::evaluate::Divergence divergence;
    zse::evaluate::Perplexity& result = divergence.candidate;
    if (options.kl) {
        const auto base = open_for(with_f16_kv(options.model), options.window);
        divergence = zse::evaluate::divergence(*base, *engine, tokens, options.window);
    } else {
        result = zse::evaluate::perplexity(*engine, tokens, options.window);
    }
    engine.reset();  // before another is opened
    nlohmann::json out{{"perplexity", result.value},
                       {"tokens", result.tokens},
                       {"windows", result.windows},
                       {"context", options.window},
                       {"weights", options.model.weights}};
    std::string more;
    const auto difference = [&](double baseline) { return 100.0 * (result.value / baseline - 1.0); };
    if (options.baseline) {
        ModelOptions sixteen = with_f16_kv(options.model);
        sixteen.weights = "f16";
        const double baseline =
            zse::evaluate::perplexity(*open_for(sixteen, options.window), tokens, options.window).value;
        out["baseline_perplexity"] = baseline;
        out["delta_percent"] = difference(baseline);
        more +=
            fmt::format(", {:+.3f} % against {:.4f} with f16 weights and KV", difference(baseline), baseline);
    }
    if (options.kl) {
        const double base = divergence.base.value;
        out["kl"] = {{"f16_kv_perplexity", base},
                     {"delta_percent", difference(base)},
                     {"mean", divergence.mean},
                     {"median", divergence.median},
                     {"percentile_99", divergence.percentile_99},
                     {"same_top", divergence.same_top}};
        more += fmt::format(
            ", {:+.3f} % against {:.4f} with f16 KV\n"
            "KL divergence from f16 KV: mean {:.6f}, median {:.6f}, 99th percentile {:.6f}; same top token "
            "{:.2f} %",
            difference(base), base, divergence.mean, divergence.median, divergence.percentile_99,
            100.0 * divergence.same_top);
    }
    if (options.model.json) {
        fmt::print("{}\n", dump(out));
    } else {
        fmt::print("perplexity {:.4f} over {} tokens in {} windows of {}{}\n", result.value, result.tokens,
                   result.windows, options.window, more);
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
    command->add_flag("--kl", options->kl,
                      "compare each prediction with that of the same weights and KV in f16");
}

}  // namespace zse_cli
