// SPDX-License-Identifier: Apache-2.0
// The memory of an engine's pages: their arenas in every tier, the tables that find them, and the file of prompts.
#pragma once

#include <zse/engine/options.hpp>
#include <zse/kv/prompt_tier.hpp>
#include <zse/memory/disk_arena.hpp>
#include <zse/model/groups.hpp>

#include <array>
#include <filesystem>
#include <memory>
#include <optional>
#include <vector>

namespace zse::inline v1 {
namespace engine {

/// Takes from a ledger what a plan says. Both outlive it.
struct Arenas {
    memory::Ledger* ledger = nullptr;
    const memory::Plan* plan = nullptr;
    memory::Mapping mapping;
    std::filesystem::path disk_directory;  ///< empty: where the system keeps temporary files

    [[nodiscard]] memory::Reservation reserve(memory::Tier tier, memory::Kind kind, Bytes bytes) const {
        return ledger->reserve(tier, kind, bytes).value();
    }
    /// All bytes of a kind in a tier, or so many of them.
    [[nodiscard]] memory::Arena take(memory::Tier tier, memory::Kind kind) const {
        return take(tier, kind, (*plan)[tier][kind]);
    }
    [[nodiscard]] memory::Arena take(memory::Tier tier, memory::Kind kind, Bytes bytes) const {
        return memory::Arena(reserve(tier, kind, bytes), mapping);
    }
    /// A file in the disk tier.
    [[nodiscard]] memory::DiskArena take_disk(memory::Kind kind, Bytes bytes) const {
        std::error_code none;  // then there is no such directory either
        return memory::DiskArena(
            reserve(memory::Tier::disk, kind, bytes),
            disk_directory.empty() ? std::filesystem::temp_directory_path(none) : disk_directory);
    }
};

/// Makes the sequences' pages over it. Neither copied nor moved: sequences point to it.
class PageMemory {
public:
    /// For groups of layers within options.limits, which are resolved. `identity` is that of the file of prompts.
    PageMemory(const Arenas& arenas, const model::StateGroups& groups, const Options& options,
               const Identity& identity)
        : limits_(options.limits),
          mover_(options.device),
          pools_(arenas.plan->pools),
          page_tables_(arenas.take(memory::Tier::host, memory::Kind::page_tables)),
          prompt_cache_(arenas.take(memory::Tier::host, memory::Kind::prompt_cache)) {
        for (const memory::PoolPlan& pool : arenas.plan->kv_pools()) {
            kv_.push_back(arenas.take(pool.tier, memory::Kind::kv, pool.bytes()));
        }
        memory::Carver prompts(prompt_cache_.bytes());
        sequences_ = make_sequences(arenas, groups, options.eviction, prompts);
        open_prompts(arenas, groups.prompt_layout(limits_), options, identity, prompts);
    }
    PageMemory(const PageMemory&) = delete;
    PageMemory& operator=(const PageMemory&) = delete;

    /// By which pages change their tier.
    [[nodiscard]] kv::PageMover& mover() noexcept { return mover_; }
    [[nodiscard]] kv::Sequences& sequences() noexcept { return sequences_; }
    /// The file behind the prompt cache, or none.
    [[nodiscard]] kv::PromptTier* prompts() noexcept { return prompts_ ? &*prompts_ : nullptr; }
    [[nodiscard]] const kv::PromptTier* prompts() const noexcept { return prompts_ ? &*prompts_ : nullptr; }
    /// The sums of a slot by which a group finds heavy tokens; empty where it does not.
    [[nodiscard]] std::span<float> mass(std::uint32_t group, kv::Slot slot) const noexcept {
        const std::size_t each = mass_[group].size() / limits_.batch;
        return mass_[group].subspan(slot * each, each);
    }
    /// Pages that changed their tier since open, in all groups.
    [[nodiscard]] kv::TierTraffic traffic() const noexcept {
        kv::TierTraffic sum;
        for (const Spread& spread : spread_) {
            if (spread.tiers != nullptr) sum += spread.tiers->traffic();
        }
        return sum;
    }

    /// Tells the ledger how many pages are in use, and known.
    void note_pages() noexcept {
        prompt_cache_.uses(sequences_.prefixes().used_bytes(prompt_cache_.size()));
        std::size_t arena = 0;
        for (const kv::GroupPages& group : sequences_.groups()) {
            if (const kv::TieredPages* const tiers = group.pool.tiers(); tiers != nullptr) {
                Spread& spread = spread_[arena];
                const auto [first, host, disk] = tiers->used();
                kv_[arena].uses(first * group.pool.page_bytes());
                spread.host.uses(host * group.pool.page_bytes());
                spread.disk.uses(disk * pools_[arena].disk_page_bytes);
                spread.staging.uses(tiers->staging_used());
                ++arena;
                continue;
            }
            kv_[arena++].uses(group.pool.used() * group.pool.page_bytes());
            if (group.keeping.old) kv_[arena++].uses(group.old_pool.used() * group.old_pool.page_bytes());
        }
    }
    /// Tells the ledger that the tables have so many entries. The pools' own arrays are always in use.
    void note_tables(std::uint64_t entries) noexcept {
        page_tables_.uses(page_tables_.size() - (table_entries_ - entries) * sizeof(kv::PageIndex));
    }

private:
    /// What a group whose pages lie in several tiers holds beyond its first one.
    struct Spread {
        memory::Arena host, staging;
        memory::DiskArena disk;
        std::unique_ptr<kv::TieredPages> tiers;
    };

    kv::Sequences make_sequences(const Arenas& arenas, const model::StateGroups& groups,
                                 kv::Eviction eviction, memory::Carver& prompts) {
        memory::Carver carver(page_tables_.bytes());
        std::vector<kv::GroupPages> made;
        std::size_t next = 0;
        const auto pool = [&](std::uint64_t count, Bytes page_bytes, kv::TieredPages* tiers) {
            const auto free = carver.take<kv::PageIndex>(count);
            const auto holders = carver.take<kv::PagePool::Holders>(count);
            std::byte* const base = kv_[next++].data();
            return tiers != nullptr ? kv::PagePool(free, holders, *tiers, page_bytes, &mover_)
                                    : kv::PagePool(free, holders, base, page_bytes, &mover_);
        };
        const auto tables = [&](std::uint64_t entries) {
            const auto room = carver.take<kv::PageIndex>(limits_.batch * entries);
            table_entries_ += room.size();
            std::vector<kv::PageTable> all;
            for (std::uint32_t slot = 0; slot < limits_.batch; ++slot) {
                all.emplace_back(room.subspan(slot * entries, entries));
            }
            return all;
        };
        spread_.reserve(groups.count);  // they are pointed to
        for (const model::StateGroup& group : groups.all()) {
            kv::GroupPages& pages = made.emplace_back();
            Spread& spread = spread_.emplace_back();
            if (group.spread.spread()) open_tiers(arenas, group, next, eviction, spread, carver);
            pages.keeping = group.keeping;
            pages.pool = pool(group.pages, group.layout.page_bytes(), spread.tiers.get());
            pages.tables = tables(group.keeping.entries(limits_.context));
            if (!group.keeping.old) continue;
            pages.old_pool = pool(group.old_pages, group.old_layout.page_bytes(), nullptr);
            pages.old_tables = tables(group.keeping.old_pages(limits_.context));
            const std::size_t sums = group.mass().floats(group.layout);
            if (sums != 0) mass_[made.size() - 1] = carver.take<float>(limits_.batch * sums);
        }
        if (prompt_cache_.size() == 0) return kv::Sequences(std::move(made));
        return kv::Sequences(std::move(made), kv::PrefixCache(prompts, groups.groups[0].pages,
                                                              limits_.page_tokens, groups.count));
    }
    /// The slower tiers of a group. Where one group is spread, all have one pool each.
    void open_tiers(const Arenas& arenas, const model::StateGroup& group, std::size_t number,
                    kv::Eviction eviction, Spread& spread, memory::Carver& carver) {
        const memory::PoolPlan& pool = pools_[number];
        spread.host = arenas.take(memory::Tier::host, memory::Kind::kv, pool.host_bytes());
        spread.staging = arenas.take(memory::Tier::host, memory::Kind::staging, pool.staging_bytes);
        spread.disk = arenas.take_disk(memory::Kind::kv, pool.disk_bytes());
        if (pool.disk_pages != 0 && transfers_ == nullptr) {
            transfers_ = std::make_unique<memory::Transfers>(disk_threads, disk_queue);
        }
        const kv::TieredPages::Parts parts{kv_[number].data(),    spread.host.data(), &spread.disk,
                                           spread.staging.data(), transfers_.get(),   &mover_};
        spread.tiers = std::make_unique<kv::TieredPages>(carver, group.layout, group.spread, parts, eviction,
                                                         model::pages_of_a_step(limits_));
    }
    void open_prompts(const Arenas& arenas, const kv::PromptLayout& layout, const Options& options,
                      const Identity& identity, memory::Carver& index) {
        const std::filesystem::path& directory = options.prompt_cache_directory;
        if (directory.empty() != (limits_.prompt_cache_disk == 0)) {
            throw Error(ErrorCode::usage,
                        "a prompt cache on disk needs a directory and a size; state both, or neither");
        }
        if (layout.file_bytes == 0) return;
        prompts_.emplace(sequences_, limits_.context,
                         arenas.reserve(memory::Tier::disk, memory::Kind::prompt_cache, layout.file_bytes),
                         directory, identity, layout,
                         arenas.take(memory::Tier::host, memory::Kind::staging, layout.staging_bytes()),
                         index, options.always_read_prompts);
        // What will be read back first needs memory first: it should not wait for the system then.
        std::size_t arena = 0;
        for (const kv::GroupPages& group : sequences_.groups()) {
            kv_[arena++].populate(saturating_mul(prompts_->store().blocks(), group.pool.page_bytes()));
        }
    }

    /// Two reads at once reach the rate of a disk that is asked for long stretches.
    static constexpr unsigned disk_threads = 2;
    static constexpr std::size_t disk_queue = 256;

    Limits limits_;
    kv::PageMover mover_;
    std::array<memory::PoolPlan, memory::Plan::most_pools> pools_;
    memory::Arena page_tables_, prompt_cache_;
    std::vector<memory::Arena> kv_;  ///< one for each pool of the plan
    std::unique_ptr<memory::Transfers> transfers_;
    std::vector<Spread> spread_;  ///< one for each group
    std::uint64_t table_entries_ = 0;
    std::array<std::span<float>, model::StateGroups::most> mass_;  ///< `[group][slot * floats]`
    kv::Sequences sequences_;
    std::optional<kv::PromptTier> prompts_;  ///< ends while pages are there
};

}  // namespace engine
}  // namespace zse::inline v1
