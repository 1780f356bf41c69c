// SPDX-License-Identifier: Apache-2.0
// Turns tokens to text one by one, and lets a character out only when all its bytes are there.
#pragma once

#include <zse/tokenizer/utf8.hpp>
#include <zse/tokenizer/vocabulary.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace zse::inline v1 {
namespace tokenizer {

/// Holds back the bytes of an unfinished character (three at most); each maximal ill-formed sequence becomes
/// one U+FFFD. The joined pieces equal Tokenizer::decode of all ids, however they were pushed. One
/// thread at a time; the vocabulary must outlive it.
class StreamDecoder {
public:
    /// With `show_special`, control and unknown tokens appear as the file spells them.
    explicit StreamDecoder(const Vocabulary& vocabulary, bool show_special = false)
        : vocabulary_(&vocabulary), show_special_(show_special) {
        // Each byte can become one replacement; a file with monstrous tokens pays when it uses them.
        output_.reserve(std::min<std::size_t>(vocabulary.longest_token() + pending_.size(), 1024) *
                        replacement_character.size());
    }

    /// The text that the token completes, valid until the next call. Throws Error(invalid_input) for an id
    /// out of range, and then keeps its state.
    std::string_view push(std::int32_t id) {
        const bool skip = !show_special_ && vocabulary_->hidden(id);
        std::string_view bytes = vocabulary_->bytes(id);
        output_.clear();
        if (!skip) append(bytes);
        return output_;
    }

    /// U+FFFD for an unfinished character, else nothing; the decoder then starts anew.
    std::string_view flush() {
        output_.clear();
        if (pending_size_ > 0) output_ += replacement_character;
        pending_size_ = 0;
        return output_;
    }

private:
    void append(std::string_view bytes) {
        // Finish the character that earlier tokens began, byte by byte.
        while (pending_size_ > 0 && !bytes.empty()) {
            pending_[pending_size_] = bytes.front();
            const std::string_view begun(pending_.data(), pending_size_ + 1);
            const Utf8Step step = utf8_step(begun);
            if (step.kind == Utf8Step::Kind::broken) {
                // The new byte does not continue it: it is looked at again, as the start of something.
                output_ += replacement_character;
                pending_size_ = 0;
                break;
            }
            bytes.remove_prefix(1);
            ++pending_size_;
            if (step.kind == Utf8Step::Kind::whole) {
                output_ += begun;
                pending_size_ = 0;
            }
        }
        std::size_t valid = 0;  // bytes at the front that go out unchanged
        while (valid < bytes.size()) {
            const Utf8Step step = utf8_step(bytes.substr(valid));
            if (step.kind == Utf8Step::Kind::whole) {
                valid += step.length;
                continue;
            }
            output_ += bytes.substr(0, valid);
            bytes.remove_prefix(valid);
            valid = 0;
            if (step.kind == Utf8Step::Kind::partial) {
                std::copy(bytes.begin(), bytes.end(), pending_.begin());
                pending_size_ = bytes.size();
                return;
            }
            output_ += replacement_character;
            bytes.remove_prefix(step.length);
        }
        output_ += bytes;
    }

    const Vocabulary* vocabulary_;
    bool show_special_;
    std::array<char, 4> pending_{};
    std::size_t pending_size_ = 0;
    std::string output_;
};

}  // namespace tokenizer
}  // namespace zse::inline v1
