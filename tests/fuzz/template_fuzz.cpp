// SPDX-License-Identifier: Apache-2.0
// Arbitrary templates, parsed and rendered for a small conversation under tight limits.
#include <zse/tokenizer/chat_template.hpp>

#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

namespace {

using zse::tokenizer::ChatContext;
using zse::tokenizer::ChatTemplate;
using zse::tokenizer::jinja::Limits;
using zse::tokenizer::jinja::Value;

Value dict(std::vector<Value::Entry> entries) {
    return Value::dict(std::move(entries));
}

Value messages() {
    const Value call = dict({{"name", "look_up"},
                             {"arguments", dict({{"city", "Z\xC3\xBCrich"}, {"days", 3}, {"exact", true}})}});
    return Value::list({
        dict({{"role", "system"}, {"content", " Be brief.\n"}}),
        dict({{"role", "user"}, {"content", "Hi <there> & 'you'"}}),
        dict({{"role", "assistant"},
              {"content", nullptr},
              {"tool_calls", Value::list({dict({{"id", "a1"}, {"function", call}})})}}),
        dict({{"role", "tool"}, {"content", "20.5"}}),
    });
}

ChatContext context() {
    ChatContext all;
    all.bos_token = "<s>";
    all.eos_token = "</s>";
    all.tools = Value::list(
        {dict({{"type", "function"}, {"function", dict({{"name", "look_up"}, {"parameters", dict({})}})}})});
    all.variables["x"] = Value::list({1, 2.5, "three", nullptr, Value::tuple({true, "t"})});
    all.now = zse::tokenizer::jinja::LocalSeconds(1'722'503'107);
    return all;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static const Value conversation = messages();
    static const ChatContext names = context();
    Limits limits;
    limits.source = 1 << 16;
    limits.output = 1 << 16;
    limits.values = 1 << 20;
    limits.steps = 100'000;
    limits.range = 1'000;
    try {
        const ChatTemplate chat(std::string_view(reinterpret_cast<const char*>(data), size), limits);
        if (chat.render(conversation, names).size() > limits.output) std::abort();
    } catch (const zse::Error& error) {
        if (error.code() == zse::ErrorCode::internal) std::abort();
    }
    return 0;
}
