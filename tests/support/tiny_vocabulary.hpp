// SPDX-License-Identifier: Apache-2.0
// A byte-level vocabulary small enough to check by hand: 256 bytes, some merges, special tokens.
#pragma once

#include <zse/tokenizer/byte_level.hpp>
#include <zse/tokenizer/vocabulary_data.hpp>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <utility>

namespace zse::test {

/// Token b is byte b; 256 and up are the merges' results in order; then the special tokens.
class TinyVocabulary {
public:
    explicit TinyVocabulary(std::string_view pre = "gpt-2") {
        data_.pre = pre;
        for (unsigned byte = 0; byte < 256; ++byte) {
            const char value = static_cast<char>(byte);
            add_token(spelled({&value, 1}), 1);
        }
        for (const auto& [left, right] :
             {std::pair{"h", "e"}, {"l", "l"},   {"he", "ll"}, {"hell", "o"},    {" ", "w"},
              {"o", "r"},          {" w", "or"}, {"l", "d"},   {" wor", "ld"},   {"a", "b"},
              {"b", "c"},          {"a", "a"},   {"aa", "aa"}, {"1", "2"},       {" ", " "},
              {"  ", "  "},        {"\n", "\n"}, {"'", "s"},   {"\xC3", "\xA9"}, {"\xF0", "\x9F"},
              {"\xF0\x9F", "\x9A"}}) {
            add_merge(left, right);
        }
        end_of_text = add_token("<|endoftext|>", 3);
        start = add_token("<|im_start|>", 3);
        end = add_token("<|im_end|>", 3);
        tool = add_token("<tool>", 4);
        long_tool = add_token("<tool><tool>x", 4);
        unknown = add_token("<unk>", 2);
        unused = add_token("<unused0>", 5);
        plain_end = add_token("</s>", 1);
        data_.bos = start;
        data_.eos = end;
        data_.unknown = unknown;
    }
    TinyVocabulary(const TinyVocabulary&) = delete;
    TinyVocabulary& operator=(const TinyVocabulary&) = delete;

    /// Free to be changed by a test; its views point into this object.
    [[nodiscard]] tokenizer::VocabularyData& data() noexcept { return data_; }

    /// Appends a token spelled as in a file and returns its id.
    std::uint32_t add_token(std::string text, std::int64_t type) {
        data_.tokens.push_back(strings_.emplace_back(std::move(text)));
        data_.token_types.push_back(type);
        return static_cast<std::uint32_t>(data_.tokens.size() - 1);
    }
    /// Appends a merge of two byte strings, and its result as a token where it is new.
    void add_merge(std::string_view left, std::string_view right) {
        const std::string first = spelled(left);
        const std::string second = spelled(right);
        data_.merges.push_back(strings_.emplace_back(first + " " + second));
        for (const std::string_view token : data_.tokens) {
            if (token == first + second) return;
        }
        add_token(first + second, 1);
    }
    [[nodiscard]] static std::string spelled(std::string_view bytes) {
        std::string text;
        tokenizer::append_byte_level(text, bytes);
        return text;
    }

    std::uint32_t end_of_text, start, end, tool, long_tool, unknown, unused, plain_end;

private:
    std::deque<std::string> strings_;  // never moves its elements
    tokenizer::VocabularyData data_;
};

}  // namespace zse::test
