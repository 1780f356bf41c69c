// SPDX-License-Identifier: Apache-2.0
// Source to tokens, with Jinja's whitespace rules under trim_blocks and lstrip_blocks, as chat templates
// expect: a line end behind a tag goes, blanks before a tag at the start of a line go, "-" strips, "+" keeps.
#pragma once

#include <zse/tokenizer/template/budget.hpp>
#include <zse/tokenizer/template/unicode.hpp>

#include <charconv>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace zse::inline v1 {
namespace tokenizer::jinja::detail {

enum class TokenKind {
    text,         ///< outside of tags
    print_begin,  ///< {{
    print_end,    ///< }}
    tag_begin,    ///< {%
    tag_end,      ///< %}
    name,
    string,
    integer,
    floating,
    symbol,  ///< an operator or a bracket
    end,
};

struct Token {
    TokenKind kind;
    std::string text;  ///< of a string: without quotes, escapes resolved
    int line;
    std::int64_t integer = 0;
    double floating = 0;
};

/// A mistake of the source.
template <class... Parts>
[[noreturn]] void fail_syntax(int line, const Parts&... parts) {
    fail(ErrorCode::corrupt, "template line ", line, ": ", parts...);
}

class Lexer {
public:
    /// The source, at most `limit` bytes of valid UTF-8.
    static std::vector<Token> split(std::string_view source, Bytes limit) {
        if (source.size() > limit) {
            fail_input("a template has at most ", limit, " bytes, but this one has ", source.size());
        }
        const std::size_t invalid = find_invalid_utf8(source);
        if (invalid != std::string_view::npos) {
            fail(ErrorCode::corrupt, "a template is UTF-8 text, but byte ", invalid, " of this one is not");
        }
        Lexer lexer(with_plain_line_ends(source));
        lexer.run();
        return std::move(lexer.tokens_);
    }

private:
    explicit Lexer(std::string source) : source_(std::move(source)), rest_(source_) {}

    /// Line ends become "\n", and one at the very end is dropped.
    static std::string with_plain_line_ends(std::string_view source) {
        std::string plain;
        plain.reserve(source.size());
        for (std::size_t i = 0; i < source.size(); ++i) {
            const bool carriage = source[i] == '\r';
            plain += carriage ? '\n' : source[i];
            if (carriage && i + 1 < source.size() && source[i + 1] == '\n') ++i;
        }
        if (!plain.empty() && plain.back() == '\n') plain.pop_back();
        return plain;
    }

    void run() {
        while (!rest_.empty()) {
            const std::size_t begin = find_opening();
            if (begin == std::string_view::npos) {
                add(TokenKind::text, std::string(rest_));
                consume(rest_.size());
                break;
            }
            const char type = rest_[begin + 1];
            const char sign = sign_at(begin + 2);
            const std::size_t raw_size = type == '%' ? raw_opening(rest_.substr(begin)) : 0;
            add_text(rest_.substr(0, begin), sign, type == '{');
            consume(begin);
            if (raw_size > 0) {
                raw(raw_size);
            } else if (type == '#') {
                comment();
            } else {
                consume(sign == '\0' ? 2 : 3);
                add(type == '{' ? TokenKind::print_begin : TokenKind::tag_begin, {}, line_);
                inside_tag(type == '{');
            }
        }
        add(TokenKind::end, {});
    }

    [[nodiscard]] std::size_t find_opening() const {
        for (std::size_t i = rest_.find('{'); i != std::string_view::npos; i = rest_.find('{', i + 1)) {
            if (i + 1 < rest_.size() && (rest_[i + 1] == '{' || rest_[i + 1] == '%' || rest_[i + 1] == '#'))
                return i;
        }
        return std::string_view::npos;
    }

    [[nodiscard]] char sign_at(std::size_t i) const {
        return i < rest_.size() && (rest_[i] == '-' || rest_[i] == '+') ? rest_[i] : '\0';
    }

    /// Bytes of "{% raw %}" at the start of `tag`, 0 where something else stands there.
    static std::size_t raw_opening(std::string_view tag) {
        const std::string_view all = tag;
        tag.remove_prefix(2);
        if (!tag.empty() && (tag[0] == '-' || tag[0] == '+')) tag.remove_prefix(1);
        tag = strip_left(tag);
        if (!tag.starts_with("raw")) return 0;
        tag = strip_left(tag.substr(3));
        if (tag.starts_with("%}")) return all.size() - tag.size() + 2;
        if (!tag.starts_with("-%}")) return 0;
        tag.remove_prefix(3);
        return all.size() - strip_left(tag).size();
    }

    /// Bytes of "{% endraw %}" at the start of `tag`, with the whitespace that it takes along; 0: not there.
    static std::size_t raw_closing(std::string_view tag) {
        const std::string_view all = tag;
        tag.remove_prefix(2);
        if (!tag.empty() && (tag[0] == '-' || tag[0] == '+')) tag.remove_prefix(1);
        tag = strip_left(tag);
        if (!tag.starts_with("endraw")) return 0;
        tag = strip_left(tag.substr(6));
        const std::size_t end = closing(tag, "%}", true);
        return end == 0 ? 0 : all.size() - tag.size() + end;
    }

    /// Bytes of a closing mark at the start of `tag`, with the whitespace that it takes along; 0: not there.
    static std::size_t closing(std::string_view tag, std::string_view mark, bool is_block) {
        if (tag.starts_with(mark)) {
            const bool trims = is_block && tag.size() > mark.size() && tag[mark.size()] == '\n';
            return mark.size() + (trims ? 1 : 0);
        }
        if (tag.empty() || tag.substr(1, mark.size()) != mark) return 0;
        const std::size_t size = 1 + mark.size();
        if (tag[0] == '-') return size + leading_space(tag.substr(size));
        return tag[0] == '+' && is_block ? size : 0;
    }

    void add_text(std::string_view text, char sign, bool before_print) {
        if (sign == '-') {
            text = strip_right(text);
        } else if (sign == '\0' && !before_print) {
            const std::size_t line_begin = text.rfind('\n') + 1;  // npos + 1 is 0
            const std::string_view last_line = text.substr(line_begin);
            if ((line_begin > 0 || at_line_start_) && leading_space(last_line) == last_line.size()) {
                text = text.substr(0, line_begin);
            }
        }
        if (!text.empty()) add(TokenKind::text, std::string(text));
    }

    void comment() {
        const std::size_t begin = sign_at(2) == '\0' ? 2 : 3;
        const std::size_t end = rest_.find("#}", begin);
        if (end == std::string_view::npos) fail_syntax(line_, "a comment begins here, but no '#}' ends it");
        const bool is_signed = end > begin && sign_at(end - 1) != '\0';
        const std::size_t mark = is_signed ? end - 1 : end;
        consume(mark + closing(rest_.substr(mark), "#}", true));
    }

    void raw(std::size_t opening) {
        const int line = line_;
        consume(opening);
        for (std::size_t i = rest_.find("{%"); i != std::string_view::npos; i = rest_.find("{%", i + 1)) {
            const std::size_t size = raw_closing(rest_.substr(i));
            if (size == 0) continue;
            add_text(rest_.substr(0, i), sign_at(i + 2), false);
            consume(i + size);
            return;
        }
        fail_syntax(line, "a raw block begins here, but no {% endraw %} ends it");
    }

    void inside_tag(bool is_print) {
        const int line = line_;
        while (true) {
            const std::size_t space = leading_space(rest_);
            // A closing mark may begin with the sign that an operator also begins with; brackets decide.
            if (space == 0 && brackets_.empty()) {
                const std::size_t size = closing(rest_, is_print ? "}}" : "%}", !is_print);
                if (size > 0) {
                    add(is_print ? TokenKind::print_end : TokenKind::tag_end, {});
                    consume(size);
                    return;
                }
            }
            consume(space);
            if (rest_.empty()) {
                fail_syntax(line, "a tag begins here, but no '", is_print ? "}}" : "%}", "' ends it");
            }
            if (space == 0) token();
        }
    }

    void token() {
        const char c = rest_[0];
        if (is_digit(c)) return number();
        if (is_name_start(c)) {
            std::size_t size = 1;
            while (size < rest_.size() && (is_name_start(rest_[size]) || is_digit(rest_[size]))) ++size;
            add(TokenKind::name, std::string(rest_.substr(0, size)));
            consume(size);
            return;
        }
        if (c == '\'' || c == '"') return string();
        for (const std::string_view symbol : {"**", "//", "==", "!=", ">=", "<="}) {
            if (rest_.starts_with(symbol)) return add_symbol(symbol);
        }
        if (std::string_view("+-*/%~[](){}><=.:|,;").find(c) == std::string_view::npos) {
            fail_syntax(line_, "an expression is expected, but the character ",
                        in_quotes(rest_.substr(0, character_size(rest_))), " cannot be part of one");
        }
        add_symbol(rest_.substr(0, 1));
    }

    void add_symbol(std::string_view symbol) {
        const char c = symbol[0];
        if (c == '(' || c == '[' || c == '{') {
            brackets_ += c == '(' ? ')' : c == '[' ? ']' : '}';
        } else if (c == ')' || c == ']' || c == '}') {
            if (brackets_.empty() || brackets_.back() != c) {
                fail_syntax(line_, "a bracket '", symbol, "' closes here, but none like it is open");
            }
            brackets_.pop_back();
        }
        add(TokenKind::symbol, std::string(symbol));
        consume(symbol.size());
    }

    /// Bytes of a run of digits with single "_" between them, at `begin`.
    [[nodiscard]] std::size_t digits(std::size_t begin, bool (*accepts)(char)) const {
        std::size_t i = begin;
        while (i < rest_.size()) {
            if (accepts(rest_[i])) {
                ++i;
            } else if (rest_[i] == '_' && i > begin && i + 1 < rest_.size() && accepts(rest_[i + 1])) {
                i += 2;
            } else {
                break;
            }
        }
        return i - begin;
    }

    void number() {
        const bool after_dot = !tokens_.empty() && tokens_.back().kind == TokenKind::symbol &&
                               tokens_.back().text == "." && !space_before_;
        const std::size_t whole = digits(0, is_digit);
        std::size_t size = whole;
        bool is_floating = false;
        if (!after_dot) {
            if (size + 1 < rest_.size() && rest_[size] == '.' && is_digit(rest_[size + 1])) {
                size += 1 + digits(size + 1, is_digit);
                is_floating = true;
            }
            const std::size_t sign =
                size + 1 < rest_.size() && (rest_[size + 1] == '+' || rest_[size + 1] == '-');
            if (size < rest_.size() && (rest_[size] | 0x20) == 'e' && digits(size + 1 + sign, is_digit) > 0) {
                size += 1 + sign + digits(size + 1 + sign, is_digit);
                is_floating = true;
            }
        }
        if (is_floating) return add_floating(size);
        add_integer(whole);
    }

    void add_floating(std::size_t size) {
        const std::string plain = without_underscores(rest_.substr(0, size));
        double value = 0;
        const auto result = std::from_chars(plain.data(), plain.data() + plain.size(), value);
        if (result.ec != std::errc{})
            fail_syntax(line_, "the number ", in_quotes(plain), " is beyond what a float holds");
        add(TokenKind::floating, plain);
        tokens_.back().floating = value;
        consume(size);
    }

    void add_integer(std::size_t decimal_size) {
        std::size_t size = decimal_size;
        int base = 10;
        if (rest_[0] == '0' && rest_.size() > 2) {
            const char type = static_cast<char>(rest_[1] | 0x20);
            const std::size_t gap = rest_[2] == '_' ? 1 : 0;
            const auto prefixed = [&](int wanted, bool (*accepts)(char)) {
                const std::size_t count = digits(2 + gap, accepts);
                if (count == 0) return;
                base = wanted;
                size = 2 + gap + count;
            };
            if (type == 'x')
                prefixed(16, [](char c) { return is_digit(c) || ((c | 0x20) >= 'a' && (c | 0x20) <= 'f'); });
            if (type == 'o') prefixed(8, [](char c) { return c >= '0' && c <= '7'; });
            if (type == 'b') prefixed(2, [](char c) { return c == '0' || c == '1'; });
        }
        const std::string plain =
            without_underscores(rest_.substr(base == 10 ? 0 : 2, base == 10 ? size : size - 2));
        if (base == 10 && plain.size() > 1 && plain[0] == '0' &&
            plain.find_first_not_of('0') != std::string::npos) {
            fail_syntax(line_, "a number does not begin with 0, but ", in_quotes(plain), " does");
        }
        std::int64_t value = 0;
        const auto result = std::from_chars(plain.data(), plain.data() + plain.size(), value, base);
        if (result.ec != std::errc{}) {
            fail(ErrorCode::unsupported, "template line ", line_, ": integers have 64 bits, but ",
                 in_quotes(plain), " has more");
        }
        add(TokenKind::integer, plain);
        tokens_.back().integer = value;
        consume(size);
    }

    static std::string without_underscores(std::string_view digits) {
        std::string plain;
        for (const char c : digits) {
            if (c != '_') plain += c;
        }
        return plain;
    }

    void string() {
        const char quote = rest_[0];
        std::string value;
        std::size_t i = 1;
        while (i < rest_.size() && rest_[i] != quote) {
            if (rest_[i] == '\\') {
                i += escape(rest_.substr(i), value);
            } else {
                value += rest_[i++];
            }
        }
        if (i >= rest_.size())
            fail_syntax(line_, "a string begins here, but no ", std::string(1, quote), " ends it");
        add(TokenKind::string, std::move(value));
        consume(i + 1);
    }

    /// Appends what an escape stands for, and returns its bytes. Unknown ones stand for themselves, as in
    /// Python.
    std::size_t escape(std::string_view text, std::string& value) const {
        if (text.size() < 2) fail_syntax(line_, "a string ends in the middle of an escape");
        const char c = text[1];
        constexpr std::string_view letters = "abfnrtv\\'\"";
        constexpr std::string_view meanings = "\a\b\f\n\r\t\v\\'\"";
        if (const std::size_t place = letters.find(c); place != std::string_view::npos) {
            value += meanings[place];
            return 2;
        }
        if (c == '\n') return 2;
        if (c >= '0' && c <= '7') {
            std::size_t size = 1;
            std::uint32_t octal = 0;
            while (size < text.size() && size < 4 && text[size] >= '0' && text[size] <= '7') {
                octal = octal * 8 + static_cast<std::uint32_t>(text[size++] - '0');
            }
            append_code_point(value, octal);
            return size;
        }
        if (c == 'x' || c == 'u' || c == 'U') {
            const std::size_t count = c == 'x' ? 2 : c == 'u' ? 4 : 8;
            const std::string_view hex = text.substr(2, count);
            std::uint32_t code = 0;
            const auto result = std::from_chars(hex.data(), hex.data() + hex.size(), code, 16);
            const bool is_whole =
                hex.size() == count && result.ec == std::errc{} && result.ptr == hex.data() + count;
            if (!is_whole || code > 0x10FFFF || (code >= 0xD800 && code < 0xE000)) {
                fail_syntax(line_, "an escape \\", std::string(1, c), " needs ", count,
                            " hexadecimal digits of a character that exists");
            }
            append_code_point(value, code);
            return 2 + count;
        }
        if (c == 'N' || static_cast<unsigned char>(c) >= 0x80) {
            fail(
                ErrorCode::unsupported, "template line ", line_,
                ": escapes are \\n, \\t, \\\\, \\x, \\u and their like, but another one was found; write the "
                "character itself");
        }
        value += text.substr(0, 2);
        return 2;
    }

    static bool is_digit(char c) noexcept { return c >= '0' && c <= '9'; }
    static bool is_name_start(char c) noexcept {
        return c == '_' || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    }

    void add(TokenKind kind, std::string text) { add(kind, std::move(text), line_); }
    void add(TokenKind kind, std::string text, int line) {
        tokens_.push_back({kind, std::move(text), line, 0, 0});
        space_before_ = false;
    }

    void consume(std::size_t size) {
        if (size == 0) return;
        const std::string_view eaten = rest_.substr(0, size);
        for (const char c : eaten) line_ += c == '\n';
        at_line_start_ = eaten.back() == '\n';
        space_before_ = leading_space(eaten) > 0;
        rest_.remove_prefix(size);
    }

    std::string source_;
    std::string_view rest_;
    std::vector<Token> tokens_;
    std::string brackets_;  ///< the closing brackets that are still to come, innermost last
    int line_ = 1;
    bool at_line_start_ = true;
    bool space_before_ = false;
};

}  // namespace tokenizer::jinja::detail
}  // namespace zse::inline v1
