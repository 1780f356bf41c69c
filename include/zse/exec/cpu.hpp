// SPDX-License-Identifier: Apache-2.0
// The executor of the processor: a persistent team of threads over host memory.
#pragma once

#include <zse/exec/captured.hpp>
#include <zse/exec/executor.hpp>
#include <zse/exec/team.hpp>
#include <zse/memory/tiers.hpp>
#include <zse/policy/family.hpp>

#include <algorithm>

namespace zse::inline v1 {
namespace exec {

/// Runs each operation on a team, in order, over the scratch that the plan laid out.
class CpuExecutor {
public:
    static constexpr bool records = false;
    static constexpr bool device = false;

    /// `scratch` holds `shared` bytes, then `per_thread` bytes for each thread of the team.
    CpuExecutor(Team& team, std::byte* scratch, Bytes shared, Bytes per_thread) noexcept
        : team_(&team), scratch_(scratch), threads_base_(scratch + shared), per_thread_(per_thread) {}

    Bytes allocate(Bytes bytes) { return layout_.allocate(bytes); }
    void release(Bytes offset) noexcept { layout_.release(offset); }
    template <class T>
    T* at(Bytes offset) const noexcept {
        return reinterpret_cast<T*>(scratch_ + offset);
    }

    /// Bytes of the scratch that any step has used so far.
    [[nodiscard]] Bytes used() const noexcept {
        return layout_.peak() + team_->size() * round_up(thread_bytes_, memory::ScratchLayout::alignment);
    }

    /// Keeps what runs from now on, until close().
    void capture(Captured& into) noexcept { capturing_ = &into; }
    void close() noexcept {
        if (capturing_ != nullptr) capturing_->close();
        capturing_ = nullptr;
    }

    template <PlainOperation Op>
    void run(const Op& op) noexcept {
        keep(op);
        team_->for_each(op.items(), [&](std::size_t item, unsigned thread) { op.run(item, worker(thread)); });
    }
    template <PartedOperation Op>
    void run(const Op& op) noexcept {
        keep(op);
        team_->for_each_in_parts(
            [&](std::size_t part) { return op.items(part, team_->size()); },
            [&](std::size_t part, std::size_t item, unsigned thread) { op.run(part, item, worker(thread)); });
    }

private:
    template <class Op>
    void keep(const Op& op) noexcept {
        thread_bytes_ = std::max(thread_bytes_, op.thread_bytes());
        if (capturing_ != nullptr) capturing_->add<CpuExecutor>(op);
    }
    [[nodiscard]] Worker worker(unsigned thread) const noexcept {
        return {thread, threads_base_ + thread * per_thread_};
    }

    Team* team_;
    std::byte* scratch_;
    std::byte* threads_base_;
    Bytes per_thread_;
    memory::ScratchLayout layout_;
    Bytes thread_bytes_ = 0;
    Captured* capturing_ = nullptr;
};

/// The execution policy: the processor, with the widest kernels that it runs or those that Options::isa names.
struct cpu {
    static constexpr auto policy_family = policy::Family::exec;
    static constexpr policy::Sentence spelling{"exec::cpu"};
    static constexpr std::string_view name = "cpu";
    static constexpr bool device = false;
    using default_tiers = tiers::host;
};

}  // namespace exec
}  // namespace zse::inline v1
