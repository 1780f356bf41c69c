// SPDX-License-Identifier: Apache-2.0
// Expressions to values: names, operators, postfixes and calls.
#pragma once

#include <zse/tokenizer/template/filters.hpp>
#include <zse/tokenizer/template/functions.hpp>
#include <zse/tokenizer/template/scope.hpp>
#include <zse/tokenizer/template/syntax.hpp>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace zse::inline v1 {
namespace tokenizer::jinja::detail {

class ExpressionEvaluator {
protected:
    ExpressionEvaluator(const Value& context, const Limits& limits, std::optional<LocalSeconds> now)
        : environment_{Budget(limits), now}, context_(context), scope_(std::make_shared<Scope>(nullptr)) {}
    ~ExpressionEvaluator() = default;

    /// Writes the text of a macro's body to `captured`; its arguments are set already.
    virtual void run_body(const MacroNode& macro, std::string& captured) = 0;

    [[nodiscard]] Budget& budget() noexcept { return environment_.budget; }

    /// A scope inside the current one, while it lives.
    class Inside {
    public:
        explicit Inside(ExpressionEvaluator& evaluator) : Inside(evaluator, evaluator.scope_) {}
        /// Inside another scope than the current one: where a macro was defined.
        Inside(ExpressionEvaluator& evaluator, std::shared_ptr<Scope> around)
            : evaluator_(evaluator), before_(std::move(evaluator.scope_)) {
            evaluator_.scope_ = std::make_shared<Scope>(around ? std::move(around) : before_);
        }
        Inside(const Inside&) = delete;
        Inside& operator=(const Inside&) = delete;
        ~Inside() { evaluator_.scope_ = std::move(before_); }

    private:
        ExpressionEvaluator& evaluator_;
        std::shared_ptr<Scope> before_;
    };

    Value evaluate(const Expression& expression) {
        budget().step();
        line_ = expression.line;
        if (const auto* literal = std::get_if<LiteralNode>(&expression.node)) return literal->value;
        if (const auto* name = std::get_if<NameNode>(&expression.node)) return lookup(name->name);
        const Budget::Level level(budget());
        return std::visit([this](const auto& node) { return this->evaluate_node(node); }, expression.node);
    }

    /// A name in the scopes from inside out, then in the context, then among the functions.
    Value lookup(const std::string& name) {
        for (const Scope* scope = scope_.get(); scope != nullptr; scope = scope->parent()) {
            budget().step();
            if (const Value* found = scope->find(name)) return *found;
        }
        if (const Value* found = context_.find(name)) return *found;
        if (find_function(name) != nullptr) return make_function(name);
        if (is_left_out(name)) fail_unsupported("the name ", in_quotes(name), " of Jinja is left out");
        return Value::undefined(text(in_quotes(name), " is undefined"));
    }

    /// Applies the first `count` postfixes.
    Value apply(Value value, const std::vector<Postfix>& postfixes, std::size_t count) {
        for (std::size_t i = 0; i < count; ++i) {
            budget().step();
            line_ = postfixes[i].line;
            value = apply(value, postfixes[i]);
        }
        return value;
    }

    [[gnu::noinline]] Arguments evaluate(const ArgumentNodes& nodes) {
        Arguments arguments;
        for (const Expression& node : nodes.positional) arguments.positional.push_back(evaluate(node));
        if (nodes.more_positional) {
            for (Value& value : walk(budget(), evaluate(*nodes.more_positional))) {
                arguments.positional.push_back(std::move(value));
            }
        }
        for (std::size_t i = 0; i < nodes.names.size(); ++i) {
            arguments.named.emplace_back(nodes.names[i], evaluate(nodes.named[i]));
        }
        if (nodes.more_named) {
            const Value more = evaluate(*nodes.more_named);
            if (!more.is_dict())
                fail_input("arguments behind ** come from a dict, but a ", type_name(more), " was given");
            budget().step(more.entries().size() * (arguments.named.size() + more.entries().size()) / 8);
            for (const auto& [key, value] : more.entries()) {
                if (!key.is_string()) fail_input("the names of arguments behind ** are strings");
                arguments.named.emplace_back(key.as_string(), value);
            }
        }
        return arguments;
    }

    [[gnu::noinline]] Value call_value(const Value& callee, const Arguments& arguments) {
        require_defined(callee);
        const auto* callable = callee.object<const CallableObject>();
        if (callable == nullptr) fail_input("a value of type ", type_name(callee), " cannot be called");
        if (callable->macro != nullptr) return call_macro(*callable, arguments);
        if (!callable->is_method) return find_function(callable->name)(environment_, arguments);
        if (const auto* loop = callable->receiver.object<LoopObject>()) {
            if (callable->name != "cycle") fail_unsupported("loop.changed() is left out");
            if (arguments.positional.empty()) fail_input("loop.cycle() needs values to choose from");
            return arguments.positional[loop->index % arguments.positional.size()];
        }
        return call_method(budget(), *callable, arguments);
    }

    /// A macro that sees the current scope. The scope is kept, since it and the macro hold each other.
    Value make_macro(const MacroNode& macro) {
        budget().bytes(sizeof(CallableObject) + sizeof(Scope) + 64);
        if (captured_.empty() || captured_.back() != scope_) captured_.push_back(scope_);
        CallableObject object{.name = macro.name};
        object.macro = &macro;
        object.scope = scope_;
        return Value(std::make_shared<const CallableObject>(std::move(object)));
    }

    Environment environment_;
    const Value& context_;
    std::shared_ptr<Scope> scope_;
    std::vector<std::shared_ptr<Scope>> captured_;
    int line_ = 1;

private:
    Value evaluate_node(const LiteralNode& node) { return node.value; }
    Value evaluate_node(const NameNode& node) { return lookup(node.name); }

    [[gnu::noinline]] Value evaluate_node(const ListNode& node) {
        budget().bytes(node.items.size() * sizeof(Value) + sizeof(SequenceObject));
        std::vector<Value> items;
        items.reserve(node.items.size());
        for (const Expression& item : node.items) items.push_back(evaluate(item));
        return node.is_tuple ? Value::tuple(std::move(items)) : Value::list(std::move(items));
    }

    [[gnu::noinline]] Value evaluate_node(const DictNode& node) {
        std::vector<Value::Entry> entries;
        entries.reserve(node.keys.size());
        for (std::size_t i = 0; i < node.keys.size(); ++i) {
            Value key = evaluate(node.keys[i]);
            entries.emplace_back(std::move(key), evaluate(node.values[i]));
        }
        return make_dict(budget(), std::move(entries));
    }

    [[gnu::noinline]] Value evaluate_node(const PostfixNode& node) {
        return apply(evaluate(*node.base), node.postfixes, node.postfixes.size());
    }

    [[gnu::noinline]] Value evaluate_node(const UnaryNode& node) {
        const Value operand = evaluate(*node.operand);
        if (node.kind == UnaryNode::Kind::not_) return !is_true(operand);
        if (node.kind == UnaryNode::Kind::minus) return negate(operand);
        require_defined(operand);
        if (!operand.is_number())
            fail_input("the operator + does not take a value of type ", type_name(operand));
        return operand.is_boolean() ? Value(operand.as_integer()) : operand;
    }

    [[gnu::noinline]] Value evaluate_node(const ConditionalNode& node) {
        for (std::size_t i = node.conditions.size(); i-- > 0;) {
            if (is_true(evaluate(node.conditions[i]))) continue;
            const bool has_otherwise = i + 1 == node.conditions.size() && node.otherwise;
            if (has_otherwise) return evaluate(*node.otherwise);
            return Value::undefined("the value of a condition without 'else' that does not hold is used");
        }
        return evaluate(*node.then);
    }

    [[gnu::noinline]] Value evaluate_node(const ChainNode& node) {
        Value value = evaluate(node.operands.front());
        if (node.kind == ChainNode::Kind::concatenate) return concatenate(value, node);
        for (std::size_t i = 0; i < node.operators.size(); ++i) {
            const Operator operation = node.operators[i];
            const Expression& operand = node.operands[i + 1];
            switch (node.kind) {
                case ChainNode::Kind::logic:
                    if (is_true(value) == (operation == Operator::or_)) return value;
                    value = evaluate(operand);
                    break;
                case ChainNode::Kind::compare: {
                    Value right = evaluate(operand);
                    if (!holds(operation, value, right)) return false;
                    value = std::move(right);
                    break;
                }
                default: value = arithmetic(budget(), operation, value, evaluate(operand));
            }
        }
        return node.kind == ChainNode::Kind::compare ? Value(true) : value;
    }

    Value concatenate(const Value& first, const ChainNode& node) {
        TextBuilder out(budget());
        append_text(out, first);
        for (std::size_t i = 1; i < node.operands.size(); ++i) append_text(out, evaluate(node.operands[i]));
        return out.take();
    }

    bool holds(Operator operation, const Value& left, const Value& right) {
        switch (operation) {
            case Operator::equal: return equal(budget(), left, right);
            case Operator::not_equal: return !equal(budget(), left, right);
            case Operator::in: return contains(budget(), right, left);
            case Operator::not_in: return !contains(budget(), right, left);
            case Operator::less: return order(budget(), left, right) < 0;
            case Operator::less_equal: return order(budget(), left, right) <= 0;
            case Operator::greater: return order(budget(), left, right) > 0;
            default: return order(budget(), left, right) >= 0;
        }
    }

    [[gnu::noinline]] Value apply(const Value& value, const Postfix& postfix) {
        switch (postfix.kind) {
            case Postfix::Kind::attribute: return get_attribute(budget(), value, postfix.name);
            case Postfix::Kind::item: return get_item(budget(), value, evaluate(*postfix.index));
            case Postfix::Kind::slice: {
                const auto bound = [this](const ExpressionPtr& node) {
                    return node ? evaluate(*node) : Value(nullptr);
                };
                const Value start = bound(postfix.index);
                const Value stop = bound(postfix.stop);
                return slice(budget(), value, start, stop, bound(postfix.step));
            }
            case Postfix::Kind::call: {
                const Arguments arguments = evaluate(postfix.arguments);
                line_ = postfix.line;
                return call_value(value, arguments);
            }
            case Postfix::Kind::filter:
                return run_filter(budget(), postfix.name, value, evaluate(postfix.arguments));
            case Postfix::Kind::test:
                return run_test(budget(), postfix.name, value, evaluate(postfix.arguments)) !=
                       postfix.negated;
        }
        return {};
    }

    [[gnu::noinline]] Value call_macro(const CallableObject& callable, const Arguments& arguments) {
        const MacroNode& macro = *callable.macro;
        const Budget::Level level(budget());
        const Inside scope(*this, callable.scope);
        bind(macro, arguments);
        std::string captured;
        run_body(macro, captured);
        return captured;
    }

    /// Sets the parameters of a macro, and varargs, kwargs and caller where its body asks for them.
    [[gnu::noinline]] void bind(const MacroNode& macro, const Arguments& arguments) {
        const std::size_t count = macro.parameters.size();
        std::vector<const Value*> given(count, nullptr);
        for (std::size_t i = 0; i < std::min(count, arguments.positional.size()); ++i)
            given[i] = &arguments.positional[i];
        if (arguments.positional.size() > count && !macro.uses_varargs) {
            fail_input("the macro ", in_quotes(macro.name), " takes at most ", count, " arguments, but ",
                       arguments.positional.size(), " are given");
        }
        std::vector<Value::Entry> others;
        Value caller = Value::undefined("there is no caller here");
        for (const auto& [name, value] : arguments.named) {
            std::size_t place = 0;
            while (place < count && macro.parameters[place].name != name) ++place;
            if (place < count) {
                if (given[place] != nullptr) {
                    fail_input("the macro ", in_quotes(macro.name), " is given its argument ",
                               in_quotes(name), " twice");
                }
                given[place] = &value;
            } else if (name == "caller" && macro.uses_caller) {
                caller = value;
            } else if (macro.uses_kwargs && name != "caller") {
                others.emplace_back(name, value);
            } else {
                fail_input("the macro ", in_quotes(macro.name), " takes no argument ", in_quotes(name));
            }
        }
        if (macro.uses_caller) scope_->set("caller", std::move(caller));
        if (macro.uses_kwargs) scope_->set("kwargs", make_dict(budget(), std::move(others)));
        if (macro.uses_varargs) scope_->set("varargs", Value::tuple(positional_from(arguments, count)));
        for (std::size_t i = 0; i < count; ++i) {
            const MacroNode::Parameter& parameter = macro.parameters[i];
            if (given[i] != nullptr) {
                scope_->set(parameter.name, *given[i]);
            } else if (parameter.fallback) {
                scope_->set(parameter.name, evaluate(*parameter.fallback));
            } else {
                scope_->set(parameter.name, Value::undefined(text("the parameter ", in_quotes(parameter.name),
                                                                  " is used, but not given")));
            }
        }
    }

    static std::vector<Value> positional_from(const Arguments& arguments, std::size_t begin) {
        if (begin >= arguments.positional.size()) return {};
        return {arguments.positional.begin() + static_cast<std::ptrdiff_t>(begin),
                arguments.positional.end()};
    }
};

}  // namespace tokenizer::jinja::detail
}  // namespace zse::inline v1
