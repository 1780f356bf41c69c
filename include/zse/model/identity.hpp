// SPDX-License-Identifier: Apache-2.0
// What keys and values follow from, beside the tokens: by it those that another engine wrote are known to be the same.
#pragma once

#include <zse/core/digest.hpp>
#include <zse/io/gguf.hpp>
#include <zse/kernels/isa.hpp>
#include <zse/model/groups.hpp>

#include <string_view>
#include <type_traits>

namespace zse::inline v1 {
namespace model {

/// One more whenever kernels compute other bits of the same weights and tokens, or pages hold them otherwise.
inline constexpr std::uint32_t kv_version = 1;

/// Two engines of equal identity write the same bytes into a page for the same tokens. `policies` are those of weights,
/// KV, attention and execution, as they are spelled; bits may differ between instruction sets too. Reads every byte of the
/// weights, since neither a name, a time nor a sample says that a file is still the same.
inline Identity kv_identity(const io::Gguf& file, const ModelSpec& spec, const StateGroups& groups,
                            std::string_view policies, kernels::Isa isa) {
    Digest digest;
    digest.add(kv_version).add(policies).add(kernels::name(isa));
    digest.add(spec.architecture).add(spec.layers).add(spec.hidden).add(spec.heads).add(spec.kv_heads);
    digest.add(spec.head_dim).add(spec.feed_forward).add(spec.vocabulary).add(spec.rms_epsilon);
    digest.add(spec.rope_base).add(spec.rope_dim).add(spec.rope_pairs).add(spec.rope_factors);
    digest.add(spec.rope_linear).add(spec.tied_output).add(spec.qkv_bias);
    digest.add(spec.experts).add(spec.experts_used);
    for (std::uint32_t run = 0; run < spec.run_count; ++run) {
        digest.add(spec.runs[run].count).add(spec.runs[run].window);
    }
    static_assert(std::has_unique_object_representations_v<kv::PageLayout>);
    for (const StateGroup& group : groups.all()) {
        digest.add(group.tier).add(std::as_bytes(std::span(&group.layout, 1)));
    }
    for (const io::TensorInfo& tensor : file.tensors()) {
        digest.add(std::string_view(tensor.name)).add(tensor.type);
        for (const std::uint64_t size : tensor.shape) digest.add(size);
        digest.add(tensor.data);
        file.release(tensor);  // what is loaded next is not held twice
    }
    return digest.identity();
}

}  // namespace model
}  // namespace zse::inline v1
