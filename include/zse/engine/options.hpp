// SPDX-License-Identifier: Apache-2.0
// How an engine is opened.
#pragma once

#include <zse/memory/arena.hpp>
#include <zse/model/batch.hpp>
#include <zse/model/loader.hpp>
#include <zse/scheduler/scheduler.hpp>

#include <filesystem>
#include <optional>

namespace zse::inline v1 {
namespace engine {

struct Options {
    Limits limits;
    model::LoadProgress progress;  ///< told while weights are read
    memory::Mapping mapping;       ///< pages of the system that memory is taken on
    scheduler::Admission admission = scheduler::Admission::prompt;  ///< when a request may begin
    /// The directory of files of the disk tier; empty: where the system keeps temporary files.
    std::filesystem::path disk_directory;
    std::optional<kernels::Isa> isa;  ///< kernels of this instruction set; none: the widest of the processor
    int gpu = 0;                      ///< which GPU, as the driver counts them
    std::shared_ptr<exec::gpu::Runtime> device = nullptr;  ///< it, once opened: engines on exec::cuda set it
    kv::Eviction eviction = kv::Eviction::lru;             ///< which pages leave a tier that is full
    /// Where the file of Limits::prompt_cache_disk is; made where it is missing. One engine at a time has the file of a
    /// model; models and settings have files of their own.
    std::filesystem::path prompt_cache_directory{};
    bool always_read_prompts = false;  ///< even where computing them came sooner lately: for checking only
    bool use_cache = true;  ///< false computes the whole sequence for every token: for checking only
    std::uint64_t shuffle_pages = 0;  ///< not 0: pages are taken in another order, for checking only
};

}  // namespace engine
}  // namespace zse::inline v1
