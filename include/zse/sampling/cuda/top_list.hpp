// SPDX-License-Identifier: Apache-2.0
// The most likely tokens of a row with their log probabilities.
#pragma once

#include <zse/sampling/cuda/calls.hpp>
#include <zse/sampling/cuda/choose.hpp>
#include <zse/sampling/cuda/row_search.hpp>

namespace zse::inline v1 {
namespace sampling {
namespace cuda {

/// One block a row: the cut of the best `count` by radix search, and a sort of those alone. Each thread has one.
template <unsigned Threads = 512>
struct TopListKernel {
    static constexpr unsigned threads = Threads;
    using Search = RowSearch<Threads>;
    /// The radix sort counts digits of 4 bits: 8 words of counters and a word over for each thread, and some for warps.
    static constexpr exec::gpu::Budget budget{.shared_bytes = Threads * 36 + 8 * 1024};

    TopCall call;

    [[nodiscard]] exec::gpu::Launch launch() const noexcept {
        return {{call.rows, 1, 1}, Threads, Search::shared_bytes};
    }

    template <class T>
    ZSE_DEVICE void operator()(T& t) const {
        const std::size_t row = t.block().x;
        float* from = const_cast<float*>(call.logits) + row * call.stride;  // only read
        const bool aligned = reinterpret_cast<std::uintptr_t>(from) % sizeof(exec::gpu::Chunk) == 0 &&
                             call.vocabulary % 4 == 0;
        const Search search{from, call.vocabulary, aligned};

        std::uint64_t best = 0;
        search.walk(t, [&](float value, std::uint32_t id) {
            const std::uint64_t mine = ranked(checked_key(value), id);
            best = mine > best ? mine : best;
        });
        best = t.template block_reduce<Threads>(best, exec::gpu::Greatest{});
        const bool invalid = key_of(best) == invalid_key;
        if (invalid || key_of(best) <= impossible_key) {
            const float nothing = invalid ? __builtin_nanf("") : -__builtin_huge_valf();
            const auto why = static_cast<std::int32_t>(invalid ? NoToken::invalid_logit : NoToken::none_left);
            if (t.thread() < call.count) put(row, t.thread(), why, nothing);
            if (t.thread() == 0 && call.tokens != nullptr) call.token_logprobs[row] = __builtin_nanf("");
            return;
        }

        const float most = value_of_key(key_of(best));
        std::uint64_t mine = 0;
        search.walk(t, [&](float value, std::uint32_t) { mine += mass_of_weight(t.exp(value - most)); });
        const std::uint64_t mass = search.note_sums(t, mine);
        // The greatest logit is kept apart, since it would swallow the digits of the rest.
        const double rest = t.log(static_cast<double>(mass) / static_cast<double>(weight_one));
        const auto logprob = [&](float logit) {
            return static_cast<float>((static_cast<double>(logit) - static_cast<double>(most)) - rest);
        };
        if (t.thread() == 0 && call.tokens != nullptr) {
            const auto token = static_cast<std::uint32_t>(call.tokens[row]);
            if (token < call.vocabulary) call.token_logprobs[row] = logprob(from[token]);
        }
        if (call.count == 0) return;

        const std::uint64_t wanted = call.count;
        const DeviceCut cut = search.find_cut(
            t, [wanted](std::uint64_t) { return wanted; },
            [](float value) -> std::uint64_t { return value > -__builtin_huge_valf() ? 1 : 0; });
        // In the place of the bins, which were read before the last barrier: a counter, and what it gives places to.
        auto counter = t.template shared<std::uint32_t>(0, 1);
        auto listed = t.template shared<std::uint64_t>(sizeof(std::uint64_t), Threads);
        listed[t.thread()] = std::uint64_t{0};
        if (t.thread() == 0) counter[0] = 0u;
        t.sync();
        search.walk(t, [&](float value, std::uint32_t id) {
            if (value > -__builtin_huge_valf() && cut.keeps(value, id)) {
                listed[t.atomic_add(counter, 0, 1u)] = ranked(detail::order_key(value), id);
            }
        });
        t.sync();
        std::uint64_t keys[1] = {listed[t.thread()]};
        std::uint32_t unused[1] = {0};
        t.template block_sort_descending<Threads, 1>(keys, unused);
        if (t.thread() >= call.count) return;
        if (keys[0] == 0) {
            put(row, t.thread(), static_cast<std::int32_t>(NoToken::none_left), -__builtin_huge_valf());
        } else {
            put(row, t.thread(), static_cast<std::int32_t>(id_of(keys[0])),
                logprob(value_of_key(key_of(keys[0]))));
        }
    }

private:
    static_assert(Threads <= most_listed);

    ZSE_DEVICE void put(std::size_t row, unsigned place, std::int32_t id, float logprob) const {
        call.ids[row * call.count + place] = id;
        call.logprobs[row * call.count + place] = logprob;
    }
};

}  // namespace cuda
}  // namespace sampling
}  // namespace zse::inline v1
