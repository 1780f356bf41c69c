// SPDX-License-Identifier: Apache-2.0
// Requests as their callers see them: text, ends, cancellation, masks, budgets, bad input, and no allocation
// in a step.
// rows: 61 76
#include <gtest/gtest.h>
#include <support/counted_new.hpp>
#include <support/expect_error.hpp>
#include <support/tiny_engine.hpp>

#include <map>

namespace {

using support::Tiny;
using Request = zse::AnyEngine::Request;
using zse::engine::Finish;

const Tiny& tiny() {
    static const Tiny model({});
    return model;
}

struct Outcome {
    std::vector<std::int32_t> tokens;
    std::string text;
    Finish finish = Finish::none;
};

std::map<zse::engine::RequestId, Outcome> run(zse::AnyEngine& engine) {
    std::map<zse::engine::RequestId, Outcome> outcomes;
    while (!engine.idle()) {
        for (const auto& event : engine.step()) {
            Outcome& outcome = outcomes[event.id];
            EXPECT_EQ(outcome.finish, Finish::none) << "an event after the end";
            if (event.token >= 0) outcome.tokens.push_back(event.token);
            outcome.text += event.text;
            if (event.finish != Finish::none) outcome.finish = event.finish;
        }
    }
    return outcomes;
}

Request request(std::uint64_t seed, std::uint32_t tokens, std::uint32_t most) {
    Request r;
    r.tokens = support::tiny_prompt(seed, tokens);
    r.max_tokens = most;
    r.ignore_end = true;
    return r;
}

TEST(Requests, ABatchGivesWhatEachGivesAlone) {
    std::vector<Outcome> alone;
    for (std::uint64_t i = 0; i < 12; ++i) {
        const auto engine = tiny().open({.context = 96, .threads = 1});
        Request r =
            request(i, static_cast<std::uint32_t>(3 + 5 * i), static_cast<std::uint32_t>(4 + 3 * i % 17));
        r.sampling = {.temperature = i % 2 == 0 ? 0.0f : 1.0f, .top_p = 0.9f, .seed = i};
        engine->submit(r);
        alone.push_back(run(*engine).begin()->second);
    }
    const auto engine = tiny().open({.context = 96, .batch = 5, .step_tokens = 16, .threads = 2});
    std::vector<zse::engine::RequestId> ids;
    for (std::uint64_t i = 0; i < 12; ++i) {
        Request r =
            request(i, static_cast<std::uint32_t>(3 + 5 * i), static_cast<std::uint32_t>(4 + 3 * i % 17));
        r.sampling = {.temperature = i % 2 == 0 ? 0.0f : 1.0f, .top_p = 0.9f, .seed = i};
        ids.push_back(engine->submit(r));
    }
    auto outcomes = run(*engine);
    for (std::size_t i = 0; i < ids.size(); ++i) {
        EXPECT_EQ(outcomes[ids[i]].tokens, alone[i].tokens) << i;
        EXPECT_EQ(outcomes[ids[i]].text, alone[i].text) << i;
        EXPECT_EQ(outcomes[ids[i]].finish, Finish::length);
    }
}

// Row 61: no step is above the budget, and a long prompt does not keep others from generating.
TEST(Requests, StepsKeepToTheBudgetAndNobodyStarves) {
    const auto engine = tiny().open({.context = 2048, .batch = 2, .step_tokens = 64});
    const auto talker = engine->submit(request(1, 4, 60));
    engine->step();  // its prompt
    const auto reader = engine->submit(request(2, 1500, 1));
    std::size_t spoken = 0;
    bool read = false;
    while (!read && !engine->idle()) {
        const std::size_t before = spoken;
        for (const auto& event : engine->step()) {
            spoken += event.id == talker && event.token >= 0;
            read = read || event.id == reader;
        }
        EXPECT_LE(engine->counters().most_rows_in_a_step, 64u);
        if (spoken < 59) {
            EXPECT_GT(spoken, before) << "a step without a token for the one that generates";
        }
    }
    EXPECT_GE(spoken, 1500u / 64u);
    EXPECT_EQ(engine->counters().most_rows_in_a_step, 64u);
}

TEST(Requests, NoAllocationBetweenTokens) {
    for (const float temperature : {0.0f, 0.8f}) {
        const bool prompt_cache = temperature > 0;
        const auto engine =
            tiny().open({.context = 128, .batch = 4, .threads = 2, .prompt_cache = prompt_cache});
        for (std::uint64_t i = 0; i < 4; ++i) {
            Request r = request(i, 8, 100);
            r.sampling = {.temperature = temperature, .top_k = 20, .top_p = 0.9f, .repetition_penalty = 1.1f};
            r.stop = {"this text never comes", "nor this"};
            engine->submit(std::move(r));
        }
        engine->step();  // admits, computes the prompts
        engine->step();
        const std::size_t before = support::allocations.load();
        for (int i = 0; i < 90; ++i) ASSERT_EQ(engine->step().size(), 4u);
        EXPECT_EQ(support::allocations.load() - before, 0u) << "temperature " << temperature;
    }
}

TEST(Requests, StopTextsEndAnAnswerAndAreNoPartOfIt) {
    const auto engine = tiny().open({.context = 128});
    engine->submit(request(4, 8, 60));
    const Outcome whole = run(*engine).begin()->second;
    ASSERT_GT(whole.text.size(), 20u);
    std::size_t cut = 0;  // a stop text of printable ASCII from the middle of the answer
    for (std::size_t i = 10; i + 2 < whole.text.size() && cut == 0; ++i) {
        const auto plain = [&](std::size_t at) { return whole.text[at] > 32 && whole.text[at] < 127; };
        if (plain(i) && plain(i + 1)) cut = i;
    }
    ASSERT_NE(cut, 0u);
    const std::string stop = whole.text.substr(cut, 2);
    Request stopped = request(4, 8, 60);
    stopped.stop = {stop};
    engine->submit(stopped);
    const Outcome outcome = run(*engine).begin()->second;
    EXPECT_EQ(outcome.finish, Finish::stop_string);
    EXPECT_EQ(outcome.text, whole.text.substr(0, whole.text.find(stop)));
}

TEST(Requests, TextIsTheDecodedTokens) {
    const auto engine = tiny().open({.context = 128});
    engine->submit(request(6, 5, 80));
    const Outcome outcome = run(*engine).begin()->second;
    EXPECT_EQ(outcome.text, tiny().vocabulary->tokenizer.decode(outcome.tokens));
}

TEST(Requests, MasksHoldForEveryToken) {
    const auto engine = tiny().open({.context = 64, .batch = 2});
    std::vector<std::uint64_t> bits((tiny().spec.vocabulary + 63) / 64, 0);
    bits[1] = 0xff;  // tokens 64 to 71
    Request masked = request(1, 6, 20);
    masked.sampling.temperature = 2.0f;
    std::size_t longest = 0;
    masked.mask = [&](std::span<const std::int32_t> history) {
        longest = std::max(longest, history.size());
        return std::span<const std::uint64_t>(bits);
    };
    const auto id = engine->submit(masked);
    const auto free = engine->submit(request(1, 6, 20));
    auto outcomes = run(*engine);
    for (const std::int32_t token : outcomes[id].tokens) EXPECT_TRUE(token >= 64 && token < 72) << token;
    EXPECT_EQ(outcomes[id].tokens.size(), 20u);
    EXPECT_EQ(longest, 25u);
    EXPECT_NE(outcomes[free].tokens, outcomes[id].tokens);

    std::fill(bits.begin(), bits.end(), 0u);
    engine->submit(masked);
    EXPECT_EQ(run(*engine).begin()->second.finish, Finish::failed) << "a mask that allows nothing";
}

TEST(Requests, CancelFreesTheSlotAndThePages) {
    const auto engine = tiny().open({.context = 64, .batch = 1});
    const auto running = engine->submit(request(1, 6, 50));
    const auto waiting = engine->submit(request(2, 6, 5));
    const auto last = engine->submit(request(3, 6, 5));
    for (int i = 0; i < 5; ++i) engine->step();
    EXPECT_TRUE(engine->cancel(running));
    EXPECT_TRUE(engine->cancel(waiting));
    EXPECT_FALSE(engine->cancel(waiting));
    EXPECT_FALSE(engine->cancel(999));
    const auto outcomes = run(*engine);
    EXPECT_EQ(outcomes.size(), 1u);
    EXPECT_EQ(outcomes.at(last).tokens.size(), 5u);
    for (int i = 0; i < 50; ++i) {  // a page that was lost would be missed before long
        const auto id = engine->submit(request(static_cast<std::uint64_t>(i), 60, 4));
        engine->step();
        engine->cancel(id);
    }
    engine->submit(request(1, 60, 4));
    EXPECT_EQ(run(*engine).begin()->second.tokens.size(), 4u);
}

TEST(Requests, GenerateIsARangeAndLeavingItCancels) {
    auto engine = tiny().open({.context = 128});
    Request r = request(0, 1, 40);
    std::string text;
    auto answer = engine->generate("the band", r);
    for (std::string_view piece : answer) text += piece;
    EXPECT_FALSE(text.empty());
    EXPECT_EQ(answer.finish(), Finish::length);
    EXPECT_EQ(answer.tokens(), 40u);
    {
        auto left = engine->generate("the band", r);
        for (std::string_view piece : left) {
            EXPECT_FALSE(piece.empty());
            break;
        }
    }
    EXPECT_TRUE(engine->idle());
}

TEST(Requests, SeedsRepeat) {  // row 76
    const auto engine = tiny().open({.context = 64});
    const auto sample = [&](std::uint64_t seed) {
        Request r = request(3, 8, 30);
        r.sampling = {.temperature = 1.5f, .seed = seed};
        engine->submit(r);
        return run(*engine).begin()->second.tokens;
    };
    EXPECT_EQ(sample(1), sample(1));
    EXPECT_NE(sample(1), sample(2));
}

TEST(Requests, BadRequestsAreRefusedAndHarmNothing) {
    const auto engine = tiny().open({.context = 32});
    using zse::ErrorCode;
    const auto refuses = [&](const Request& r, ErrorCode code,
                             std::initializer_list<std::string_view> words) {
        support::expect_error([&] { engine->submit(r); }, code, words);
    };
    Request r = request(1, 4, 4);
    r.tokens.clear();
    refuses(r, ErrorCode::invalid_input, {"no tokens"});
    r.tokens = {5, -1};
    refuses(r, ErrorCode::invalid_input, {"token -1"});
    r.tokens = {288};
    refuses(r, ErrorCode::invalid_input, {"token 288", "288 tokens"});
    r.tokens = {1};
    r.sampling.temperature = -1;
    refuses(r, ErrorCode::usage, {"temperature"});
    r.sampling.temperature = 0;
    r.stop = {""};
    refuses(r, ErrorCode::usage, {"stop"});
    EXPECT_TRUE(engine->idle());
    support::expect_error([&] { engine->generate("\xff\xfe"); }, ErrorCode::invalid_input, {"UTF-8"});
    engine->submit(request(1, 4, 4));
    EXPECT_EQ(run(*engine).size(), 1u);
}

}  // namespace
