// SPDX-License-Identifier: Apache-2.0
// The place in the tokens where a parser stands, how deep it is nested, and what it says of unexpected tokens.
#pragma once

#include <zse/tokenizer/template/lexer.hpp>

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace zse::inline v1 {
namespace tokenizer::jinja::detail {

class TokenCursor {
protected:
    explicit TokenCursor(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

    /// Counts nesting while it lives.
    class Level {
    public:
        explicit Level(std::size_t& depth) : depth_(depth) { ++depth_; }
        Level(const Level&) = delete;
        Level& operator=(const Level&) = delete;
        ~Level() { --depth_; }

    private:
        std::size_t& depth_;
    };

    [[nodiscard]] Level nest() {
        if (depth_ >= max_source_depth) {
            fail_input("template line ", peek().line, ": statements and expressions nest at most ",
                       max_source_depth, " levels, but here they go deeper");
        }
        return Level(depth_);
    }

    [[nodiscard]] const Token& peek(std::size_t ahead = 0) const {
        return tokens_[std::min(next_ + ahead, tokens_.size() - 1)];
    }
    const Token& advance() {
        const Token& token = peek();
        if (next_ + 1 < tokens_.size()) ++next_;
        return token;
    }
    [[nodiscard]] bool is_symbol(std::string_view symbol, std::size_t ahead = 0) const {
        return peek(ahead).kind == TokenKind::symbol && peek(ahead).text == symbol;
    }
    [[nodiscard]] bool is_name(std::string_view name, std::size_t ahead = 0) const {
        return peek(ahead).kind == TokenKind::name && peek(ahead).text == name;
    }
    bool accept(std::string_view symbol) {
        const bool found = is_symbol(symbol);
        if (found) advance();
        return found;
    }
    bool accept_name(std::string_view name) {
        const bool found = is_name(name);
        if (found) advance();
        return found;
    }
    void expect(std::string_view symbol) {
        if (!accept(symbol)) fail_unexpected(text("'", symbol, "'"));
    }
    void expect_name(std::string_view name) {
        if (!accept_name(name)) fail_unexpected(text("'", name, "'"));
    }
    const Token& expect_kind(TokenKind kind, std::string_view what) {
        if (peek().kind != kind) fail_unexpected(what);
        return advance();
    }
    [[noreturn]] void fail_unexpected(std::string_view wanted) const {
        fail_syntax(peek().line, wanted, " is expected here, but ", describe(peek()), " was found");
    }

    static std::string describe(const Token& token) {
        switch (token.kind) {
            case TokenKind::end: return "the end of the template";
            case TokenKind::text: return "text";
            case TokenKind::print_begin: return "'{{'";
            case TokenKind::print_end: return "'}}'";
            case TokenKind::tag_begin: return "'{%'";
            case TokenKind::tag_end: return "'%}'";
            case TokenKind::string: return "a string";
            default: return in_quotes(token.text);
        }
    }

private:
    std::vector<Token> tokens_;
    std::size_t next_ = 0;
    std::size_t depth_ = 0;
};

}  // namespace tokenizer::jinja::detail
}  // namespace zse::inline v1
