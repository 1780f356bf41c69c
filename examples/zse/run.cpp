// SPDX-License-Identifier: Apache-2.0
// zse run: answers one prompt, or chats on a terminal.
#include "opening.hpp"
#include "watch.hpp"

#include <fmt/core.h>
#include <signal.h>
#include <unistd.h>

#include <zse/tokenizer/chat_template.hpp>

#include <atomic>
#include <chrono>
#include <iostream>
#include <iterator>
#include <tuple>

namespace zse_cli {
namespace {

struct RunOptions {
    ModelOptions model;
    std::string prompt;
    bool has_prompt = false;
    std::string system;
    bool raw = false;
    bool stats = false;
    ProfileOptions profile;
    std::uint32_t max_tokens = 0;
    std::vector<std::string> stop;
    zse::sampling::SamplingParams sampling;
};

std::atomic<bool> interrupted{false};

extern "C" void on_interrupt(int) {
    interrupted.store(true);
}

double seconds_since(std::chrono::steady_clock::time_point start) {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// One answer and what it cost.
struct Answer {
    std::string text;
    std::vector<std::int32_t> tokens;
    zse::engine::Finish finish = zse::engine::Finish::none;
    std::size_t prompt_tokens = 0;
    double prompt_seconds = 0;
    double generation_seconds = 0;

    [[nodiscard]] double prompt_rate() const {
        return prompt_seconds > 0 ? static_cast<double>(prompt_tokens) / prompt_seconds : 0;
    }
    /// The first token comes with the prompt.
    [[nodiscard]] double generation_rate() const {
        return generation_seconds > 0 && tokens.size() > 1
                   ? static_cast<double>(tokens.size() - 1) / generation_seconds
                   : 0;
    }
};

std::vector<std::int32_t> encode(const zse::AnyEngine& engine, const RunOptions& options,
                                 const std::vector<zse::tokenizer::ChatMessage>& messages) {
    zse::tokenizer::EncodeOptions how;
    if (options.raw) return engine.tokenizer().encode(messages.back().content, how);
    if (engine.vocabulary().chat_template.empty()) {
        throw zse::Error(zse::ErrorCode::unsupported,
                         "the model file has no chat template; use --raw to continue a text as it is");
    }
    zse::tokenizer::ChatContext context;
    context.bos_token = engine.vocabulary().bos_text;
    context.eos_token = engine.vocabulary().eos_text;
    const zse::tokenizer::ChatTemplate chat(engine.vocabulary().chat_template);
    how.add_special = false;  // the template writes them
    return engine.tokenizer().encode(chat.render(messages, context), how);
}

Answer answer(zse::AnyEngine& engine, Watch& watch, const RunOptions& options,
              const std::vector<zse::tokenizer::ChatMessage>& messages) {
    zse::AnyEngine::Request request;
    request.tokens = encode(engine, options, messages);
    request.sampling = options.sampling;
    request.stop = options.stop;
    if (options.max_tokens != 0) request.max_tokens = options.max_tokens;
    Answer result;
    result.prompt_tokens = request.tokens.size();
    const auto start = std::chrono::steady_clock::now();
    const auto id = engine.submit(std::move(request));
    interrupted.store(false);
    std::chrono::steady_clock::time_point first{};
    while (result.finish == zse::engine::Finish::none) {
        if (interrupted.load()) {
            engine.cancel(id);
            result.finish = zse::engine::Finish::cancelled;
            break;
        }
        for (const auto& event : engine.step()) {
            if (event.token >= 0) {
                if (result.tokens.empty()) first = std::chrono::steady_clock::now();
                result.tokens.push_back(event.token);
            }
            result.text += event.text;
            if (!options.model.json) fmt::print("{}", event.text);
            if (event.finish != zse::engine::Finish::none) result.finish = event.finish;
        }
        if (!options.model.json) std::fflush(stdout);
        watch.between_steps();
    }
    if (result.finish == zse::engine::Finish::failed && engine.counters().lost_tiers != 0) {
        throw zse::Error(
            zse::ErrorCode::out_of_memory,
            "the disk tier did not give back what was written there, and memory alone does not hold this "
            "answer; name another directory (--disk-dir), or lower --max-context");
    }
    if (result.finish == zse::engine::Finish::failed) {
        throw zse::Error(zse::ErrorCode::internal,
                         "the model's logits are no numbers; the file may be damaged");
    }
    if (result.tokens.empty()) first = std::chrono::steady_clock::now();
    result.prompt_seconds = std::chrono::duration<double>(first - start).count();
    result.generation_seconds = seconds_since(first);
    return result;
}

void print_stats(const Answer& result, const zse::AnyEngine& engine, const zse::memory::Measured& loaded) {
    fmt::print(stderr, "\n{}, {} threads\n", engine.description(), engine.limits().threads);
    fmt::print(stderr, "prompt:     {:5} tokens in {:.3f} s, {:.1f} tokens/s\n", result.prompt_tokens,
               result.prompt_seconds, result.prompt_rate());
    fmt::print(stderr, "generation: {:5} tokens in {:.3f} s, {:.1f} tokens/s ({})\n", result.tokens.size(),
               result.generation_seconds, result.generation_rate(), zse::engine::name(result.finish));
    const zse::engine::Counters& counters = engine.counters();
    if (engine.limits().prompt_cache) {
        fmt::print(stderr,
                   "prompt cache: {} tokens of {} prompts were not computed again, {} pages are kept\n",
                   counters.prompt_hit_tokens, counters.prompt_hits, engine.page_use().cached);
    }
    if (const zse::kv::PromptTier* prompts = engine.prompts()) {
        const zse::kv::PromptStore& store = prompts->store();
        const zse::kv::PromptCounts& counts = store.counts();
        fmt::print(stderr,
                   "  on disk: {} of {} pages; {} of earlier runs, {} read, {} written, {} gave way ({}), {} "
                   "damaged, {} not written, {} to be written\n",
                   store.blocks(), store.layout().slots, counts.found, counts.fetched, counts.written,
                   counts.evicted, counts.eviction, counts.damaged, counts.skipped, prompts->waiting());
    }
    print_traffic(stderr, engine.tier_traffic());
    if (const auto& streamed = counters.streamed; streamed.fetches != 0) {
        fmt::print(
            stderr,
            "streamed: {} layers and tiles, {} rows of the embedding, {}; {} had arrived when they were "
            "needed, {} were waited for, {} were read twice\n",
            streamed.fetches, streamed.rows, zse::human(streamed.bytes), streamed.hits, streamed.misses,
            streamed.retries);
    }
    print_memory(stderr, engine, loaded);
}

nlohmann::json prompts_of(const zse::AnyEngine& engine) {
    nlohmann::json out = {{"hits", engine.counters().prompt_hits},
                          {"hit_tokens", engine.counters().prompt_hit_tokens},
                          {"pages", engine.page_use().cached}};
    const zse::kv::PromptTier* const prompts = engine.prompts();
    if (prompts == nullptr) return out;
    const zse::kv::PromptStore& store = prompts->store();
    const zse::kv::PromptCounts& counts = store.counts();
    out["disk"] = {{"pages", store.blocks()},
                   {"most_pages", store.layout().slots},
                   {"page_bytes", store.layout().pages_bytes},
                   {"found", counts.found},
                   {"fetched", counts.fetched},
                   {"declined", counts.declined},
                   {"written", counts.written},
                   {"evicted", counts.evicted},
                   {"damaged", counts.damaged},
                   {"skipped", counts.skipped},
                   {"waiting", prompts->waiting()},
                   {"policies",
                    {{"eviction", std::string(counts.eviction)},
                     {"writing", std::string(counts.writing)},
                     {"fetching", std::string(counts.fetching)}}},
                   {"warning", store.warning()}};
    return out;
}

/// Says what went wrong with the prompt cache's file, if anything did.
void warn_of_prompts(const zse::AnyEngine& engine) {
    if (engine.prompts() == nullptr || !engine.prompts()->store().off()) return;
    fmt::print(stderr, "warning: {}\n", engine.prompts()->store().warning());
}

void print_json(const Answer& result, const zse::AnyEngine& engine, const zse::memory::Measured& loaded) {
    nlohmann::json out;
    out["text"] = result.text;
    out["tokens"] = result.tokens;
    out["finish"] = std::string(zse::engine::name(result.finish));
    out["prompt_tokens"] = result.prompt_tokens;
    out["generated_tokens"] = result.tokens.size();
    out["prompt_tokens_per_second"] = result.prompt_rate();
    out["generation_tokens_per_second"] = result.generation_rate();
    out["tiers"] = json_of(engine.tier_traffic());
    out["prompt_cache"] = prompts_of(engine);
    out["streamed"] = json_of(engine.counters().streamed);
    out["engine"] = engine.description();
    out["planned"] = json_of(engine.plan());
    out["held"] = held_by(engine.ledger());
    out["after_loading"] = json_of(loaded);
    fmt::print("{}\n", dump(out));
}

int chat(zse::AnyEngine& engine, Watch& watch, const RunOptions& options,
         const zse::memory::Measured& loaded) {
    std::vector<zse::tokenizer::ChatMessage> messages;
    if (!options.system.empty()) messages.push_back({"system", options.system});
    fmt::print(stderr, "{}: an empty line or Ctrl-D ends, Ctrl-C stops an answer, /clear forgets\n",
               options.model.model);
    std::string line;
    while (fmt::print(stderr, "> "), std::getline(std::cin, line)) {
        if (line.empty()) break;
        if (line == "/clear") {
            messages.resize(options.system.empty() ? 0 : 1);
            continue;
        }
        messages.push_back({"user", line});
        try {
            const Answer result = answer(engine, watch, options, messages);
            fmt::print("\n");
            messages.push_back({"assistant", result.text});
            if (options.stats) print_stats(result, engine, loaded);
        } catch (const zse::Error& error) {
            if (error.code() != zse::ErrorCode::context_exceeded &&
                error.code() != zse::ErrorCode::invalid_input)
                throw;
            fmt::print(stderr, "zse: {}: {}\n", zse::name(error.code()), error.what());
            messages.pop_back();
        }
    }
    watch.finish();
    warn_of_prompts(engine);
    return 0;
}

int run(RunOptions& options) {
    std::ignore = options.model.file();  // before a prompt is waited for
    zse::sampling::validate(options.sampling);
    const bool terminal = ::isatty(STDIN_FILENO) == 1;
    if (!options.has_prompt && !terminal) {
        options.prompt.assign(std::istreambuf_iterator<char>(std::cin), {});
        options.has_prompt = true;
        if (options.prompt.empty()) {
            throw zse::Error(zse::ErrorCode::invalid_input,
                             "standard input is empty; give a PROMPT or pipe one in");
        }
    }
    struct sigaction interrupt {};
    interrupt.sa_handler = on_interrupt;
    ::sigaction(SIGINT, &interrupt, nullptr);

    const Chosen chosen = choose(options.model);
    const zse::Bytes before = resident_bytes();
    const auto engine = open(chosen);
    const zse::memory::Measured loaded = measure(*engine, before);
    Watch watch(*engine, options.profile);
    if (!options.has_prompt) return chat(*engine, watch, options, loaded);
    std::vector<zse::tokenizer::ChatMessage> messages;
    if (!options.system.empty()) messages.push_back({"system", options.system});
    messages.push_back({"user", options.prompt});
    const Answer result = answer(*engine, watch, options, messages);
    if (options.model.json) {
        print_json(result, *engine, loaded);
    } else {
        fmt::print("\n");
    }
    watch.finish();
    if (options.stats) print_stats(result, *engine, loaded);
    warn_of_prompts(*engine);
    return 0;
}

}  // namespace

void declare_run(CLI::App& app, Action& action) {
    auto options = std::make_shared<RunOptions>();
    CLI::App* command = app.add_subcommand("run", "answer a prompt, or chat on a terminal");
    options->model.declare(*command);
    command->add_option("PROMPT,--prompt", options->prompt,
                        "what to answer; without it: standard input, or a chat on a terminal");
    command->add_option("--system", options->system, "the system message");
    command->add_flag("--raw", options->raw, "continue the text as it is: no chat template");
    command->add_flag("--stats", options->stats, "print speed, and the memory plan beside what is held");
    options->profile.declare(*command);
    command
        ->add_option("--max-tokens", options->max_tokens,
                     "tokens to generate at most; default: until the context is full")
        ->check(CLI::Range(1u, 1u << 30));
    command->add_option("--stop", options->stop, "a text that ends the answer; can be given several times");
    command->add_option("--temperature", options->sampling.temperature, "0 takes the most likely token")
        ->capture_default_str();
    command->add_option("--top-k", options->sampling.top_k, "choose among the k most likely tokens; 0: all")
        ->capture_default_str();
    command
        ->add_option("--top-p", options->sampling.top_p, "choose among the most likely tokens of this share")
        ->capture_default_str();
    command
        ->add_option("--min-p", options->sampling.min_p,
                     "drop tokens less likely than this share of the most likely")
        ->capture_default_str();
    command
        ->add_option("--repetition-penalty", options->sampling.repetition_penalty,
                     "above 1 makes used tokens less likely")
        ->capture_default_str();
    command->add_option("--seed", options->sampling.seed, "of the random numbers")->capture_default_str();
    command->callback([options, command, &action] {
        options->has_prompt = command->count("PROMPT") > 0;
        action = [options] { return run(*options); };
    });
}

}  // namespace zse_cli
