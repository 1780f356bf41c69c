// SPDX-License-Identifier: Apache-2.0
// Tokens to statements. Expressions are parsed by its base, ExpressionParser.
#pragma once

#include <zse/tokenizer/template/expression_parser.hpp>

#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace zse::inline v1 {
namespace tokenizer::jinja::detail {

class Parser : ExpressionParser {
public:
    /// The statements of a template. Errors carry the line: corrupt for syntax, unsupported for unknown tags.
    static Block parse(std::string_view source, Bytes limit) {
        Parser parser(Lexer::split(source, limit));
        Block block = parser.block({}, 1);
        return block;
    }

private:
    explicit Parser(std::vector<Token> tokens) : ExpressionParser(std::move(tokens)) {}

    using Names = std::initializer_list<std::string_view>;

    /// Statements up to a tag with one of the given names, which stays: the caller takes it.
    /// `begin_line` is where the tag stands that opened the block.
    Block block(Names ends, int begin_line) {
        const Level level = nest();
        Block statements;
        while (true) {
            const Token& token = peek();
            switch (token.kind) {
                case TokenKind::end:
                    if (ends.size() == 0) return statements;
                    fail_syntax(begin_line, "a block begins here, but no {% ", *(ends.end() - 1),
                                " %} ends it");
                case TokenKind::text:
                    statements.push_back({token.line, TextNode{token.text}});
                    advance();
                    break;
                case TokenKind::print_begin: statements.push_back(print()); break;
                default:
                    advance();  // {%
                    for (const std::string_view end : ends) {
                        if (is_name(end)) return statements;
                    }
                    statements.push_back(statement());
                    expect_tag_end();
            }
        }
    }

    Statement print() {
        const int line = advance().line;
        PrintNode node;
        node.expressions.push_back(tuple(true));
        if (peek().kind != TokenKind::print_end) fail_unexpected("'}}'");
        advance();
        return {line, std::move(node)};
    }

    void expect_tag_end() {
        if (peek().kind != TokenKind::tag_end) fail_unexpected("'%}'");
        advance();
    }

    /// The rest of an opening tag, the block behind it, and the name of the tag that ends it.
    Block body(Names ends) {
        accept(":");
        const int line = peek().line;
        expect_tag_end();
        return block(ends, line);
    }

    Statement statement() {
        const Token tag = expect_kind(TokenKind::name, "the name of a tag");
        const std::string& name = tag.text;
        if (name == "if") return {tag.line, if_statement()};
        if (name == "for") return {tag.line, for_statement()};
        if (name == "set") return {tag.line, set_statement()};
        if (name == "macro") return {tag.line, macro_statement()};
        if (name == "call") return {tag.line, call_statement()};
        if (name == "filter") return {tag.line, filter_statement()};
        if (name == "with") return {tag.line, with_statement()};
        if (name == "print") return {tag.line, print_statement()};
        if (name == "generation") {
            const LoopGuard outside(*this, 0);
            GenerationNode node{body({"endgeneration"})};
            advance();
            return {tag.line, std::move(node)};
        }
        if (name == "break" || name == "continue") {
            if (loops_ == 0) fail_syntax(tag.line, "a loop must be around {% ", name, " %}, but none is");
            if (name == "break") return {tag.line, BreakNode{}};
            return {tag.line, ContinueNode{}};
        }
        if (name.starts_with("end") || name == "else" || name == "elif") {
            fail_syntax(tag.line, "the tag ", in_quotes(name),
                        " ends or divides a block, but no block of its kind is open");
        }
        fail(ErrorCode::unsupported, "template line ", tag.line, ": the tag ", in_quotes(name),
             " is none of those that zse knows (if, for, set, macro, call, filter, with, print, raw, "
             "generation, "
             "break, continue)");
    }

    IfNode if_statement() {
        IfNode node;
        while (true) {
            Expression condition = tuple(false);
            Block then = body({"elif", "else", "endif"});
            node.branches.push_back({std::move(condition), std::move(then)});
            const std::string end = advance().text;
            if (end == "elif") continue;
            if (end == "else") {
                node.otherwise = body({"endif"});
                advance();
            }
            return node;
        }
    }

    ForNode for_statement() {
        Target to = target(false, "in");
        expect_name("in");
        Expression items = tuple(false, "recursive");
        std::optional<Expression> filter;
        if (accept_name("if")) filter = expression();
        if (is_name("recursive")) {
            fail(ErrorCode::unsupported, "template line ", peek().line,
                 ": recursive loops are left out; use a macro that calls itself");
        }
        ForNode node{std::move(to), std::move(items), std::move(filter), {}, {}};
        {
            const LoopGuard inside(*this, loops_ + 1);
            node.body = body({"endfor", "else"});
        }
        if (advance().text == "else") {
            node.otherwise = body({"endfor"});
            advance();
        }
        return node;
    }

    SetNode set_statement() {
        SetNode node{target(true, {}), {}, {}, {}};
        if (accept("=")) {
            node.value = tuple(true);
            return node;
        }
        if (is_symbol("|")) node.filter = filters();
        node.body = body({"endset"});
        advance();
        return node;
    }

    MacroStatement macro_statement() {
        std::string name = assignable_name();
        return {macro(std::move(name), signature(), "endmacro")};
    }

    CallNode call_statement() {
        std::vector<MacroNode::Parameter> parameters;
        if (is_symbol("(")) parameters = signature();
        const int line = peek().line;
        Expression call = expression();
        const auto* node = std::get_if<PostfixNode>(&call.node);
        if (node == nullptr || node->postfixes.back().kind != Postfix::Kind::call) {
            fail_syntax(line, "{% call %} needs a call of a macro, but another expression was found");
        }
        return {macro("caller", std::move(parameters), "endcall"), std::move(call)};
    }

    std::vector<MacroNode::Parameter> signature() {
        std::vector<MacroNode::Parameter> parameters;
        expect("(");
        while (!is_symbol(")")) {
            if (!parameters.empty()) expect(",");
            if (parameters.size() == max_parameters) {
                fail_input("template line ", peek().line, ": a macro has at most ", max_parameters,
                           " parameters");
            }
            MacroNode::Parameter parameter{assignable_name(), {}};
            if (parameter.name == "caller") {
                fail(ErrorCode::unsupported, "template line ", peek().line,
                     ": a macro's parameter named caller is left out; rename it");
            }
            if (accept("=")) {
                parameter.fallback = expression();
            } else if (!parameters.empty() && parameters.back().fallback) {
                fail_syntax(peek().line, "a parameter without a default follows one with a default");
            }
            parameters.push_back(std::move(parameter));
        }
        expect(")");
        return parameters;
    }

    std::shared_ptr<const MacroNode> macro(std::string name, std::vector<MacroNode::Parameter> parameters,
                                           std::string_view end) {
        auto node = std::make_shared<MacroNode>();
        node->name = std::move(name);
        node->parameters = std::move(parameters);
        const std::size_t names_before = loaded_names().size();
        {
            const LoopGuard outside(*this, 0);
            node->body = body({end});
        }
        advance();
        for (std::size_t i = names_before; i < loaded_names().size(); ++i) {
            node->uses_caller |= loaded_names()[i] == "caller";
            node->uses_varargs |= loaded_names()[i] == "varargs";
            node->uses_kwargs |= loaded_names()[i] == "kwargs";
        }
        return node;
    }

    FilterNode filter_statement() {
        Expression chain = filters_after_name();
        FilterNode node{std::move(chain), body({"endfilter"})};
        advance();
        return node;
    }

    WithNode with_statement() {
        WithNode node;
        while (peek().kind != TokenKind::tag_end) {
            if (!node.bindings.empty()) expect(",");
            Target to = target(false, {});
            expect("=");
            node.bindings.emplace_back(std::move(to), expression());
        }
        node.body = body({"endwith"});
        advance();
        return node;
    }

    PrintNode print_statement() {
        PrintNode node;
        while (peek().kind != TokenKind::tag_end) {
            if (!node.expressions.empty()) expect(",");
            node.expressions.push_back(expression());
        }
        return node;
    }

    /// Sets how many loops are around what is parsed, until it goes.
    class LoopGuard {
    public:
        LoopGuard(Parser& parser, int loops) : parser_(parser), before_(parser.loops_) {
            parser.loops_ = loops;
        }
        LoopGuard(const LoopGuard&) = delete;
        LoopGuard& operator=(const LoopGuard&) = delete;
        ~LoopGuard() { parser_.loops_ = before_; }

    private:
        Parser& parser_;
        int before_;
    };

    int loops_ = 0;
};

}  // namespace tokenizer::jinja::detail
}  // namespace zse::inline v1
