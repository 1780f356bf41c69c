// SPDX-License-Identifier: Apache-2.0
// Which layers of a model share pages: those equal in tier, window and codecs. Runs at compile time.
#pragma once

#include <zse/kv/keeping.hpp>
#include <zse/kv/page.hpp>
#include <zse/kv/policy.hpp>
#include <zse/kv/prompt_layout.hpp>
#include <zse/kv/tiered_pages.hpp>
#include <zse/memory/plan.hpp>
#include <zse/model/batch.hpp>
#include <zse/model/spec.hpp>

#include <algorithm>
#include <array>

namespace zse::inline v1 {
namespace model {

/// Where the layers and the output matrix of a model lie: the first ones on disk, the last ones in the gpu tier, and in
/// host memory those between. The output matrix goes with the last layer.
struct Placement {
    std::uint32_t layers = 0;       ///< of the model
    std::uint32_t gpu_layers = 0;   ///< 0 .. layers
    std::uint32_t disk_layers = 0;  ///< 0 .. layers - gpu_layers; their weights alone
    bool disk_output = false;       ///< of output matrix and embedding, the weights
    bool device = false;            ///< a GPU computes

    constexpr Placement() = default;
    constexpr Placement(std::uint32_t of_model, const Limits& limits) noexcept
        : layers(of_model),
          gpu_layers(limits.device && limits.gpu_layers == 0 ? of_model
                                                             : std::min(limits.gpu_layers, of_model)),
          disk_layers(std::min(limits.disk_layers, of_model - gpu_layers)),
          disk_output(limits.disk_output && gpu_layers == 0),
          device(limits.device) {}

    /// The tier of a layer's weights unless they are streamed from disk, and of its keys and values unless a GPU computes.
    [[nodiscard]] constexpr memory::Tier of_layer(std::uint32_t layer) const noexcept {
        return layer + gpu_layers >= layers ? memory::Tier::gpu : memory::Tier::host;
    }
    [[nodiscard]] constexpr memory::Tier of_cache(std::uint32_t layer) const noexcept {
        return device ? memory::Tier::gpu : of_layer(layer);
    }
    [[nodiscard]] constexpr memory::Tier of_weights(std::uint32_t layer) const noexcept {
        return layer < disk_layers ? memory::Tier::disk : of_layer(layer);
    }
    /// Of the layers first .. first + count - 1, those whose weights lie in a tier.
    [[nodiscard]] constexpr std::uint32_t weights_in(memory::Tier tier, std::uint32_t first,
                                                     std::uint32_t count) const noexcept {
        const std::uint32_t resident = layers - gpu_layers;  // the first of the gpu tier
        const std::uint32_t from =
            tier == memory::Tier::disk ? 0 : (tier == memory::Tier::host ? disk_layers : resident);
        const std::uint32_t to =
            tier == memory::Tier::disk ? disk_layers : (tier == memory::Tier::host ? resident : layers);
        const std::uint32_t low = std::max(from, first);
        const std::uint32_t high = std::min(to, first + count);
        return high > low ? high - low : 0;
    }
    [[nodiscard]] constexpr memory::Tier of_output() const noexcept {
        return gpu_layers != 0 || device ? memory::Tier::gpu : memory::Tier::host;
    }
    /// Where steps are computed: in the first tier that holds anything.
    [[nodiscard]] constexpr memory::Tier of_compute() const noexcept { return of_output(); }
};

/// Layers whose cache is alike. Pages hold all of them.
struct StateGroup {
    memory::Tier tier = memory::Tier::host;
    kv::LayerCodecs codecs;
    kv::Keeping keeping;
    kv::PageLayout layout;
    kv::PageLayout old_layout;  ///< with no layers where no token has the old codec
    std::uint64_t pages = 0;
    std::uint64_t old_pages = 0;
    kv::TierPages spread;  ///< of `pages`, where they lie in several tiers

    /// What is summed of each sequence to find its heavy tokens.
    [[nodiscard]] constexpr kv::Mass mass() const noexcept {
        return keeping.heavy == 0 ? kv::Mass{} : kv::Mass{keeping.heavy, keeping.recent + keeping.cut};
    }
    /// The pair of codecs of old tokens.
    [[nodiscard]] constexpr std::uint8_t old_codec() const noexcept {
        return codecs.old == kv::LayerCodecs::none ? codecs.recent : codecs.old;
    }
};

/// A layer's group, and its number among the layers of the group.
struct LayerPlace {
    std::uint32_t group = 0;
    std::uint32_t index = 0;
};

/// All groups of a model.
struct StateGroups {
    static constexpr std::size_t most = memory::Plan::most_pools / 2;

    std::array<StateGroup, most> groups{};
    std::uint32_t count = 0;

    [[nodiscard]] constexpr std::span<const StateGroup> all() const noexcept {
        return {groups.data(), count};
    }
    /// Whether every layer keeps all tokens, as they were written.
    [[nodiscard]] constexpr bool keep_all() const noexcept {
        for (const StateGroup& group : all()) {
            if (group.keeping.window != 0 || group.keeping.recent != 0 || group.keeping.old) return false;
        }
        return true;
    }
    /// What finding prompts again takes: nothing where pages do not keep what they held.
    [[nodiscard]] constexpr Bytes prompt_cache_bytes(const Limits& limits) const {
        if (!limits.prompt_cache || !keep_all()) return 0;
        return saturating_add(kv::PrefixCache::bytes(groups[0].pages, limits.page_tokens, count),
                              prompt_layout(limits).index_bytes(groups[0].pages, limits.context));
    }
    /// The file behind it; of no bytes where there is none. Throws usage where its size is too small for one page.
    [[nodiscard]] constexpr kv::PromptLayout prompt_layout(const Limits& limits) const {
        if (!limits.prompt_cache || limits.prompt_cache_disk == 0 || !keep_all()) return {};
        Bytes pages_bytes = 0;
        for (const StateGroup& group : all()) {
            pages_bytes = saturating_add(pages_bytes, group.layout.page_bytes());
        }
        const auto layout = kv::PromptLayout::of(limits.page_tokens, pages_bytes, limits.prompt_cache_disk,
                                                 limits.step_tokens);
        if (layout.slots == 0) {
            throw Error(ErrorCode::usage,
                        text("a prompt cache of ", limits.prompt_cache_disk,
                             " bytes on disk holds no page of ", pages_bytes, " bytes; state at least ",
                             kv::PromptLayout::least_bytes(limits.page_tokens, pages_bytes), " bytes"));
        }
        return layout;
    }
};

/// Pages in memory that a step may need at once: for the rows that it writes, and for the pages in which sequences
/// stand, which a fork may have to copy.
constexpr std::uint64_t pages_of_a_step(const Limits& limits) noexcept {
    return ceil_div(limits.step_tokens, limits.page_tokens) + 2 * std::uint64_t{limits.batch};
}

namespace detail {

/// The layout of pages in codec pair `index` of a list.
template <class... Pair>
constexpr kv::PageLayout layout_of(policy::List<Pair...> /*pairs*/, std::size_t index,
                                   std::uint32_t page_tokens, std::uint32_t layers,
                                   const ModelSpec& spec) noexcept {
    kv::PageLayout found;
    std::size_t i = 0;
    ((i++ == index ? void(found = kv::PageLayout::of<typename Pair::Key, typename Pair::Value>(
                              page_tokens, layers, spec.kv_heads, spec.head_dim, spec.head_dim))
                   : void()),
     ...);
    return found;
}

/// Where the pages of a group lie. Slower tiers never hold more than there are, and memory holds those that a step may
/// write, whatever limits say.
constexpr kv::TierPages spread(const Limits& limits, memory::Tier tier, std::uint64_t pages) noexcept {
    kv::TierPages spread;
    const std::uint64_t spare = pages - std::min(pages, pages_of_a_step(limits));
    spread.disk = std::min(limits.kv_disk_tokens / limits.page_tokens, spare);
    if (tier == memory::Tier::gpu) {
        spread.host = std::min(limits.kv_host_tokens / limits.page_tokens, pages - spread.disk);
    }
    spread.first = pages - spread.disk - spread.host;
    return spread;
}

}  // namespace detail

/// The groups of a model whose KV policy is `Kv` and whose attention cuts chunks at multiples of `Cut`; writes to
/// `places`, `[layers]` or none, where each layer is. Throws unsupported where there are too many kinds of layers.
template <class Kv, std::uint32_t Cut>
constexpr StateGroups state_groups(const ModelSpec& spec, const Limits& limits,
                                   std::span<LayerPlace> places = {}) {
    using Codecs = kv::Codecs<Kv>;
    const Placement placement(spec.layers, limits);
    StateGroups set;
    std::array<std::uint32_t, StateGroups::most> layers{};
    std::uint32_t run = 0;
    std::uint32_t end_of_run = spec.runs[0].count;
    for (std::uint32_t layer = 0; layer < spec.layers; ++layer) {
        while (layer >= end_of_run) end_of_run += spec.runs[++run].count;
        const memory::Tier tier = placement.of_cache(layer);
        const kv::LayerCodecs codecs = Codecs::of(layer);
        const std::uint32_t window = spec.runs[run].window;
        std::uint32_t group = 0;
        while (group < set.count && !(set.groups[group].tier == tier && set.groups[group].codecs == codecs &&
                                      set.groups[group].keeping.window == window)) {
            ++group;
        }
        if (group == set.count) {
            if (group == StateGroups::most) {
                throw Error(ErrorCode::unsupported,
                            text("the layers need more than ", StateGroups::most, " kinds of caches"));
            }
            StateGroup& made = set.groups[set.count++];
            made.tier = tier;
            made.codecs = codecs;
            made.keeping.page_tokens = limits.page_tokens;
            made.keeping.step_tokens = limits.step_tokens;
            made.keeping.window = window;
            made.keeping.cut = Cut;
            if (codecs.old != kv::LayerCodecs::none) {
                made.keeping.old = true;
                made.keeping.recent = codecs.recent_tokens;
            } else if (window == 0) {  // a window drops tokens itself
                made.keeping.recent = limits.kv_recent;
                made.keeping.heavy = limits.kv_heavy;
                made.keeping.old = limits.kv_heavy != 0;
                made.keeping.sinks = made.keeping.old ? 0 : limits.kv_sinks;
            }
        }
        if (!places.empty()) places[layer] = {group, layers[group]};
        ++layers[group];
    }
    for (std::uint32_t i = 0; i < set.count; ++i) {
        StateGroup& group = set.groups[i];
        const typename Codecs::Pairs pairs{};
        group.layout = detail::layout_of(pairs, group.codecs.recent, limits.page_tokens, layers[i], spec);
        if (group.keeping.old) {
            group.old_layout =
                detail::layout_of(pairs, group.old_codec(), limits.page_tokens, layers[i], spec);
        }
        const auto pooled = [&](std::uint64_t of_sequence) {
            const std::uint64_t all = saturating_mul(of_sequence, limits.batch);
            return limits.kv_tokens == 0 ? all
                                         : std::min(all, ceil_div(limits.kv_tokens, limits.page_tokens));
        };
        group.pages = pooled(group.keeping.pages(limits.context));
        group.old_pages = pooled(group.keeping.old_pages(limits.context));
        group.spread = detail::spread(limits, group.tier, group.pages);
    }
    return set;
}

}  // namespace model
}  // namespace zse::inline v1
