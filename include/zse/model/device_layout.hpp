// SPDX-License-Identifier: Apache-2.0
// Where the arrays that describe a step lie in a device's memory, and the pinned memory through which they and the
// weights get there.
#pragma once

#include <zse/memory/arena.hpp>
#include <zse/model/groups.hpp>
#include <zse/sampling/cuda/calls.hpp>

#include <array>

namespace zse::inline v1 {
namespace model {

/// `[tokens | positions | segment of each row | output rows | sampling | chosen tokens | segments of each group | places of spread pools | page numbers]`
/// in this order at fixed places, so that a captured step finds them again; the page numbers of all sequences follow
/// one another, and what is used of them is copied.
struct DeviceLayout {
    Bytes tokens = 0;
    Bytes positions = 0;
    Bytes segment_of_row = 0;
    Bytes output_rows = 0;
    Bytes sampling_rows = 0;                          ///< how the token of each output row is chosen
    Bytes chosen = 0;                                 ///< the token of each output row: comes back
    std::array<Bytes, StateGroups::most> segments{};  ///< `[group]`
    std::array<Bytes, StateGroups::most> places{};
    Bytes entries = 0;       ///< from here on
    Bytes most_entries = 0;  ///< bytes

    constexpr DeviceLayout() = default;
    constexpr DeviceLayout(const StateGroups& groups, const Limits& limits) noexcept {
        using memory::Carver;
        Bytes end = 0;
        const auto place = [&end](Bytes bytes) { return std::exchange(end, end + bytes); };
        const Bytes rows = Carver::footprint<std::uint32_t>(limits.step_tokens);
        tokens = place(rows);
        positions = place(rows);
        segment_of_row = place(rows);
        output_rows = place(Carver::footprint<std::uint32_t>(limits.output_rows));
        sampling_rows = place(Carver::footprint<sampling::cuda::DeviceSampling>(limits.output_rows));
        chosen = place(Carver::footprint<std::int32_t>(limits.output_rows));
        for (std::uint32_t g = 0; g < groups.count; ++g) {
            const StateGroup& group = groups.groups[g];
            // One for each row, where bits of a row may not depend on those beside it.
            segments[g] = place(Carver::footprint<kv::Segment>(limits.step_tokens));
            if (group.spread.spread())
                places[g] = place(Carver::footprint<kv::PagePlace>(group.spread.total()));
            most_entries =
                saturating_add(most_entries, Carver::footprint<kv::PageIndex>(saturating_mul(
                                                 limits.batch, group.keeping.entries(limits.context))));
        }
        entries = end;
    }

    /// In the device, and as much of pinned memory.
    [[nodiscard]] constexpr Bytes bytes() const noexcept { return saturating_add(entries, most_entries); }
    /// Pinned memory: what a step describes, then the windows through which weights are loaded.
    [[nodiscard]] constexpr Bytes load_at() const noexcept { return round_up(bytes(), 64); }
    [[nodiscard]] constexpr Bytes host_bytes() const noexcept {
        return saturating_add(load_at(), load_windows * load_window_bytes);
    }

    /// Packed weights go to the device in pieces: one is filled by the processor's threads while another is on its way. A
    /// piece of 4 MiB takes PCIe about 0.1 ms, a hundred times what starting a copy takes.
    static constexpr Bytes load_window_bytes = MiB(4);
    static constexpr std::size_t load_windows = 3;
};

}  // namespace model
}  // namespace zse::inline v1
