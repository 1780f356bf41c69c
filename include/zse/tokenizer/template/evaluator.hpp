// SPDX-License-Identifier: Apache-2.0
// Walks a syntax tree and writes its text. Statements are here; expressions in its base, ExpressionEvaluator.
#pragma once

#include <zse/tokenizer/template/expression_evaluator.hpp>

#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace zse::inline v1 {
namespace tokenizer::jinja::detail {

class Renderer : ExpressionEvaluator {
public:
    /// The text of a template for a context, a dict. Errors carry the line where they arose, except the
    /// template's own from raise_exception.
    static std::string render(const Block& block, const Value& context, const Limits& limits,
                              std::optional<LocalSeconds> now) {
        Renderer renderer(context, limits, now);
        try {
            renderer.run(block);
        } catch (const RaisedByTemplate& error) {
            throw Error(error.code(), error.what(), error.where());
        } catch (const Error& error) {
            throw Error(error.code(), text("template line ", renderer.line_, ": ", error.what()),
                        error.where());
        }
        return std::move(renderer.output_);
    }

    Renderer(const Renderer&) = delete;
    Renderer& operator=(const Renderer&) = delete;
    ~Renderer() {
        // A namespace can hold itself, and a macro the scope that holds the macro.
        for (const auto& scope : captured_) scope->clear();
        for (const auto& space : environment_.namespaces) space->attributes.clear();
    }

private:
    Renderer(const Value& context, const Limits& limits, std::optional<LocalSeconds> now)
        : ExpressionEvaluator(context, limits, now) {}

    enum class Flow { next, leave_loop, next_round };

    Flow run(const Block& block) {
        const Budget::Level level(budget());
        for (const Statement& statement : block) {
            budget().step();
            line_ = statement.line;
            const Flow flow =
                std::visit([this](const auto& node) { return this->run(node); }, statement.node);
            if (flow != Flow::next) return flow;
        }
        return Flow::next;
    }

    Flow run(const TextNode& node) {
        write(node.text);
        return Flow::next;
    }

    [[gnu::noinline]] Flow run(const PrintNode& node) {
        for (const Expression& expression : node.expressions) {
            const Value value = evaluate(expression);
            if (value.is_string()) {
                write(value.as_string());
            } else {
                write(to_text(budget(), value));
            }
        }
        return Flow::next;
    }

    [[gnu::noinline]] Flow run(const IfNode& node) {
        for (const IfNode::Branch& branch : node.branches) {
            if (is_true(evaluate(branch.condition))) return run(branch.body);
        }
        return run(node.otherwise);
    }

    [[gnu::noinline]] Flow run(const ForNode& node) {
        auto loop = std::make_shared<LoopObject>();
        loop->items = walk(budget(), evaluate(node.items));
        if (node.filter) loop->items = kept(node, std::move(loop->items));
        loop->depth = depth_around(loop->items) + 1;
        check_depth(loop->depth);
        if (loop->items.empty()) {
            const Inside scope(*this);
            return run(node.otherwise);
        }
        for (; loop->index < loop->items.size(); ++loop->index) {
            budget().step();
            const Inside scope(*this);
            assign(node.target, loop->items[loop->index]);
            scope_->set("loop", Value(loop));
            const Flow flow = run(node.body);
            if (flow == Flow::leave_loop) break;
        }
        return Flow::next;
    }

    /// The items for which the loop's own "if" holds.
    std::vector<Value> kept(const ForNode& node, std::vector<Value> items) {
        std::vector<Value> result;
        for (Value& item : items) {
            budget().step();
            const Inside scope(*this);
            assign(node.target, item);
            if (is_true(evaluate(*node.filter))) result.push_back(std::move(item));
        }
        return result;
    }

    [[gnu::noinline]] Flow run(const SetNode& node) {
        if (node.value) {
            assign(node.target, evaluate(*node.value));
            return Flow::next;
        }
        std::string captured;
        const Flow flow = capture(node.body, captured);
        if (flow != Flow::next) return flow;
        assign(node.target, filtered(node.filter ? &*node.filter : nullptr, std::move(captured)));
        return Flow::next;
    }

    [[gnu::noinline]] Flow run(const FilterNode& node) {
        std::string captured;
        const Flow flow = capture(node.body, captured);
        if (flow != Flow::next) return flow;
        const Value value = filtered(&node.filter, std::move(captured));
        if (!value.is_string())
            fail_input("{% filter %} needs filters that give text, but got a ", type_name(value));
        write(value.as_string());
        return Flow::next;
    }

    Value filtered(const Expression* filter, std::string captured) {
        Value value(std::move(captured));
        if (filter == nullptr) return value;
        const auto& postfixes = std::get<PostfixNode>(filter->node).postfixes;
        return apply(std::move(value), postfixes, postfixes.size());
    }

    Flow run(const MacroStatement& node) {
        scope_->set(node.macro->name, make_macro(*node.macro));
        return Flow::next;
    }

    [[gnu::noinline]] Flow run(const CallNode& node) {
        const auto& call = std::get<PostfixNode>(node.call.node);
        const std::size_t last = call.postfixes.size() - 1;
        const Value callee = apply(evaluate(*call.base), call.postfixes, last);
        Arguments arguments = evaluate(call.postfixes[last].arguments);
        arguments.named.emplace_back("caller", make_macro(*node.caller));
        line_ = call.postfixes[last].line;
        write(to_text(budget(), call_value(callee, arguments)));
        return Flow::next;
    }

    [[gnu::noinline]] Flow run(const WithNode& node) {
        std::vector<Value> values;
        for (const auto& binding : node.bindings) values.push_back(evaluate(binding.second));
        const Inside scope(*this);
        for (std::size_t i = 0; i < values.size(); ++i) assign(node.bindings[i].first, values[i]);
        return run(node.body);
    }

    Flow run(const GenerationNode& node) {
        const Inside scope(*this);
        return run(node.body);
    }

    Flow run(const BreakNode&) { return Flow::leave_loop; }
    Flow run(const ContinueNode&) { return Flow::next_round; }

    /// Runs a block in a scope of its own and gives its text.
    Flow capture(const Block& block, std::string& captured) {
        const Inside scope(*this);
        const Redirected output(*this, captured);
        return run(block);
    }

    void run_body(const MacroNode& macro, std::string& captured) override {
        const Redirected output(*this, captured);
        run(macro.body);
    }

    class Redirected {
    public:
        Redirected(Renderer& renderer, std::string& target) : renderer_(renderer), before_(renderer.out_) {
            renderer.out_ = &target;
        }
        Redirected(const Redirected&) = delete;
        Redirected& operator=(const Redirected&) = delete;
        ~Redirected() { renderer_.out_ = before_; }

    private:
        Renderer& renderer_;
        std::string* before_;
    };

    void write(std::string_view part) {
        const Bytes most = budget().limits().output;
        if (part.size() > most || out_->size() > most - part.size()) {
            fail_input("the rendered text has at most ", most, " bytes, but more was written");
        }
        budget().bytes(part.size());
        out_->append(part);
    }

    void assign(const Target& target, const Value& value) {
        if (target.is_tuple) {
            const std::vector<Value> items = walk(budget(), value);
            if (items.size() != target.parts.size()) {
                fail_input(target.parts.size(), " names take as many values, but ", items.size(),
                           " are given");
            }
            for (std::size_t i = 0; i < items.size(); ++i) assign(target.parts[i], items[i]);
            return;
        }
        if (target.attribute.empty()) {
            scope_->set(target.name, value);
            return;
        }
        const Value owner = lookup(target.name);
        auto* space = owner.object<NamespaceObject>();
        if (space == nullptr) {
            fail_input("only a namespace's attributes can be set, but ", in_quotes(target.name),
                       " is of type ", type_name(owner));
        }
        check_namespace_name(target.attribute);
        budget().step(space->attributes.size() / 8 + 1);
        if (Value* held = space->find(target.attribute)) {
            *held = value;
        } else {
            budget().bytes(sizeof(std::pair<std::string, Value>) + target.attribute.size());
            space->attributes.emplace_back(target.attribute, value);
        }
    }

    std::string output_;
    std::string* out_ = &output_;
};

}  // namespace tokenizer::jinja::detail
}  // namespace zse::inline v1
