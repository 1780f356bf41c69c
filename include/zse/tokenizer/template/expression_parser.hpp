// SPDX-License-Identifier: Apache-2.0
// Tokens to expressions, by recursive descent; the precedence is Jinja's, which is not quite Python's:
// "~" binds between "+" and "*", filters and tests bind tighter than any operator, "**" goes left to right.
#pragma once

#include <zse/tokenizer/template/syntax.hpp>
#include <zse/tokenizer/template/token_cursor.hpp>

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace zse::inline v1 {
namespace tokenizer::jinja::detail {

/// Parameters of a macro, and named arguments of a call: they are matched one by one.
inline constexpr std::size_t max_parameters = 255;

class ExpressionParser : protected TokenCursor {
protected:
    using TokenCursor::TokenCursor;

    /// Names that expressions read, in the order of the source.
    [[nodiscard]] const std::vector<std::string>& loaded_names() const noexcept { return loaded_names_; }

    // Expressions.

    /// One expression, or several with commas between them as a tuple. `end` is a name that ends it.
    Expression tuple(bool with_condition, std::string_view end = {}, bool may_be_empty = false) {
        const int line = peek().line;
        std::vector<Expression> items;
        bool is_tuple = false;
        while (!ends_tuple(end)) {
            items.push_back(with_condition ? expression() : disjunction());
            if (!accept(",")) break;
            is_tuple = true;
        }
        if (!is_tuple && items.size() == 1) return std::move(items.front());
        if (items.empty() && !may_be_empty) fail_unexpected("an expression");
        return {line, ListNode{true, std::move(items)}};
    }

    Expression expression() {
        const Level level = nest();
        Expression value = disjunction();
        if (!is_name("if")) return value;
        const int line = peek().line;
        ConditionalNode node{boxed(std::move(value)), {}, {}};
        while (!node.otherwise && accept_name("if")) {
            node.conditions.push_back(disjunction());
            if (accept_name("else")) node.otherwise = boxed(expression());
        }
        return {line, std::move(node)};
    }

    Expression disjunction() { return chain(0); }

    /// A filter chain without a value before it: "| upper | trim".
    Expression filters() {
        const int line = peek().line;
        PostfixNode node;
        while (is_symbol("|")) {
            advance();
            node.postfixes.push_back(filter());
        }
        return {line, std::move(node)};
    }

    /// The same where the first "|" is left out: "upper | trim".
    Expression filters_after_name() {
        const int line = peek().line;
        Postfix first = filter();
        Expression rest = filters();
        auto& postfixes = std::get<PostfixNode>(rest.node).postfixes;
        postfixes.insert(postfixes.begin(), std::move(first));
        rest.line = line;
        return rest;
    }

    // Targets.

    std::string assignable_name() {
        const Token& token = expect_kind(TokenKind::name, "a name");
        for (const std::string_view reserved : {"true", "false", "none", "True", "False", "None"}) {
            if (token.text == reserved)
                fail_syntax(token.line, "'", reserved, "' is a value and cannot be assigned");
        }
        return token.text;
    }

    Target target(bool with_attribute, std::string_view end) {
        const Level level = nest();
        std::vector<Target> parts;
        bool is_tuple = false;
        while (!ends_tuple(end)) {
            parts.push_back(single_target(with_attribute));
            if (!accept(",")) break;
            is_tuple = true;
        }
        if (parts.empty()) fail_unexpected("a name");
        if (!is_tuple) return std::move(parts.front());
        Target all;
        all.is_tuple = true;
        all.parts = std::move(parts);
        return all;
    }

private:
    static ExpressionPtr boxed(Expression expression) {
        return std::make_unique<Expression>(std::move(expression));
    }

    [[nodiscard]] bool ends_tuple(std::string_view end) const {
        const TokenKind kind = peek().kind;
        return kind == TokenKind::print_end || kind == TokenKind::tag_end || is_symbol(")") ||
               (!end.empty() && is_name(end));
    }

    Target single_target(bool with_attribute) {
        if (accept("(")) {
            Target inner = target(with_attribute, {});
            expect(")");
            return inner;
        }
        Target single;
        single.name = assignable_name();
        if (with_attribute && accept(".")) {
            single.attribute = expect_kind(TokenKind::name, "the name of an attribute").text;
        }
        return single;
    }

    /// The operator at the cursor, where it has this precedence: from the loosest (0: or) to the tightest
    /// (6).
    [[nodiscard]] std::optional<Operator> operator_at(int precedence) const {
        const Token& token = peek();
        if (token.kind == TokenKind::name) {
            if (precedence == 0 && token.text == "or") return Operator::or_;
            if (precedence == 1 && token.text == "and") return Operator::and_;
            if (precedence == 2 && token.text == "in") return Operator::in;
            if (precedence == 2 && token.text == "not" && is_name("in", 1)) return Operator::not_in;
            return std::nullopt;
        }
        if (token.kind != TokenKind::symbol) return std::nullopt;
        struct Row {
            std::string_view symbol;
            int precedence;
            Operator operation;
        };
        static constexpr Row rows[] = {
            {"==", 2, Operator::equal},      {"!=", 2, Operator::not_equal},
            {"<", 2, Operator::less},        {"<=", 2, Operator::less_equal},
            {">", 2, Operator::greater},     {">=", 2, Operator::greater_equal},
            {"+", 3, Operator::add},         {"-", 3, Operator::subtract},
            {"~", 4, Operator::concatenate}, {"*", 5, Operator::multiply},
            {"/", 5, Operator::divide},      {"//", 5, Operator::floor_divide},
            {"%", 5, Operator::modulo},      {"**", 6, Operator::power},
        };
        for (const Row& row : rows) {
            if (row.precedence == precedence && row.symbol == token.text) return row.operation;
        }
        return std::nullopt;
    }

    static ChainNode::Kind chain_kind(int precedence) noexcept {
        if (precedence < 2) return ChainNode::Kind::logic;
        if (precedence == 2) return ChainNode::Kind::compare;
        return precedence == 4 ? ChainNode::Kind::concatenate : ChainNode::Kind::arithmetic;
    }

    Expression chain(int precedence) {
        if (precedence == 2) {
            const int line = peek().line;
            int count = 0;
            while (accept_name("not")) ++count;
            Expression value = links(precedence);
            if (count == 0) return value;
            value = {line, UnaryNode{UnaryNode::Kind::not_, boxed(std::move(value))}};
            // Two more negations give the same truth, so that a row of them needs no depth.
            if (count % 2 == 0) value = {line, UnaryNode{UnaryNode::Kind::not_, boxed(std::move(value))}};
            return value;
        }
        return links(precedence);
    }

    Expression links(int precedence) {
        const auto operand = [&] { return precedence == 6 ? unary(true) : chain(precedence + 1); };
        Expression first = operand();
        std::optional<Operator> operation = operator_at(precedence);
        if (!operation) return first;
        const int line = peek().line;
        ChainNode node{chain_kind(precedence), {}, {}};
        node.operands.push_back(std::move(first));
        for (; operation; operation = operator_at(precedence)) {
            advance();
            if (*operation == Operator::not_in) advance();
            node.operators.push_back(*operation);
            node.operands.push_back(operand());
        }
        return {line, std::move(node)};
    }

    Expression unary(bool with_filters) {
        const Level level = nest();
        const int line = peek().line;
        Expression value;
        if (is_symbol("-") || is_symbol("+")) {
            const auto kind = advance().text == "-" ? UnaryNode::Kind::minus : UnaryNode::Kind::plus;
            value = {line, UnaryNode{kind, boxed(unary(false))}};
        } else {
            value = primary();
        }
        std::vector<Postfix> postfixes;
        bool after_filter = false;  // behind one, no attribute or index follows without brackets
        while (postfix(postfixes, with_filters, after_filter)) {
        }
        if (postfixes.empty()) return value;
        return {line, PostfixNode{boxed(std::move(value)), std::move(postfixes)}};
    }

    Expression primary() {
        const Token& token = peek();
        switch (token.kind) {
            case TokenKind::name: advance(); return name(token);
            case TokenKind::integer: advance(); return {token.line, LiteralNode{Value(token.integer)}};
            case TokenKind::floating: advance(); return {token.line, LiteralNode{Value(token.floating)}};
            case TokenKind::string: {
                std::string joined;
                while (peek().kind == TokenKind::string) joined += advance().text;
                return {token.line, LiteralNode{Value(std::move(joined))}};
            }
            case TokenKind::symbol: break;
            default: fail_unexpected("an expression");
        }
        if (accept("(")) {
            Expression inner = tuple(true, {}, true);
            expect(")");
            return inner;
        }
        if (accept("[")) {
            ListNode list{false, {}};
            while (!is_symbol("]")) {
                list.items.push_back(expression());
                if (!accept(",")) break;
            }
            expect("]");
            return {token.line, std::move(list)};
        }
        if (!accept("{")) fail_unexpected("an expression");
        DictNode dict;
        while (!is_symbol("}")) {
            dict.keys.push_back(expression());
            expect(":");
            dict.values.push_back(expression());
            if (!accept(",")) break;
        }
        expect("}");
        return {token.line, std::move(dict)};
    }

    Expression name(const Token& token) {
        if (token.text == "true" || token.text == "True") return {token.line, LiteralNode{Value(true)}};
        if (token.text == "false" || token.text == "False") return {token.line, LiteralNode{Value(false)}};
        if (token.text == "none" || token.text == "None") return {token.line, LiteralNode{Value(nullptr)}};
        loaded_names_.push_back(token.text);
        return {token.line, NameNode{token.text}};
    }

    /// Parses one postfix, and says whether there was one. Calls may stand behind filters and tests as well.
    bool postfix(std::vector<Postfix>& postfixes, bool with_filters, bool& after_filter) {
        if (is_symbol("(")) {
            Postfix call = begin_postfix(Postfix::Kind::call, peek().line);
            call.arguments = arguments();
            postfixes.push_back(std::move(call));
            return true;
        }
        if (!after_filter && is_symbol(".")) {
            postfixes.push_back(attribute());
            return true;
        }
        if (!after_filter && is_symbol("[")) {
            postfixes.push_back(subscript());
            return true;
        }
        if (with_filters && accept("|")) {
            after_filter = true;
            postfixes.push_back(filter());
            return true;
        }
        if (with_filters && is_name("is")) {
            after_filter = true;
            postfixes.push_back(test());
            return true;
        }
        return false;
    }

    static Postfix begin_postfix(Postfix::Kind kind, int line) {
        Postfix postfix;
        postfix.kind = kind;
        postfix.line = line;
        return postfix;
    }

    Postfix attribute() {
        const int line = advance().line;
        const Token& token = advance();
        if (token.kind == TokenKind::integer) {
            Postfix item = begin_postfix(Postfix::Kind::item, line);
            item.index = boxed({line, LiteralNode{Value(token.integer)}});
            return item;
        }
        if (token.kind != TokenKind::name) {
            fail_syntax(token.line, "a name or number is expected behind '.', but ", describe(token),
                        " was found");
        }
        Postfix postfix = begin_postfix(Postfix::Kind::attribute, line);
        postfix.name = token.text;
        return postfix;
    }

    Postfix subscript() {
        const int line = peek().line;
        expect("[");
        Postfix postfix = begin_postfix(Postfix::Kind::item, line);
        if (!is_symbol(":")) postfix.index = boxed(expression());
        if (accept(":")) {
            postfix.kind = Postfix::Kind::slice;
            if (!is_symbol(":") && !is_symbol("]")) postfix.stop = boxed(expression());
            if (accept(":") && !is_symbol("]")) postfix.step = boxed(expression());
        } else if (is_symbol(",")) {
            std::vector<Expression> items;
            items.push_back(std::move(*postfix.index));
            while (accept(",")) items.push_back(expression());
            postfix.index = boxed({line, ListNode{true, std::move(items)}});
        }
        expect("]");
        return postfix;
    }

    Postfix filter() {
        const Token& token = expect_kind(TokenKind::name, "the name of a filter");
        Postfix postfix = begin_postfix(Postfix::Kind::filter, token.line);
        postfix.name = token.text;
        if (is_symbol("(")) postfix.arguments = arguments();
        return postfix;
    }

    Postfix test() {
        Postfix postfix = begin_postfix(Postfix::Kind::test, advance().line);
        postfix.negated = accept_name("not");
        postfix.name = expect_kind(TokenKind::name, "the name of a test").text;
        if (is_symbol("(")) {
            postfix.arguments = arguments();
            return postfix;
        }
        const TokenKind kind = peek().kind;
        const bool is_literal =
            kind == TokenKind::string || kind == TokenKind::integer || kind == TokenKind::floating;
        const bool is_operand_name =
            kind == TokenKind::name && !is_name("else") && !is_name("or") && !is_name("and");
        if (!is_literal && !is_operand_name && !is_symbol("[") && !is_symbol("{")) return postfix;
        if (is_name("is")) fail_syntax(peek().line, "tests cannot be chained; put 'and' between them");
        const Level level = nest();
        const int line = peek().line;
        Expression argument = primary();
        std::vector<Postfix> postfixes;
        bool after_filter = false;
        while (this->postfix(postfixes, false, after_filter)) {
        }
        if (!postfixes.empty())
            argument = {line, PostfixNode{boxed(std::move(argument)), std::move(postfixes)}};
        postfix.arguments.positional.push_back(std::move(argument));
        return postfix;
    }

    ArgumentNodes arguments() {
        const int line = peek().line;
        expect("(");
        ArgumentNodes nodes;
        const auto require = [line](bool holds) {
            if (!holds) fail_syntax(line, "arguments come in the order: plain, named, *list, **dict");
        };
        while (!is_symbol(")")) {
            if (accept("*")) {
                require(!nodes.more_positional && !nodes.more_named);
                nodes.more_positional = boxed(expression());
            } else if (accept("**")) {
                require(!nodes.more_named);
                nodes.more_named = boxed(expression());
            } else if (peek().kind == TokenKind::name && is_symbol("=", 1)) {
                require(!nodes.more_named);
                std::string name = advance().text;
                advance();
                if (nodes.names.size() == max_parameters) {
                    fail_input("template line ", line, ": at most ", max_parameters,
                               " named arguments can be given");
                }
                if (std::find(nodes.names.begin(), nodes.names.end(), name) != nodes.names.end()) {
                    fail_syntax(line, "the argument ", in_quotes(name), " is given twice");
                }
                nodes.names.push_back(std::move(name));
                nodes.named.push_back(expression());
            } else {
                require(nodes.names.empty() && !nodes.more_positional && !nodes.more_named);
                nodes.positional.push_back(expression());
            }
            if (!accept(",")) break;
        }
        expect(")");
        return nodes;
    }

    std::vector<std::string> loaded_names_;
};

}  // namespace tokenizer::jinja::detail
}  // namespace zse::inline v1
