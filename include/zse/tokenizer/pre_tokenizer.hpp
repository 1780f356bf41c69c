// SPDX-License-Identifier: Apache-2.0
// Splits text into words with the expressions of a tokenizer family, by PCRE2 under fixed limits.
#pragma once

#include <zse/core/error.hpp>
#include <zse/tokenizer/pre_tokenizer_table.hpp>

// The functions of the 8-bit library are called by their full names, so that a program may use another width.
#ifndef PCRE2_CODE_UNIT_WIDTH
#define PCRE2_CODE_UNIT_WIDTH 8
#endif
#include <pcre2.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace zse::inline v1 {
namespace tokenizer {
namespace detail {

struct PcreFree {
    void operator()(pcre2_code_8* code) const noexcept { pcre2_code_free_8(code); }
    void operator()(pcre2_match_data_8* data) const noexcept { pcre2_match_data_free_8(data); }
    void operator()(pcre2_match_context_8* context) const noexcept { pcre2_match_context_free_8(context); }
    void operator()(pcre2_jit_stack_8* stack) const noexcept { pcre2_jit_stack_free_8(stack); }
};
template <class T>
using PcrePointer = std::unique_ptr<T, PcreFree>;

/// The Unicode property White_Space, as members of a character class. PCRE2's own \s adds U+180E, which
/// left the property in Unicode 6.3, and would split where the tokenizers' authors did not.
inline constexpr std::string_view white_space =
    R"(\t-\r \x{85}\x{A0}\x{1680}\x{2000}-\x{200A}\x{2028}\x{2029}\x{202F}\x{205F}\x{3000})";

/// Replaces \s and \S; \S must not stand inside a class.
inline std::string with_white_space(std::string_view expression) {
    std::string replaced;
    bool in_class = false;
    for (std::size_t i = 0; i < expression.size(); ++i) {
        const char c = expression[i];
        if (c == '\\' && i + 1 < expression.size()) {
            const char escaped = expression[++i];
            if (escaped == 's' && in_class) {
                replaced += white_space;
            } else if (escaped == 's' || escaped == 'S') {
                replaced += text(escaped == 's' ? "[" : "[^", white_space, "]");
            } else {
                (replaced += c) += escaped;
            }
            continue;
        }
        if (c == '[') in_class = true;
        if (c == ']') in_class = false;
        replaced += c;
    }
    return replaced;
}

}  // namespace detail

/// What one thread needs while it splits: match data, limits, a stack for compiled expressions, buffers.
class SplitWorkspace {
public:
    SplitWorkspace()
        : data_(pcre2_match_data_create_8(1, nullptr)),
          context_(pcre2_match_context_create_8(nullptr)),
          stack_(pcre2_jit_stack_create_8(32 * 1024, 1024 * 1024, nullptr)) {
        if (!data_ || !context_) {
            throw Error(ErrorCode::out_of_memory,
                        "expected a few KiB for splitting text, found no memory; free some and try again");
        }
        // Without a stack of its own, compiled code falls back to 32 KiB of the machine's stack.
        if (stack_) pcre2_jit_stack_assign_8(context_.get(), nullptr, stack_.get());
        pcre2_set_heap_limit_8(context_.get(), 64 * 1024);  // KiB; no expression here nests on the heap
    }

private:
    friend class PreTokenizer;
    detail::PcrePointer<pcre2_match_data_8> data_;
    detail::PcrePointer<pcre2_match_context_8> context_;
    detail::PcrePointer<pcre2_jit_stack_8> stack_;
    std::vector<std::uint32_t> former_;
};

/// Splits text as one family does. Immutable: threads may share it, each with its own workspace.
class PreTokenizer {
public:
    /// Texts are cut into offsets of 32 bits; symbols of words are counted in 31.
    static constexpr std::size_t longest_text = std::size_t{1} << 30;

    /// By the name in `tokenizer.ggml.pre`; an empty one means "default". Throws Error(unsupported) for a
    /// name that is not in the table.
    explicit PreTokenizer(std::string_view name) : family_(&find_family(name)) {
        for (const std::string_view expression : family_->expressions) {
            if (!expression.empty()) codes_.push_back(compile(detail::with_white_space(expression)));
        }
    }

    [[nodiscard]] const PreTokenizerFamily& family() const noexcept { return *family_; }

    /// Puts the end of each piece into `ends`; the pieces cover the text. `valid` must be UTF-8. Throws
    /// Error(invalid_input) for a text over longest_text, or where an expression needs more steps than
    /// its limit, which grows with the text.
    void split(std::string_view valid, std::vector<std::uint32_t>& ends, SplitWorkspace& workspace) const {
        if (valid.size() > longest_text) {
            throw Error(ErrorCode::invalid_input, text("expected a text of at most ", longest_text,
                                                       " bytes, found ", valid.size(), "; send it in parts"));
        }
        // Linear work for every expression in the table, with room for several tries of each alternative.
        const std::size_t steps = 1'000'000 + 16 * valid.size();
        pcre2_set_match_limit_8(workspace.context_.get(),
                                static_cast<std::uint32_t>(std::min<std::size_t>(steps, UINT32_MAX)));
        ends.clear();
        if (valid.empty()) return;
        ends.push_back(static_cast<std::uint32_t>(valid.size()));
        for (const auto& code : codes_) {
            workspace.former_.swap(ends);
            ends.clear();
            std::size_t begin = 0;
            for (const std::uint32_t end : workspace.former_) {
                split_piece(*code, valid, begin, end, ends, workspace);
                begin = end;
            }
        }
    }

private:
    using Code = detail::PcrePointer<pcre2_code_8>;

    static const PreTokenizerFamily& find_family(std::string_view name) {
        std::string known;
        for (const NamedPreTokenizer& entry : named_pre_tokenizers) {
            if (entry.name == (name.empty() ? "default" : name)) return *entry.family;
            known += known.empty() ? "" : ", ";
            known += entry.name;
        }
        std::string shown;
        for (const char c : name.substr(0, 40)) shown += c >= ' ' && c <= '~' ? c : '?';
        throw Error(ErrorCode::unsupported,
                    text("expected a known pre-tokenizer, found '", shown, "'; known are ", known));
    }

    static Code compile(const std::string& expression) {
        int error = 0;
        PCRE2_SIZE at = 0;
        Code code(pcre2_compile_8(reinterpret_cast<PCRE2_SPTR8>(expression.data()), expression.size(),
                                  PCRE2_UTF | PCRE2_UCP | PCRE2_DOLLAR_ENDONLY, &error, &at, nullptr));
        if (!code) {
            throw Error(ErrorCode::internal,
                        text("expected PCRE2 to take an expression of the table, found its error ", error,
                             " at ", at, "; report this"));
        }
        // Where the system forbids compiled code this fails and matching is interpreted: slower, the same.
        pcre2_jit_compile_8(code.get(), PCRE2_JIT_COMPLETE);
        return code;
    }

    /// Matches and the gaps between them, each a piece. The piece is a subject of its own: a lookahead at
    /// its end sees the end of the text, as the sequence of expressions is defined.
    static void split_piece(const pcre2_code_8& code, std::string_view valid, std::size_t begin,
                            std::size_t end, std::vector<std::uint32_t>& ends, SplitWorkspace& workspace) {
        const auto subject = reinterpret_cast<PCRE2_SPTR8>(valid.data() + begin);
        const std::size_t length = end - begin;
        std::size_t done = 0;
        while (done < length) {
            const int found = pcre2_match_8(&code, subject, length, done, PCRE2_NO_UTF_CHECK | PCRE2_NOTEMPTY,
                                            workspace.data_.get(), workspace.context_.get());
            if (found == PCRE2_ERROR_NOMATCH) break;
            if (found < 0) {
                throw Error(
                    ErrorCode::invalid_input,
                    text("expected a text that splits into words within fixed limits, found PCRE2 error ",
                         found, " at byte ", begin + done, "; shorten the text around it"));
            }
            const PCRE2_SIZE* match = pcre2_get_ovector_pointer_8(workspace.data_.get());
            if (match[0] > done) ends.push_back(static_cast<std::uint32_t>(begin + match[0]));
            ends.push_back(static_cast<std::uint32_t>(begin + match[1]));
            done = match[1];
        }
        if (done < length) ends.push_back(static_cast<std::uint32_t>(end));
    }

    const PreTokenizerFamily* family_;
    std::vector<Code> codes_;
};

}  // namespace tokenizer
}  // namespace zse::inline v1
