// SPDX-License-Identifier: Apache-2.0
// bench_prompt_cache DIR: seconds to the first token of a prompt of 2,000 tokens that is computed, found in memory, read
// from disk, and read after a restart; beside the bytes of its pages over what the disk reads, and one step. The model is
// that of ZSE_MODEL, or the demo model.
#include <support/smollm2.hpp>

#include <fcntl.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <tuple>
#include <vector>

namespace {

using Tokens = std::vector<std::int32_t>;
using Clock = std::chrono::steady_clock;
namespace kv = zse::kv;
namespace memory = zse::memory;

double seconds_since(Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
}

Tokens prompt(std::int32_t first, std::int32_t stride) {
    Tokens tokens(2000);
    for (std::size_t i = 0; i < tokens.size(); ++i) {
        tokens[i] = first + static_cast<std::int32_t>(i) * stride % 5000;
    }
    return tokens;
}

double first_token(zse::AnyEngine& engine, const Tokens& tokens) {
    const auto start = Clock::now();
    std::ignore = support::greedy(engine, tokens, 1);
    return seconds_since(start);
}

/// Bytes a second that the store's file gives, past the page cache, to as many readers and in reads of the same size.
double read_rate(const std::filesystem::path& path, const kv::PromptLayout& layout, zse::Bytes bytes) {
    const memory::BlockFile file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_DIRECT));
    memory::Ledger ledger;
    const zse::Bytes size = layout.read_bytes();
    const memory::Arena buffers(
        ledger.reserve(memory::Tier::host, memory::Kind::staging, kv::PromptLayout::readers * size).value());
    std::array<memory::TransferGroup, kv::PromptLayout::readers> groups;
    memory::Transfers transfers(kv::PromptLayout::readers, groups.size());
    const auto start = Clock::now();
    for (zse::Bytes done = 0, turn = 0; done < bytes; done += size, turn = (turn + 1) % groups.size()) {
        groups[turn].wait();
        transfers.submit({&file, layout.slot_at(0) + done, buffers.data() + turn * size, size, false, nullptr,
                          nullptr, 0, &groups[turn]});
    }
    for (auto& group : groups) group.wait();
    return static_cast<double>(bytes) / seconds_since(start);
}

double median(std::vector<double>& values) {
    std::sort(values.begin(), values.end());
    return values[values.size() / 2];
}
double print(const char* what, std::vector<double>& values) {
    const double middle = median(values);
    std::printf("%-34s %8.4f s   (%.4f to %.4f)\n", what, middle, values.front(), values.back());
    return middle;
}

}  // namespace

int main(int count, char** arguments) {
    if (count != 2) {
        std::fprintf(stderr, "usage: bench_prompt_cache DIR, a directory for a prompt cache of 1 GiB\n");
        return 2;
    }
    zse::engine::Options options;
    // Memory has room for one of the two prompts, so that each drives the other out.
    options.limits = {.context = 2304, .batch = 1, .step_tokens = 512, .threads = 2, .prompt_cache = true};
    options.limits.prompt_cache_disk = zse::GiB(1);
    options.prompt_cache_directory = arguments[1];
    const Tokens one = prompt(100, 37), other = prompt(200, 91);
    const auto open = [&] { return support::open_smollm2<zse::Engine<>>(options); };
    std::vector<double> computed, in_memory, on_disk, restarted, rates;
    {
        const auto engine = open();
        computed = {first_token(*engine, one), first_token(*engine, other)};
    }
    zse::Bytes bytes = 0;
    for (int repetition = 0; repetition < 9; ++repetition) {
        const auto engine = open();
        const kv::PromptStore& store = engine->prompts()->store();
        restarted.push_back(first_token(*engine, one));
        bytes = store.counts().fetched * store.layout().pages_bytes;
        in_memory.push_back(first_token(*engine, one));
        first_token(*engine, other);
        on_disk.push_back(first_token(*engine, one));
        const auto file = std::filesystem::directory_iterator(options.prompt_cache_directory)->path();
        rates.push_back(read_rate(file, store.layout(), bytes));
    }
    print("computed", computed);
    const double step = print("in memory: one step of the rest", in_memory);
    print("on disk, driven out of memory", on_disk);
    print("on disk, after a restart", restarted);
    const double rate = median(rates);
    std::printf("%.1f MB of pages, read at %.2f GB/s; 1.3 times that and one step: %.4f s\n",
                static_cast<double>(bytes) / 1e6, rate / 1e9, 1.3 * static_cast<double>(bytes) / rate + step);
    return 0;
}
