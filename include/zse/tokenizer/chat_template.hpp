// SPDX-License-Identifier: Apache-2.0
// A model's chat template: messages to the one text that the model was trained on.
#pragma once

#include <zse/tokenizer/template/template.hpp>

#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace zse::inline v1 {
namespace tokenizer {

/// One turn of a conversation; roles are "system", "user", "assistant" and what else the template knows.
struct ChatMessage {
    std::string role;
    std::string content;
};

/// What a chat template sees besides the messages.
struct ChatContext {
    std::string bos_token{};  ///< text of the token; empty: the model has none, and the name is undefined
    std::string eos_token{};
    bool add_generation_prompt = true;                ///< ends with the opening of the assistant's turn
    std::optional<jinja::Value> tools{};              ///< a list of dicts as in OpenAI's API; absent: none
    std::map<std::string, jinja::Value> variables{};  ///< by name; they win over the names above
    std::optional<jinja::LocalSeconds> now{};         ///< what strftime_now shows; absent: the local time
};

class ChatTemplate {
public:
    /// Errors: as jinja::Template's constructor.
    explicit ChatTemplate(std::string_view source, jinja::Limits limits = {}) : template_(source, limits) {}

    /// Errors: as jinja::Template::render; a message that is not valid UTF-8 is invalid_input.
    [[nodiscard]] std::string render(std::span<const ChatMessage> messages,
                                     const ChatContext& context = {}) const {
        std::vector<jinja::Value> turns;
        turns.reserve(messages.size());
        for (const ChatMessage& message : messages) {
            require_utf8(message.role);
            require_utf8(message.content);
            turns.push_back(jinja::Value::dict({{"role", message.role}, {"content", message.content}}));
        }
        return render(jinja::Value::list(std::move(turns)), context);
    }

    /// The same for messages with more in them, such as tool calls: a list of dicts.
    [[nodiscard]] std::string render(const jinja::Value& messages, const ChatContext& context = {}) const {
        std::vector<jinja::Value::Entry> names;
        for (const auto& [name, value] : context.variables) names.emplace_back(name, value);
        const auto add = [&](const char* name, jinja::Value value) {
            if (!context.variables.contains(name)) names.emplace_back(name, std::move(value));
        };
        add("messages", messages);
        add("tools", context.tools.value_or(jinja::Value(nullptr)));
        add("documents", nullptr);
        add("add_generation_prompt", context.add_generation_prompt);
        if (!context.bos_token.empty()) add("bos_token", context.bos_token);
        if (!context.eos_token.empty()) add("eos_token", context.eos_token);
        return template_.render(jinja::Value::dict(std::move(names)), context.now);
    }

private:
    static void require_utf8(std::string_view part) {
        const std::size_t invalid = find_invalid_utf8(part);
        if (invalid == std::string_view::npos) return;
        throw Error(ErrorCode::invalid_input, text("a chat message is UTF-8 text, but byte ", invalid,
                                                   " of one is not; convert it first"));
    }

    jinja::Template template_;
};

}  // namespace tokenizer
}  // namespace zse::inline v1
