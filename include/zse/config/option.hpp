// SPDX-License-Identifier: Apache-2.0
// The options that files and the environment may state: their names here, in vLLM and in Ollama, and what their values
// are. What a value does is the business of the program that has the option.
#pragma once

#include <zse/core/nearest.hpp>

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace zse::inline v1 {
namespace config {

/// What a value is, and so how it is read.
enum class Kind : std::uint8_t {
    text,       ///< as it stands
    dtype,      ///< vLLM's name of a data type
    boolean,    ///< true, yes, on, 1, or their opposites
    count,      ///< a whole number
    number,     ///< a number
    headroom,   ///< a share from 0 to below 1
    used,       ///< a share above 0, to 1
    tokens,     ///< 4096, 128K
    size,       ///< 32GB, auto
    gigabytes,  ///< 4, as vLLM writes sizes
    duration,   ///< 5m, 1h30m, -1
    weights,    ///< precision of weights, or a way to quantise them
    kv,         ///< precision of keys and values
    attention,  ///< a kernel, or whether it is flash attention
    tiers,      ///< a list of tiers for KV
    anything,   ///< of an option that is not built: not looked at
};

/// An option. Lists of names are words with a blank between them.
struct Option {
    std::string_view name;  ///< of the flag, without dashes; with underscores it is the key of a file
    Kind kind = Kind::text;
    std::string_view keys{};         ///< more keys of files; a point stands before what is nested
    std::string_view environment{};  ///< names of others in the environment, beyond ZSE_<NAME>
    std::string_view yields_to{};    ///< options that, stated with more weight, make this one void
    std::string_view note{};         ///< of a known option that is not built: what holds instead
    std::string_view quiet{};        ///< the value of such an option at which there is nothing to say
};

/// An option that is known, but not built.
constexpr Option unbuilt(std::string_view name, Kind kind, std::string_view note, std::string_view quiet = "",
                         std::string_view environment = "") {
    return {name, kind, "", environment, "", note, quiet};
}
inline constexpr std::string_view no_server = "this build has no server";
inline constexpr std::string_view no_download = "models are files in this build: nothing is downloaded";

inline constexpr std::array options{
    Option{"model"},
    // Memory.
    Option{"gpu-mem", Kind::size, "memory.gpu"},
    Option{"host-mem", Kind::size, "memory.host"},
    Option{"disk-mem", Kind::size, "memory.disk"},
    Option{"disk-dir", Kind::text, "memory.disk_dir"},
    Option{"headroom", Kind::headroom, "memory.headroom", "", "gpu-memory-utilization"},
    Option{"gpu-memory-utilization", Kind::used, "memory.gpu_utilization", "", "headroom"},
    Option{"reserve", Kind::size, "memory.reserve", "OLLAMA_GPU_OVERHEAD"},
    Option{"unified", Kind::boolean, "memory.unified"},
    Option{"gpu-layers", Kind::text, "n_gpu_layers ngl"},
    Option{"offload-layers", Kind::text, "offload"},
    Option{"weights-mem", Kind::size, "memory.weights"},
    Option{"device-map"},
    Option{"slo"},
    Option{"huge-pages", Kind::text, "memory.huge_pages"},
    Option{"mlock", Kind::boolean, "memory.mlock"},
    // Keys and values.
    Option{"kv-cache-memory", Kind::size, "kv_cache_memory_bytes kv_cache.memory"},
    Option{"kv-tier", Kind::tiers, "kv_tiers kv_cache.tiers"},
    Option{"swap-space", Kind::gigabytes, "", "", "kv-tier"},
    Option{"kv-quant", Kind::kv, "kv_cache_dtype kv_cache.quant", "OLLAMA_KV_CACHE_TYPE"},
    Option{"cache-type-k", Kind::kv, "kv_cache.quant_k", "", "kv-quant"},
    Option{"cache-type-v", Kind::kv, "kv_cache.quant_v", "", "kv-quant"},
    Option{"kv-old", Kind::kv, "kv_cache.old"},
    Option{"kv-recent", Kind::count, "kv_cache.recent"},
    Option{"kv-sinks", Kind::count, "kv_cache.sinks"},
    Option{"kv-heavy", Kind::count, "kv_cache.heavy"},
    Option{"block-size", Kind::count, "kv_cache.block_size"},
    Option{"enable-prefix-caching", Kind::boolean, "kv_cache.prompt_cache"},
    Option{"prompt-cache", Kind::text, "kv_cache.prompt_cache_directory"},
    Option{"prompt-cache-size", Kind::size, "kv_cache.prompt_cache_size"},
    // The engine.
    Option{"weights", Kind::weights, "quantization quant", "", "bits"},
    Option{"attention", Kind::attention, "", "OLLAMA_FLASH_ATTENTION"},
    Option{"max-context", Kind::tokens, "max_model_len context_length", "OLLAMA_CONTEXT_LENGTH"},
    Option{"max-batch", Kind::count, "max_num_seqs", "OLLAMA_NUM_PARALLEL"},
    Option{"step-tokens", Kind::count, "max_num_batched_tokens"},
    Option{"threads", Kind::count},
    Option{"isa"},
    Option{"device", Kind::text},
    Option{"numerics"},
    Option{"admission"},
    Option{"kv-eviction", Kind::text, "kv_cache.eviction"},
    Option{"enforce-eager", Kind::boolean},
    // Answers.
    Option{"system"},
    Option{"max-tokens", Kind::count},
    Option{"temperature", Kind::number, "sampling.temperature"},
    Option{"top-k", Kind::count, "sampling.top_k"},
    Option{"top-p", Kind::number, "sampling.top_p"},
    Option{"min-p", Kind::number, "sampling.min_p"},
    Option{"repetition-penalty", Kind::number, "sampling.repetition_penalty"},
    Option{"seed", Kind::count, "sampling.seed"},
    // Known, but not built.
    unbuilt("trust-remote-code", Kind::boolean, "zse runs no code that comes with a model", "false"),
    unbuilt("dtype", Kind::dtype,
            "weights stay as they are stored; 'weights: f16' or 'weights: bf16' would convert them", "auto"),
    unbuilt("cpu-offload-gb", Kind::gigabytes,
            "'gpu_layers' or 'offload_layers' says how many layers lie where", "0"),
    unbuilt("keep-alive", Kind::duration,
            "this build has no server: a model is held as long as the program runs", "", "OLLAMA_KEEP_ALIVE"),
    unbuilt("max-loaded-models", Kind::count, "this build has no server: the program opens one model", "1",
            "OLLAMA_MAX_LOADED_MODELS"),
    unbuilt("max-queue", Kind::count, no_server, "", "OLLAMA_MAX_QUEUE"),
    unbuilt("load-timeout", Kind::duration, "loading takes as long as it takes", "", "OLLAMA_LOAD_TIMEOUT"),
    unbuilt("host", Kind::text, no_server),
    unbuilt("port", Kind::count, no_server),
    unbuilt("api-key", Kind::text, no_server),
    unbuilt("served-model-name", Kind::text, no_server),
    unbuilt("tensor-parallel-size", Kind::count, "this build computes on one processor", "1"),
    unbuilt("pipeline-parallel-size", Kind::count, "this build computes on one processor", "1"),
    unbuilt("enable-chunked-prefill", Kind::boolean,
            "prompts are always computed in chunks, of 'step_tokens' rows", "true"),
    unbuilt("enable-lora", Kind::boolean, "adapters can be planned in this build, but not computed", "false"),
    unbuilt("speculative-config", Kind::anything, "this build does not speculate"),
    unbuilt("tokenizer", Kind::text, "the model file holds its tokenizer"),
    unbuilt("revision", Kind::text, no_download),
    unbuilt("download-dir", Kind::text, no_download),
    unbuilt("load-format", Kind::text, "the format of a model is read from its file", "auto"),
};

/// Calls `what` with each word of a list.
template <class What>
constexpr void for_each_word(std::string_view list, const What& what) {
    while (!list.empty()) {
        const std::size_t end = std::min(list.find(' '), list.size());
        what(list.substr(0, end));
        list.remove_prefix(std::min(end + 1, list.size()));
    }
}
constexpr bool has_word(std::string_view list, std::string_view word) {
    bool found = false;
    for_each_word(list, [&](std::string_view each) { found = found || each == word; });
    return found;
}

/// A key as it is compared: vLLM's files may have dashes for underscores.
inline std::string plain_key(std::string_view key) {
    std::string plain(key);
    std::replace(plain.begin(), plain.end(), '-', '_');
    return plain;
}

/// The option of a plain key; null where there is none.
inline const Option* option_of_key(std::string_view key) {
    for (const Option& option : options) {
        if (plain_key(option.name) == key || has_word(option.keys, key)) return &option;
    }
    return nullptr;
}

/// All keys and the sections that hold nested ones.
inline std::vector<std::string> all_keys() {
    std::vector<std::string> keys;
    for (const Option& option : options) {
        keys.push_back(plain_key(option.name));
        for_each_word(option.keys, [&](std::string_view key) { keys.emplace_back(key); });
    }
    for (const char* section : {"kv_cache", "memory", "sampling"}) keys.emplace_back(section);
    return keys;
}

/// Whether keys may be nested below this one.
inline bool is_section(std::string_view key) {
    for (const Option& option : options) {
        bool found = false;
        for_each_word(option.keys, [&](std::string_view each) {
            found = found || (each.size() > key.size() && each.starts_with(key) && each[key.size()] == '.');
        });
        if (found) return true;
    }
    return false;
}

/// "; did you mean 'max_context'?" or nothing.
inline std::string did_you_mean(std::string_view key) {
    const std::vector<std::string> keys = all_keys();
    const auto near = near_match(keys, key);
    return near ? "; did you mean '" + std::string(*near) + "'?" : "";
}

}  // namespace config
}  // namespace zse::inline v1
