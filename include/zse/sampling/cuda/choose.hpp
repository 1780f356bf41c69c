// SPDX-License-Identifier: Apache-2.0
// The second kernel of sampling: temperature, top-k, min-p, top-p and the draw, without a sort.
#pragma once

#include <zse/sampling/cuda/calls.hpp>
#include <zse/sampling/cuda/row_search.hpp>
#include <zse/sampling/philox.hpp>

namespace zse::inline v1 {
namespace sampling {
namespace cuda {

/// The mass of a weight: a whole number. A weight below 2^-43 of the greatest cannot be drawn.
ZSE_DEVICE constexpr std::uint64_t mass_of_weight(float weight) noexcept {
    return weight > 0 ? static_cast<std::uint64_t>(weight * weight_one) : 0;
}

/// One block a row, over what AdjustKernel left. Chooses as Sampler does; the tokens differ only where a last place of
/// exp, or what is below 2^-43 of the greatest weight, decides.
///
/// A draw from all tokens reads the row once and a part of it again; top-k and top-p read it three times more each, and
/// once more where top-p cuts. All of that comes from the second-level cache: a row of 128,000 has 512 KB.
template <unsigned Threads = 512>
struct ChooseKernel {
    static constexpr unsigned threads = Threads;
    using Search = RowSearch<Threads>;
    /// A scan of the block keeps 8 bytes a thread.
    static constexpr exec::gpu::Budget budget{.shared_bytes = Threads * 8 + 1024};

    SampleCall call;

    [[nodiscard]] exec::gpu::Launch launch() const noexcept {
        return {{call.rows, 1, 1}, Threads, Search::shared_bytes};
    }

    template <class T>
    ZSE_DEVICE void operator()(T& t) const {
        const std::size_t row = t.block().x;
        const DeviceSampling& p = call.params[row];
        const std::uint32_t slices = call.slices();
        const std::uint64_t* of_slices =
            reinterpret_cast<const std::uint64_t*>(call.workspace) + row * slices;
        std::uint64_t best = 0;
        for (std::uint32_t i = t.thread(); i < slices; i += Threads) {
            const std::uint64_t mine = of_slices[i];
            best = mine > best ? mine : best;
        }
        best = t.template block_reduce<Threads>(best, exec::gpu::Greatest{});

        std::int32_t token = 0;
        if (key_of(best) == invalid_key) {
            token = static_cast<std::int32_t>(NoToken::invalid_logit);
        } else if (key_of(best) <= impossible_key) {
            token = static_cast<std::int32_t>(NoToken::none_left);
        } else if (p.temperature == 0) {
            token = static_cast<std::int32_t>(id_of(best));
        } else {
            token = draw(t, p, row, value_of_key(key_of(best)));
        }
        if (t.thread() == 0) call.tokens[row] = token;
    }

private:
    template <class T>
    ZSE_DEVICE std::int32_t draw(T& t, const DeviceSampling& p, std::size_t row, float most) const {
        const Search search{reinterpret_cast<float*>(call.workspace + call.values_at()) + row * call.padded(),
                            call.padded(), true};
        DeviceCut top_k;
        if (p.top_k > 0 && static_cast<std::uint32_t>(p.top_k) < call.vocabulary) {
            const auto k = static_cast<std::uint64_t>(p.top_k);
            top_k = search.find_cut(
                t, [k](std::uint64_t) { return k; },
                [](float value) -> std::uint64_t { return value > -__builtin_huge_valf() ? 1 : 0; });
        }

        const float temperature = p.temperature;
        const float min_p = p.min_p;
        std::uint64_t mine = 0;
        search.template walk<true>(t, [&](float& value, std::uint32_t id) {
            float weight = 0;
            if (top_k.keeps(value, id)) weight = t.exp((value - most) / temperature);
            if (!(weight >= min_p)) weight = 0;
            mine += mass_of_weight(weight);
            value = weight;
        });
        std::uint64_t kept = search.note_sums(t, mine);

        DeviceCut top_p;
        if (p.top_p < 1) {
            const double share = static_cast<double>(p.top_p);
            const auto wanted = [share](std::uint64_t total) {
                const double exact = share * static_cast<double>(total);
                const auto whole = static_cast<std::uint64_t>(exact);
                return whole + (static_cast<double>(whole) < exact ? 1 : 0);
            };
            const std::uint64_t all = kept;
            top_p = search.find_cut(t, wanted, [](float weight) { return mass_of_weight(weight); });
            kept = top_p.kept;
            if (kept != all) {
                search.note_sums_of(t, [&](float weight, std::uint32_t id) {
                    return top_p.keeps(weight, id) ? mass_of_weight(weight) : 0;
                });
            }
        }

        const PhiloxCounter words = philox(p.seed, p.position);
        auto target = static_cast<std::uint64_t>(uniform(words[0], words[1]) * static_cast<double>(kept));
        if (target >= kept) target = kept - 1;  // the product was rounded up
        const std::uint32_t token = search.locate(t, target, [&](float weight, std::uint32_t id) {
            return top_p.keeps(weight, id) ? mass_of_weight(weight) : std::uint64_t{0};
        });
        return static_cast<std::int32_t>(token);
    }
};

}  // namespace cuda
}  // namespace sampling
}  // namespace zse::inline v1
