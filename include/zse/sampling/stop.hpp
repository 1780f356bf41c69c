// SPDX-License-Identifier: Apache-2.0
// Stop strings in a stream of text: passes on what cannot be part of one, holds back what may be, cuts at a
// match.
#pragma once

#include <zse/core/error.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace zse::inline v1 {
namespace sampling {

/// Finds the first stop string that is complete, whatever pieces the text comes in. Where two end at the same
/// byte, the longer one counts. What precedes the match is the answer; the match is not part of it. If pieces
/// and stop strings are whole UTF-8 characters, so is what is passed on.
class StopMatcher {
public:
    static constexpr std::size_t most_strings = 64;
    static constexpr std::size_t most_bytes = 1024;  ///< of one string

    StopMatcher() = default;

    /// Throws Error(usage) for more than most_strings strings, and for one that is empty or longer than
    /// most_bytes.
    explicit StopMatcher(std::span<const std::string> strings) {
        if (strings.size() > most_strings) {
            throw Error(ErrorCode::usage, text("at most ", most_strings, " stop strings are allowed, not ",
                                               strings.size(), "; give fewer"));
        }
        std::size_t longest = 0;
        patterns_.reserve(strings.size());
        for (const std::string& string : strings) {
            if (string.empty() || string.size() > most_bytes) {
                throw Error(ErrorCode::usage,
                            text("stop string ", patterns_.size() + 1, " must have 1 to ", most_bytes,
                                 " bytes, not ", string.size(), "; leave it out or shorten it"));
            }
            longest = std::max(longest, string.size());
            patterns_.push_back(Pattern(string));
        }
        text_.reserve(longest + usual_piece);
    }

    /// Takes the next piece of the stream and gives the text that is now safe to pass on, valid until the
    /// next call. After a match, pieces are dropped.
    std::string_view push(std::string_view piece) {
        text_.erase(0, passed_);
        passed_ = 0;
        if (stopped()) return {};
        const std::size_t held = text_.size();
        text_ += piece;
        for (std::size_t i = held; i < text_.size(); ++i) {
            std::size_t longest_match = 0;
            for (std::size_t p = 0; p < patterns_.size(); ++p) {
                if (patterns_[p].advance(text_[i]) && patterns_[p].size() > longest_match) {
                    longest_match = patterns_[p].size();
                    stopped_ = p;
                }
            }
            if (longest_match != 0) {
                text_.resize(i + 1 - longest_match);
                return pass(text_.size());
            }
        }
        std::size_t possible = 0;
        for (const Pattern& pattern : patterns_) possible = std::max(possible, pattern.matched());
        return pass(text_.size() - possible);
    }

    /// The stream has ended: gives what was held back, valid until the next call. Nothing after a match.
    std::string_view finish() {
        text_.erase(0, passed_);
        passed_ = 0;
        for (Pattern& pattern : patterns_) pattern.reset();
        return pass(text_.size());
    }

    [[nodiscard]] bool stopped() const noexcept { return stopped_.has_value(); }

    /// Index of the string that matched.
    [[nodiscard]] std::optional<std::size_t> which() const noexcept { return stopped_; }

    /// Bytes held back now: fewer than the longest stop string has.
    [[nodiscard]] std::size_t held() const noexcept { return text_.size() - passed_; }

    /// Makes ready for another stream with the same strings; keeps the buffer.
    void reset() noexcept {
        text_.clear();
        passed_ = 0;
        stopped_.reset();
        for (Pattern& pattern : patterns_) pattern.reset();
    }

private:
    static constexpr std::size_t usual_piece =
        256;  // room for it is made ahead; a longer one grows the buffer once

    /// One stop string and how many of its bytes the stream ends with (Knuth, Morris, Pratt, 1977): each byte
    /// costs constant time on average, and nothing of the stream is read again.
    class Pattern {
    public:
        explicit Pattern(std::string string) : string_(std::move(string)), border_(string_.size(), 0) {
            std::uint32_t length = 0;
            for (std::size_t i = 1; i < string_.size(); ++i) {
                while (length != 0 && string_[i] != string_[length]) length = border_[length - 1];
                if (string_[i] == string_[length]) ++length;
                border_[i] = length;
            }
        }

        /// Takes a byte; true where it completes the string. The search ends there, so there is no state
        /// after it.
        bool advance(char byte) noexcept {
            while (matched_ != 0 && string_[matched_] != byte) matched_ = border_[matched_ - 1];
            if (string_[matched_] == byte) ++matched_;
            if (matched_ != string_.size()) return false;
            matched_ = 0;
            return true;
        }
        void reset() noexcept { matched_ = 0; }
        [[nodiscard]] std::size_t size() const noexcept { return string_.size(); }
        [[nodiscard]] std::size_t matched() const noexcept { return matched_; }

    private:
        std::string string_;
        std::vector<std::uint32_t>
            border_;  ///< of each prefix: its longest proper prefix that is also its suffix
        std::uint32_t matched_ = 0;
    };

    std::string_view pass(std::size_t bytes) noexcept {
        passed_ = bytes;
        return std::string_view(text_).substr(0, bytes);
    }

    std::vector<Pattern> patterns_;
    std::string text_;        ///< what the last call passed on, then what is held back
    std::size_t passed_ = 0;  ///< bytes of text_ that the last call passed on
    std::optional<std::size_t> stopped_;
};

}  // namespace sampling
}  // namespace zse::inline v1
