// SPDX-License-Identifier: Apache-2.0
// Conversations in the prompt formats of the common families, against what Python's jinja2 made of them.
#include <support/expect_error.hpp>
#include <support/template_value.hpp>
#include <zse/tokenizer/chat_template.hpp>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <fstream>
#include <iterator>
#include <map>
#include <string>
#include <vector>

namespace zse {
namespace {

using nlohmann::ordered_json;
using tokenizer::ChatContext;
using tokenizer::ChatMessage;
using tokenizer::ChatTemplate;
using tokenizer::jinja::LocalSeconds;
using tokenizer::jinja::Value;

std::string read(const std::string& name) {
    std::ifstream file(std::string(ZSE_TEST_DATA "/templates/") + name, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

ChatContext reference_context(bool prompt) {
    ChatContext context;
    context.bos_token = "<s>";
    context.eos_token = "</s>";
    context.add_generation_prompt = prompt;
    context.now = LocalSeconds(1'722'503'107);  // 2024-08-01 09:05:07
    return context;
}

TEST(ChatTemplateReference, AgreesWithJinja) {
    const ordered_json chats = ordered_json::parse(read("chats.json"));
    const ordered_json references = ordered_json::parse(read("conversations.json"));
    ASSERT_GE(references.size(), 300u);
    std::map<std::string, int> rendered;
    for (const auto& one : references) {
        const std::string name = one["template"];
        const ordered_json& chat = chats[one["chat"].get<std::string>()];
        SCOPED_TRACE(name + ", " + one["chat"].get<std::string>());
        ChatContext context = reference_context(one["prompt"]);
        if (chat.contains("tools")) context.tools = support::template_value(chat["tools"]);
        const Value messages = support::template_value(chat["messages"]);
        const ChatTemplate chat_template(read(name));
        if (one.contains("expected")) {
            EXPECT_EQ(chat_template.render(messages, context), one["expected"].get<std::string>());
            ++rendered[name];
            continue;
        }
        try {
            ADD_FAILURE() << "no error but: " << chat_template.render(messages, context);
        } catch (const Error& error) {
            EXPECT_EQ(error.code(), ErrorCode::invalid_input);
            if (one.contains("raised")) {
                EXPECT_EQ(std::string(error.what()), one["raised"].get<std::string>());
            }
        }
    }
    EXPECT_EQ(rendered.size(), 12u);
    for (const auto& [name, count] : rendered) EXPECT_GE(count, 10) << name;
}

TEST(ChatTemplate, TakesPlainMessages) {
    const ChatTemplate chat(read("smollm2_format.jinja"));
    const std::vector<ChatMessage> turns = {
        {"system", "Be brief."}, {"user", "Hi"}, {"assistant", "Yo"}, {"user", "Bye"}};
    EXPECT_EQ(
        chat.render(turns),
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\nYo<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n");
    ChatContext context;
    context.add_generation_prompt = false;
    const std::vector<ChatMessage> one = {{"user", "Hi"}};
    EXPECT_EQ(
        chat.render(one, context),
        "<|im_start|>system\nYou are a small, helpful model.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n");
}

TEST(ChatTemplate, TokensThatAreNotThereAreUndefined) {
    const ChatTemplate chat(
        "{{ bos_token is defined }} {{ eos_token is defined }}{{ bos_token }} {{ tools is none }}");
    EXPECT_EQ(chat.render(std::vector<ChatMessage>{}), "False False True");
    ChatContext context;
    context.bos_token = "<s>";
    context.tools = Value::list({});
    EXPECT_EQ(chat.render(std::vector<ChatMessage>{}, context), "True False<s> False");
}

TEST(ChatTemplate, VariablesWin) {
    const ChatTemplate chat("{{ enable_thinking }} {{ bos_token }} {{ add_generation_prompt }}");
    ChatContext context;
    context.bos_token = "<s>";
    context.variables = {{"enable_thinking", false}, {"bos_token", "<other>"}};
    EXPECT_EQ(chat.render(std::vector<ChatMessage>{}, context), "False <other> True");
}

TEST(ChatTemplate, TheClockCanBeSet) {
    const ChatTemplate chat("{{ strftime_now('%d %b %Y') }}");
    EXPECT_EQ(chat.render(std::vector<ChatMessage>{}, reference_context(true)), "01 Aug 2024");
}

TEST(ChatTemplate, BadInputIsRefused) {
    const ChatTemplate chat(read("gemma_format.jinja"));
    const std::vector<ChatMessage> broken = {{"user", "a\xFF"}};
    support::expect_error([&] { (void)chat.render(broken); }, ErrorCode::invalid_input, {"UTF-8", "byte 1"});
    const std::vector<ChatMessage> doubled = {{"user", "a"}, {"user", "b"}};
    support::expect_error([&] { (void)chat.render(doubled); }, ErrorCode::invalid_input,
                          {"Roles must alternate"});
    support::expect_error([] { ChatTemplate("{% if %}"); }, ErrorCode::corrupt, {"line 1"});
    support::expect_error([] { ChatTemplate("{% extends 'x' %}"); }, ErrorCode::unsupported, {"extends"});
}

TEST(ChatTemplate, ContentIsNeverTakenForTemplate) {
    const ChatTemplate chat("{{ messages[0].content }}");
    const std::vector<ChatMessage> turns = {{"user", "{{ 1 }}{% if %}{# #}"}};
    EXPECT_EQ(chat.render(turns), "{{ 1 }}{% if %}{# #}");
}

}  // namespace
}  // namespace zse
