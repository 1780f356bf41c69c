// SPDX-License-Identifier: Apache-2.0
// The windows in which a text is scored, as llama.cpp cuts them; shared by every measure of an engine on a text.
#pragma once

#include <zse/engine/any_engine.hpp>

#include <span>
#include <utility>
#include <vector>

namespace zse::inline v1 {
namespace evaluate {

/// Windows of `size` tokens one after the other, each computed on its own. The first half of a window is context
/// only; the tokens of the second half, but for its first, are scored. An incomplete last window is dropped. Where
/// the file says that texts begin with BOS, the first token of each window is replaced by it.
class Windows {
public:
    /// Throws invalid_input for a text shorter than a window, usage for a window below 4 or beyond the engine's
    /// context. The tokens have to outlive it.
    Windows(const AnyEngine& engine, std::span<const std::int32_t> tokens, std::uint32_t size)
        : tokens_(tokens), size_(size) {
        if (size < 4 || size > engine.limits().context) {
            throw Error(ErrorCode::usage, text("a window must have 4 to ", engine.limits().context,
                                               " tokens, not ", size, "; change --context or --max-context"));
        }
        if (tokens.size() < size) {
            throw Error(ErrorCode::invalid_input,
                        text("the text has ", tokens.size(), " tokens, fewer than a window of ", size,
                             "; use a longer text or a smaller --context"));
        }
    }

    [[nodiscard]] std::uint64_t count() const noexcept { return tokens_.size() / size_; }
    /// Scored tokens of one window.
    [[nodiscard]] std::uint32_t scored() const noexcept { return size_ - 1 - size_ / 2; }

    /// Computes a window. Calls visit(logits, expected) for each scored token, in order.
    template <class Visit>
    void run(AnyEngine& engine, std::uint64_t index, const Visit& visit) const {
        const auto part = tokens_.subspan(index * size_, size_);
        AnyEngine::Request request;
        request.tokens.assign(part.begin(), part.end());
        const auto& words = engine.tokenizer();
        if (words.adds_bos() && words.special().bos >= 0) request.tokens[0] = words.special().bos;
        request.max_tokens = 0;
        request.observe = [&](std::uint32_t position, std::span<const float> logits) {
            if (position >= size_ / 2 && position + 1 < size_) visit(logits, part[position + 1]);
        };
        engine.submit(std::move(request));
        while (!engine.idle()) engine.step();
    }

private:
    std::span<const std::int32_t> tokens_;
    std::uint32_t size_;
};

}  // namespace evaluate
}  // namespace zse::inline v1
