// SPDX-License-Identifier: Apache-2.0
// A ragged batch: rows of several sequences, prompts and single tokens alike, in one forward pass.
#pragma once

#include <zse/kv/append.hpp>

#include <span>

namespace zse::inline v1 {
namespace model {

/// Bounds that memory is planned for. All counts are per engine.
struct Limits {
    std::uint32_t context = 0;  ///< tokens a sequence may have, prompt and answer; 0: the trained length
    std::uint32_t batch = 1;    ///< sequences at once
    std::uint32_t step_tokens = 512;  ///< rows of one step: the token budget
    std::uint32_t output_rows = 0;    ///< rows of logits of one step; 0: one per sequence
    std::uint32_t threads = 1;
    std::uint32_t page_tokens = 16;  ///< 1, 8, 16 or 32
    std::uint64_t kv_tokens =
        0;  ///< tokens that the pages of all sequences hold together; 0: batch * context
    /// Of those, tokens whose pages the gpu tier leaves to the host (without effect where layers lie in the host's), and
    /// tokens whose pages memory leaves to the disk. Memory keeps what a step may write.
    std::uint64_t kv_host_tokens = 0;
    std::uint64_t kv_disk_tokens = 0;
    std::uint32_t kv_recent =
        0;  ///< pruning: tokens kept before the stretch a sequence stands in; 0: all are kept
    std::uint32_t kv_sinks = 0;  ///< pruning: first tokens, which stay
    std::uint32_t kv_heavy =
        0;  ///< pruning: of what is not recent, so many tokens that were attended to most
    /// Keep pages of sequences that ended, as long as there is room, for prompts that begin alike. Without effect where
    /// layers drop tokens or code them anew.
    bool prompt_cache = false;
    Bytes prompt_cache_disk = 0;   ///< of a file behind it, which outlives the engine; 0: there is none
    bool enforce_eager = false;    ///< enqueue every step anew instead of running captured ones
    std::uint32_t gpu_layers = 0;  ///< last layers in the gpu tier, and with any of them the output matrix
    /// First layers whose weights lie in the disk tier and are streamed through a ring in host memory. Their keys and
    /// values stay where steps compute.
    std::uint32_t disk_layers = 0;
    /// A GPU computes, and has all keys and values; engines that do say so themselves. Layers outside of the gpu tier are
    /// then streamed from pinned host memory, and no `gpu_layers` means all.
    bool device = false;
    /// The output matrix is streamed too, in tiles, and single rows of the embedding are read from the disk tier. Not with
    /// layers in the gpu tier, where the output matrix lies then.
    bool disk_output = false;
    friend constexpr bool operator==(const Limits&, const Limits&) = default;
};

/// One step's rows. Tokens and positions are `[rows]`.
struct Batch {
    const std::int32_t* tokens = nullptr;
    kv::BatchRows rows;
    std::span<const std::uint32_t> output_rows;  ///< rows whose logits are wanted, in order
    std::size_t most_rows = 0;                   ///< longest segment
};

}  // namespace model

using model::Limits;

}  // namespace zse::inline v1
