// SPDX-License-Identifier: Apache-2.0
// The options that commands share: budgets, keys and values, how an engine runs, and the model itself.
#include "opening.hpp"

#include <algorithm>

namespace zse_cli {

void BudgetOptions::declare(CLI::App& command) {
    const auto size = [&command](const char* names, std::optional<zse::Size>& to, const char* what) {
        command
            .add_option_function<std::string>(
                names, [&to](const std::string& text) { to = zse::parse_size(text).value(); }, what)
            ->type_name("SIZE")
            ->group("Memory");
    };
    size("--gpu-mem", request.gpu,
         "bytes of the gpu tier (64MB, 10GiB, auto: the card's free memory); default: none. Without a GPU it "
         "is an arena of host memory that stands in for one");
    size("--host-mem", request.host, "bytes of host memory; default, auto: what is free less the headroom");
    size("--disk-mem", request.disk,
         "bytes of the disk tier; default: what --kv-tier disk states, else none");
    command
        .add_option_function<double>(
            "--swap-space",
            [this](double gigabytes) {
                swap_space = static_cast<zse::Bytes>(gigabytes * 1024) * zse::MiB(1);
            },
            "GiB of host memory for KV that the gpu tier has no room for, as vLLM spells it: --kv-tier cpu "
            "says the "
            "same in any unit")
        ->check(CLI::Range(0.0, 1e6))
        ->type_name("GIB")
        ->group("Memory");
    command
        .add_option_function<double>(
            "--headroom", [this](double share) { request.headroom = share; },
            "share of each tier that stays free; default: 0.2 of host memory and 0.1 of a card where their "
            "size is measured, 0 where it is stated")
        ->group("Memory");
    command
        .add_option_function<double>(
            "--gpu-memory-utilization", [this](double share) { request.utilization = share; },
            "share of the first tier's memory that may be used: 0.9 is a headroom of 0.1")
        ->group("Memory");
    command
        .add_option_function<std::string>(
            "--reserve",
            [this](const std::string& text) {
                const zse::Size stated = zse::parse_size(text).value();
                if (stated.automatic)
                    throw zse::Error(zse::ErrorCode::usage, "--reserve is a size, such as 4GB; auto is none");
                request.reserve = stated.bytes;
            },
            "bytes of the first tier that are left to the system and to others; default: 0")
        ->type_name("SIZE")
        ->group("Memory");
    command.add_flag("--unified", request.unified, "the gpu tier lies in host memory, which is counted once")
        ->group("Memory");
    size("--kv-cache-memory", kv,
         "bytes of all pages of KV, auto: what the tier has left; default: batch times context");
    declare_kv_tiers(command);
    command
        .add_option_function<std::string>(
            "--gpu-layers,--n-gpu-layers",
            [this](const std::string& text) {
                if (text == "auto") {
                    gpu_layers.reset();
                } else if (text == "all") {
                    gpu_layers = all_layers;
                } else {
                    const auto count = zse::parse_count(text);
                    if (!count || count.value() > 1u << 20) {
                        throw zse::Error(
                            zse::ErrorCode::usage,
                            zse::text("--gpu-layers is a number of layers, all or auto, found ", text));
                    }
                    gpu_layers = static_cast<std::uint32_t>(count.value());
                }
            },
            "last layers in the gpu tier, and with any of them the output matrix (also -ngl); all, or auto: "
            "as many as fit (default)")
        ->type_name("N")
        ->group("Memory");
    offload.declare(command);
}

void KvOptions::declare(CLI::App& command) {
    const CLI::IsMember one({"none", "f32", "f16", "fp8", "int8", "int8-plain", "int4", "int4-plain"});
    const CLI::IsMember side({"f32", "f16", "fp8", "int8", "int8-plain", "int4", "int4-plain"});
    command.add_option("--kv-quant", both, "precision of keys and values; int8 and int4 are rotated")
        ->check(one)
        ->capture_default_str()
        ->group("KV");
    command.add_option("--cache-type-k", k, "precision of keys (also -ctk)")->check(side)->group("KV");
    command.add_option("--cache-type-v", v, "precision of values (also -ctv)")->check(side)->group("KV");
    command
        .add_option(
            "--kv-old", old,
            "precision of keys and values of tokens more than 1,024 back; none: the same as of recent "
            "ones")
        ->check(one)
        ->capture_default_str()
        ->group("KV");
    const auto count = [&command](const char* name, std::uint32_t& to, const char* what) {
        command.add_option(name, to, what)
            ->check(CLI::Range(0u, 1u << 30))
            ->capture_default_str()
            ->group("KV");
    };
    count("--kv-recent", recent,
          "drop tokens that lie further back than this, a multiple of 1,024; 0: none is dropped");
    count("--kv-sinks", sinks, "of dropped tokens, the first ones that stay, at most 256");
    count(
        "--kv-heavy", heavy,
        "of dropped tokens, those that stay because they were attended to most: a multiple of 1,024 for each "
        "key head");
    declare_prompt_cache(command);
}

void KvOptions::declare_prompt_cache(CLI::App& command) {
    command
        .add_flag("--enable-prefix-caching,!--no-enable-prefix-caching,!--no-prompt-cache", prompt_cache,
                  "keep pages of prompts and answers for prompts that begin alike (default), or do not")
        ->group("KV");
    command
        .add_option_function<std::string>(
            "--prompt-cache",
            [this](const std::string& directory) {
                for (const char* word : {"", "true", "false", "yes", "no", "on", "off"}) {
                    if (directory == word) {
                        throw zse::Error(
                            zse::ErrorCode::usage,
                            zse::text("--prompt-cache is a directory, found '", directory,
                                      "'; whether prompts are kept at all is --enable-prefix-caching"));
                    }
                }
                prompt_cache_directory = directory;
            },
            "keep them in a file in this directory too, which later runs find; default: in memory alone")
        ->type_name("DIR")
        ->group("KV");
    command
        .add_option_function<std::string>(
            "--prompt-cache-size",
            [this](const std::string& text) {
                prompt_cache_size = zse::parse_size(text).value();
                if (prompt_cache_size->automatic || prompt_cache_size->bytes == 0) {
                    throw zse::Error(zse::ErrorCode::usage,
                                     zse::text("--prompt-cache-size is a size, such as 4GB, found ", text));
                }
            },
            "bytes of that file, taken when it is made; default: 1GiB")
        ->type_name("SIZE")
        ->group("KV");
}

zse::Bytes KvOptions::prompt_cache_disk() const {
    if (!prompt_cache || (prompt_cache_directory.empty() && !prompt_cache_size)) return 0;
    return prompt_cache_size ? prompt_cache_size->bytes : default_prompt_cache_size;
}

std::string KvOptions::name() const {
    const std::string one = both == "none" ? "f16" : both;
    const std::string keys = k.empty() ? one : k;
    const std::string values = v.empty() ? one : v;
    const std::string recents = keys == values ? keys : zse::text(keys, "/", values);
    return old == "none" || old == recents ? recents : zse::text(recents, "-then-", old);
}

void RunningOptions::declare(CLI::App& command) {
    command
        .add_option_function<std::string>(
            "--huge-pages",
            [this](const std::string& pages) {
                using zse::memory::Backing;
                mapping.best = pages == "explicit" ? Backing::huge
                                                   : (pages == "off" ? Backing::plain : Backing::transparent);
            },
            "pages of 2 MiB: explicit ones that were set aside (vm.nr_hugepages), else transparent ones; "
            "off: "
            "plain pages")
        ->check(CLI::IsMember({"transparent", "explicit", "off"}))
        ->default_str("transparent")
        ->group("Memory");
    command.add_flag("--mlock", mapping.locked, "keep all memory of the model out of swap")->group("Memory");
    command
        .add_option_function<std::string>(
            "--admission",
            [this](const std::string& when) {
                using zse::scheduler::Admission;
                admission = when == "reserve" ? Admission::reserve : Admission::prompt;
            },
            "a request begins once its prompt and one page are free, and gives way if pages run short; or "
            "once its worst case is free")
        ->check(CLI::IsMember({"prompt", "reserve"}))
        ->default_str("prompt");
    command
        .add_option_function<std::string>(
            "--kv-eviction",
            [this](const std::string& policy) {
                eviction = policy == "cost" ? zse::kv::Eviction::cost : zse::kv::Eviction::lru;
            },
            "which pages leave a tier that is full: the least recently used, or those that are used least "
            "often and "
            "computed again fastest")
        ->check(CLI::IsMember({"lru", "cost"}))
        ->default_str("lru");
    command.add_flag("--enforce-eager", enforce_eager,
                     "enqueue every step anew instead of running captured ones");
}

void ModelOptions::declare(CLI::App& command) {
    command.add_option("MODEL,-m,--model", model, "model file (.gguf)");
    declare_settings(command);
}

void ModelOptions::declare_settings(CLI::App& command) {
    // A step of advice can be added at the end of a command: what is said last counts.
    command.option_defaults()->take_last();
    declare_config(command);
    budget.declare(command);
    command.add_option("--weights", weights, "precision of weights")
        ->check(CLI::IsMember({"as-stored", "f32", "f16", "bf16", "int8", "nf4", "q4_0", "q4_1", "q8_0"}))
        ->capture_default_str();
    kv.declare(command);
    running.declare(command);
    command.add_option("--attention", attention, "attention kernel")
        ->check(CLI::IsMember({"flash", "reference"}))
        ->capture_default_str();
    command
        .add_option_function<std::string>(
            "-c,--max-context,--max-model-len",
            [this](const std::string& text) {
                const std::uint64_t tokens = zse::parse_tokens(text).value();
                if (tokens == 0 || tokens > 1u << 30) {
                    throw zse::Error(zse::ErrorCode::usage,
                                     zse::text("--max-context ", text, ": a context has 1 to 2^30 tokens"));
                }
                context = static_cast<std::uint32_t>(tokens);
            },
            "tokens of prompt and answer, such as 4096 or 128K (131072); default: the smaller of the trained "
            "length and what fits")
        ->type_name("TOKENS");
    command.add_option("--max-batch,--max-num-seqs", batch, "sequences at once")
        ->check(CLI::Range(1u, 4096u))
        ->capture_default_str();
    command
        .add_option("--step-tokens,--max-num-batched-tokens", step_tokens,
                    "rows that one step computes at most")
        ->check(CLI::Range(1u, 65536u))
        ->capture_default_str();
    command.add_option("--block-size", page_tokens, "tokens of a KV page")
        ->check(CLI::IsMember({1, 8, 16, 32}))
        ->capture_default_str();
    command.add_option("-t,--threads", threads, "threads; default: one per usable core")
        ->check(CLI::Range(1u, 256u));
    command.add_option("--isa", isa, "instruction set of the kernels; default: the widest of this processor")
        ->check(CLI::IsMember({"portable", "avx2", "avx512", "avx512_vnni", "neon"}));
    command
        .add_option(
            "--device", device,
            "where steps are computed: cpu, cuda or cuda:N (GPU N), or auto: on a GPU where there is one "
            "that this program has kernels for")
        ->type_name("DEVICE")
        ->capture_default_str();
    command
        .add_option(
            "--numerics", numerics,
            "on a GPU: fast, or invariant, which gives a sequence the same bits whatever runs beside it")
        ->check(CLI::IsMember({"fast", "invariant"}))
        ->capture_default_str();
    command.add_flag("--json", json, "print JSON on standard output");
    command.option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::Throw);
}

}  // namespace zse_cli
