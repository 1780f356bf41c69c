// SPDX-License-Identifier: Apache-2.0
// An answer as a range of text pieces: each step of the range steps the engine.
#pragma once

#include <zse/engine/any_engine.hpp>

#include <cstddef>
#include <iterator>

namespace zse::inline v1 {

/// A single-pass range of string views, each valid until the next. Leaving it early cancels the request.
/// Other requests of the same engine advance while it is read, but their events are only seen by their own
/// observers.
class Generation {
public:
    Generation(AnyEngine& engine, engine::RequestId id) : engine_(&engine), id_(id) {}
    Generation(Generation&& other) noexcept
        : engine_(std::exchange(other.engine_, nullptr)),
          id_(other.id_),
          finish_(other.finish_),
          tokens_(other.tokens_) {}
    Generation& operator=(Generation&&) = delete;
    ~Generation() {
        if (engine_ != nullptr && finish_ == engine::Finish::none) engine_->cancel(id_);
    }

    class iterator {
    public:
        using iterator_category = std::input_iterator_tag;
        using value_type = std::string_view;
        using difference_type = std::ptrdiff_t;
        using pointer = const std::string_view*;
        using reference = std::string_view;

        iterator() = default;
        explicit iterator(Generation& generation) : generation_(&generation) { ++*this; }
        std::string_view operator*() const noexcept { return piece_; }
        iterator& operator++() {
            if (!generation_->advance(piece_)) generation_ = nullptr;
            return *this;
        }
        void operator++(int) { ++*this; }
        friend bool operator==(const iterator& a, const iterator& b) noexcept {
            return a.generation_ == b.generation_;
        }

    private:
        Generation* generation_ = nullptr;
        std::string_view piece_;
    };

    iterator begin() { return iterator(*this); }
    iterator end() { return {}; }

    /// Why the answer ended; none while it goes on.
    [[nodiscard]] engine::Finish finish() const noexcept { return finish_; }
    /// Tokens chosen so far that belong to the answer.
    [[nodiscard]] std::size_t tokens() const noexcept { return tokens_; }
    [[nodiscard]] engine::RequestId id() const noexcept { return id_; }

private:
    /// The next piece that is not empty; false at the end.
    bool advance(std::string_view& piece) {
        while (finish_ == engine::Finish::none) {
            const auto events = engine_->step();
            joined_.clear();
            for (const engine::Event& event : events) {
                if (event.id != id_) continue;
                if (event.token >= 0) ++tokens_;
                joined_ += event.text;
                if (event.finish != engine::Finish::none) finish_ = event.finish;
            }
            if (events.empty() && engine_->idle() && finish_ == engine::Finish::none) {
                finish_ = engine::Finish::cancelled;
            }
            if (!joined_.empty()) {
                piece = joined_;
                return true;
            }
        }
        return false;
    }

    AnyEngine* engine_;
    engine::RequestId id_;
    engine::Finish finish_ = engine::Finish::none;
    std::size_t tokens_ = 0;
    std::string joined_;
};

inline Generation AnyEngine::generate(std::string_view prompt, Request request) {
    request.tokens = vocabulary_->tokenizer.encode(prompt);
    return Generation(*this, submit(std::move(request)));
}

}  // namespace zse::inline v1
