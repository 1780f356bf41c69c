// SPDX-License-Identifier: Apache-2.0
// Prompts that were computed once are read from disk: after a restart, or when memory had to let go of them. The tokens
// are those of an engine without a cache, whatever happens to the file.
// rows: 57 43
// timeout: 300
#include <gtest/gtest.h>
#include <support/counted_new.hpp>
#include <support/expect_error.hpp>
#include <support/temporary_directory.hpp>
#include <support/tiny_engine.hpp>

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <fstream>
#include <map>
#include <tuple>

namespace {

using support::TemporaryDirectory;
using support::Tiny;
using Request = zse::AnyEngine::Request;
using zse::engine::RequestId;
using zse::memory::Kind;
using zse::memory::Tier;
namespace kv = zse::kv;

using Int8 = zse::Engine<kv::int8<16>>;
using Layers = zse::Engine<kv::per_layer<kv::f16, kv::on<kv::int8<16>, 1>>,
                           zse::tiers::chain<zse::tiers::arena, zse::tiers::host>>;

const Tiny& tiny() {
    static const Tiny model({.context = 4096});
    return model;
}

Request request(std::vector<std::int32_t> tokens, std::uint32_t most, std::uint64_t seed = 1) {
    Request made;
    made.tokens = std::move(tokens);
    made.max_tokens = most;
    made.ignore_end = true;
    made.sampling = {.temperature = 1.0f, .seed = seed};
    return made;
}
/// All tokens until nothing is left to do. What a step leaves to be written is written before the next one, since how
/// fast a disk is decides what is found there.
std::map<RequestId, std::vector<std::int32_t>> run(zse::AnyEngine& engine) {
    std::map<RequestId, std::vector<std::int32_t>> tokens;
    while (!engine.idle()) {
        engine.flush_prompts();
        for (const auto& event : engine.step()) {
            if (event.token >= 0) tokens[event.id].push_back(event.token);
        }
    }
    return tokens;
}
std::vector<std::int32_t> answer(zse::AnyEngine& engine, Request made) {
    const RequestId id = engine.submit(std::move(made));
    return run(engine)[id];
}

constexpr zse::Limits plain{.context = 400, .step_tokens = 64};
template <class E>
std::vector<std::int32_t> cold(Request made) {
    return answer(*tiny().open<E>(plain), std::move(made));
}

zse::Limits on_disk(zse::Limits limits = plain, zse::Bytes size = zse::MiB(4)) {
    limits.prompt_cache = true;
    limits.prompt_cache_disk = size;
    return limits;
}
template <class E = Int8>
std::unique_ptr<zse::AnyEngine> open(const std::filesystem::path& directory,
                                     const zse::Limits& limits = on_disk(), zse::engine::Options options = {},
                                     const Tiny& model = tiny()) {
    options.prompt_cache_directory = directory;
    options.always_read_prompts = true;  // a model this small is computed sooner than it is read
    return model.open<E>(limits, options);
}
const kv::PromptCounts& counts(const zse::AnyEngine& engine) {
    return engine.prompts()->store().counts();
}

template <class E>
void restarts(const zse::Limits& limits) {
    const TemporaryDirectory directory;
    const auto prompt = support::tiny_prompt(1, 100);
    const auto expected = cold<E>(request(prompt, 40));
    {
        const auto engine = open<E>(directory.path(), limits);
        EXPECT_EQ(answer(*engine, request(prompt, 40)), expected);
        EXPECT_EQ(engine->counters().prompt_hit_tokens, 0u);
    }
    const auto engine = open<E>(directory.path(), limits);
    EXPECT_EQ(counts(*engine).found, 139u / 16);
    EXPECT_EQ(answer(*engine, request(prompt, 40)), expected);
    EXPECT_EQ(engine->counters().rows, 100u - 96u + 39u) << "only the rest is computed";
    EXPECT_EQ(engine->counters().prompt_hits, 1u);
    EXPECT_EQ(engine->counters().prompt_hit_tokens, 96u);
    EXPECT_EQ(counts(*engine).fetched, 6u);
    EXPECT_EQ(counts(*engine).written, 0u) << "what is there is not written again";
    EXPECT_EQ(answer(*engine, request(prompt, 40)), expected);
    EXPECT_EQ(counts(*engine).fetched, 6u) << "memory has it from then on";

    // A conversation goes on from the answer.
    auto longer = prompt;
    longer.insert(longer.end(), expected.begin(), expected.end());
    longer.push_back(5);
    EXPECT_EQ(answer(*engine, request(longer, 20, 9)), cold<E>(request(longer, 20, 9)));
    EXPECT_EQ(engine->counters().prompt_hit_tokens, 96u + 96u + 128u);
    EXPECT_EQ(engine->page_use().used, 0u);
}

TEST(PromptDisk, AfterARestartOnlyTheRestIsComputed) {
    restarts<Int8>(on_disk());
    zse::Limits limits = on_disk();
    limits.gpu_layers = 2;
    restarts<Layers>(limits);
}

TEST(PromptDisk, AChangedTokenHidesAllBehindIt) {
    const TemporaryDirectory directory;
    const auto prompt = support::tiny_prompt(1, 100);
    answer(*open(directory.path()), request(prompt, 5));
    for (const std::size_t changed : {0u, 15u, 40u, 99u}) {
        const auto engine = open(directory.path());
        auto other = prompt;
        other[changed] = other[changed] == 7 ? 8 : 7;
        EXPECT_EQ(answer(*engine, request(other, 20)), cold<Int8>(request(other, 20))) << changed;
        EXPECT_EQ(engine->counters().prompt_hit_tokens, changed / 16 * 16) << changed;
        EXPECT_EQ(counts(*engine).fetched, changed / 16) << changed;
    }
}

TEST(PromptDisk, OtherModelsAndSettingsFindNothing) {
    const TemporaryDirectory directory;
    const auto prompt = support::tiny_prompt(1, 100);
    answer(*open(directory.path()), request(prompt, 20));
    const auto finds = [&](const zse::AnyEngine& engine) { return counts(engine).found; };

    const Tiny other({.context = 4096, .seed = 99});
    EXPECT_EQ(finds(*open(directory.path(), on_disk(), {}, other)), 0u) << "weights of the same shape";
    zse::Limits limits = on_disk();
    limits.page_tokens = 8;
    EXPECT_EQ(finds(*open(directory.path(), limits)), 0u);
    EXPECT_EQ(finds(*open<Layers>(directory.path())), 0u) << "another precision of KV";
    zse::engine::Options portable;
    portable.isa = zse::kernels::Isa::portable;
    if (zse::kernels::widest() != zse::kernels::Isa::portable) {
        EXPECT_EQ(finds(*open(directory.path(), on_disk(), portable)), 0u) << "kernels of other bits";
    }
    // What changes no bit changes no file.
    limits = on_disk({.context = 800, .batch = 3, .step_tokens = 32, .threads = 2});
    EXPECT_EQ(finds(*open(directory.path(), limits)), 119u / 16);

    // One byte of the embedding of a token that stands in the prompt.
    std::vector<std::byte> image = tiny().image;
    const auto& embedding = tiny().file.require("token_embd.weight");
    const auto row =
        embedding.data.subspan(static_cast<std::size_t>(prompt[3]) * (embedding.bytes / embedding.rows()));
    image[static_cast<std::size_t>(row.data() - tiny().image.data()) + 1] ^= std::byte{0x3f};
    const auto file = zse::io::Gguf::parse(image, "replaced.gguf");
    zse::engine::Options options;
    options.limits = on_disk();
    options.prompt_cache_directory = directory.path();
    const auto replaced = Int8::open(
        file, tiny().spec, zse::engine::vocabulary_from_gguf(file, tiny().spec.vocabulary), options);
    EXPECT_EQ(finds(*replaced), 0u) << "a file that was replaced";
}

TEST(PromptDisk, WhatMemoryLetsGoOfComesBack) {
    const TemporaryDirectory directory;
    // Pages for two sequences of 200 tokens, and twelve prompts, again and again.
    const zse::Limits limits = on_disk({.context = 200, .batch = 2, .step_tokens = 64});
    const auto engine = open(directory.path(), limits);
    std::vector<std::vector<std::int32_t>> expected;
    for (std::uint64_t i = 0; i < 12; ++i) {
        expected.push_back(cold<Int8>(request(support::tiny_prompt(i, 90), 60, i)));
        EXPECT_EQ(answer(*engine, request(support::tiny_prompt(i, 90), 60, i)), expected.back()) << i;
    }
    EXPECT_GT(engine->page_use().dropped, 0u);
    const std::uint64_t rows = engine->counters().rows;
    for (std::uint64_t i = 0; i < 12; ++i) {
        EXPECT_EQ(answer(*engine, request(support::tiny_prompt(i, 90), 60, i)), expected[i]) << i;
    }
    EXPECT_EQ(engine->counters().rows - rows, 12u * (90 - 80 + 59));
    EXPECT_GT(counts(*engine).fetched, 12u * 5 / 2);
    std::vector<RequestId> ids;
    for (std::uint64_t i = 0; i < 12; ++i) {
        ids.push_back(engine->submit(request(support::tiny_prompt(i, 90), 60, i)));
    }
    auto tokens = run(*engine);
    for (std::size_t i = 0; i < ids.size(); ++i) EXPECT_EQ(tokens[ids[i]], expected[i]) << i;
}

TEST(PromptDisk, SequencesThatGiveWayReadWhatTheyHad) {
    const TemporaryDirectory directory;
    zse::Limits limits{.context = 200, .batch = 8, .step_tokens = 64};
    std::vector<std::vector<std::int32_t>> alone;
    for (std::uint64_t i = 0; i < 8; ++i)
        alone.push_back(cold<Int8>(request(support::tiny_prompt(i, 40), 150, i)));
    limits.kv_tokens = 3 * 200;
    std::uint64_t recomputed[2];
    for (const bool disk : {false, true}) {
        limits.prompt_cache = true;
        const auto engine = disk ? open(directory.path(), on_disk(limits)) : tiny().open<Int8>(limits);
        std::vector<RequestId> ids;
        for (std::uint64_t i = 0; i < 8; ++i)
            ids.push_back(engine->submit(request(support::tiny_prompt(i, 40), 150, i)));
        auto tokens = run(*engine);
        for (std::size_t i = 0; i < ids.size(); ++i) EXPECT_EQ(tokens[ids[i]], alone[i]) << i;
        EXPECT_GT(engine->scheduling().preempted, 0u);
        EXPECT_EQ(engine->page_use().used, 0u);
        recomputed[disk] = engine->scheduling().recomputed_rows;
    }
    EXPECT_LT(recomputed[1], recomputed[0]);
}

TEST(PromptDisk, IsPlannedToTheByteInAllTiers) {
    for (const zse::Bytes size : {zse::KiB(300), zse::MiB(5)}) {
        for (const std::uint32_t page_tokens : {1u, 16u}) {
            const TemporaryDirectory directory;
            const zse::Limits limits =
                on_disk({.context = 320, .batch = 2, .page_tokens = page_tokens}, size);
            const auto engine = open<Layers>(directory.path(), limits);
            const auto plan = Layers::plan(tiny().spec, limits);
            EXPECT_EQ(engine->plan(), plan);
            for (const Tier tier : zse::memory::all_tiers) {
                EXPECT_EQ(engine->ledger().held(tier), plan[tier]);
                EXPECT_EQ(engine->ledger().reserved(tier), plan[tier]);
            }
            EXPECT_GT(plan.host[Kind::staging], 0u);
            zse::Bytes files = 0;
            for (const auto& file : std::filesystem::directory_iterator(directory.path()))
                files += file.file_size();
            EXPECT_EQ(files, plan.disk.total());
            EXPECT_LE(files, size);
            for (std::uint64_t i = 0; i < 4; ++i) engine->submit(request(support::tiny_prompt(i, 310), 5));
            run(*engine);
            EXPECT_EQ(engine->ledger().held(Tier::disk), plan.disk);
            EXPECT_LE(engine->ledger().peak(Tier::disk).total(), plan.disk.total());
        }
    }
    auto ledger =
        std::make_shared<zse::memory::Ledger>(zse::memory::Caps{0, zse::memory::Caps::unlimited, 1000});
    const TemporaryDirectory directory;
    zse::engine::Options options;
    options.prompt_cache_directory = directory.path();
    support::expect_error([&] { std::ignore = tiny().open<Int8>(on_disk(), options, ledger); },
                          zse::ErrorCode::out_of_memory, {"tier disk has 1000 bytes free"});
    EXPECT_TRUE(std::filesystem::is_empty(directory.path())) << "a refusal leaves nothing behind";
}

// What is read and what is computed depends on the machine; that nothing is lost by it does not.
TEST(PromptDisk, WhateverComesSoonerTheTokensAreTheSame) {
    const TemporaryDirectory directory;
    zse::Limits limits = on_disk();
    limits.kv_tokens = 400;
    zse::engine::Options options;
    options.prompt_cache_directory = directory.path();
    const auto engine = tiny().open<Int8>(limits, options);
    for (int round = 0; round < 4; ++round) {
        for (std::uint64_t i = 0; i < 3; ++i) {
            EXPECT_EQ(answer(*engine, request(support::tiny_prompt(i, 310), 20)),
                      cold<Int8>(request(support::tiny_prompt(i, 310), 20)));
        }
    }
    EXPECT_GT(counts(*engine).fetched + counts(*engine).declined, 0u);
}

TEST(PromptDisk, NothingIsAllocatedBetweenTokens) {
    const TemporaryDirectory directory;
    const auto engine = open(directory.path());
    answer(*engine, request(support::tiny_prompt(2, 100), 5));
    engine->submit(request(support::tiny_prompt(1, 100), 200));
    engine->step();  // admits
    const std::size_t before = support::allocations.load();
    while (!engine->idle()) engine->step();
    EXPECT_EQ(support::allocations.load() - before, 0u);
    engine->flush_prompts();
    EXPECT_EQ(counts(*engine).written, 299u / 16 + 104u / 16);
}

TEST(PromptDisk, DamagedPagesAreComputedAgain) {
    const TemporaryDirectory directory;
    const auto prompt = support::tiny_prompt(1, 300);
    const auto expected = cold<Int8>(request(prompt, 30));
    answer(*open(directory.path()), request(prompt, 30));
    std::filesystem::path path;
    for (const auto& file : std::filesystem::directory_iterator(directory.path())) path = file.path();
    std::vector<char> whole(std::filesystem::file_size(path));
    std::ifstream(path, std::ios::binary).read(whole.data(), static_cast<std::streamsize>(whole.size()));
    std::uint64_t random = 1, damaged = 0, fetched = 0;
    for (int round = 0; round < 20; ++round) {
        std::vector<char> bytes = whole;
        for (int flip = 0; flip < 40; ++flip) {
            random = random * 6364136223846793005ULL + 1442695040888963407ULL;
            bytes[4096 + (random >> 20) % (bytes.size() / 8)] ^= static_cast<char>(1 << (random >> 61));
        }
        std::ofstream(path, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
        const auto engine = open(directory.path());
        EXPECT_EQ(answer(*engine, request(prompt, 30)), expected) << round;
        EXPECT_EQ(answer(*engine, request(prompt, 30)), expected) << round;
        damaged += counts(*engine).damaged;
        fetched += counts(*engine).fetched;
    }
    EXPECT_GT(damaged, 0u);
    EXPECT_GT(fetched, 0u);
}

TEST(PromptDisk, KillsAtAnyMomentChangeNoToken) {
    const TemporaryDirectory directory;
    const zse::Limits limits = on_disk({.context = 200, .batch = 4, .step_tokens = 64}, zse::KiB(200));
    std::vector<std::vector<std::int32_t>> expected;
    for (std::uint64_t i = 0; i < 10; ++i) {
        expected.push_back(cold<Int8>(request(support::tiny_prompt(i, 120), 40, i)));
    }
    std::uint64_t random = 7, fetched = 0, evicted = 0;
    for (int kill = 0; kill < 100; ++kill) {
        random = random * 6364136223846793005ULL + 1442695040888963407ULL;
        int runs[2];
        ASSERT_EQ(::pipe(runs), 0);
        const pid_t child = ::fork();
        if (child == 0) {
            const auto engine = open(directory.path(), limits);
            for (std::uint64_t i = random >> 40;; ++i) {
                for (std::uint64_t j = 0; j < 4; ++j)
                    engine->submit(request(support::tiny_prompt((i + j) % 10, 120), 40, (i + j) % 10));
                while (!engine->idle()) engine->step();
                std::ignore = ::write(runs[1], "", 1);
            }
        }
        ::close(runs[1]);
        // Every other time only after some answers: a child may take long to open its engine.
        char ran = 0;
        if (kill % 2 == 0) {
            EXPECT_EQ(::read(runs[0], &ran, 1), 1);
        }
        ::close(runs[0]);
        ::usleep(static_cast<useconds_t>(3000 + (random >> 33) % 25000));
        ::kill(child, SIGKILL);
        int status = 0;
        ASSERT_EQ(::waitpid(child, &status, 0), child);
        ASSERT_TRUE(WIFSIGNALED(status)) << WEXITSTATUS(status);
        const auto engine = open(directory.path(), limits);
        for (const std::uint64_t i : {random % 10, (random >> 20) % 10}) {
            EXPECT_EQ(answer(*engine, request(support::tiny_prompt(i, 120), 40, i)), expected[i]) << kill;
        }
        EXPECT_EQ(counts(*engine).damaged, 0u);
        fetched += counts(*engine).fetched;
        evicted += counts(*engine).evicted;
    }
    EXPECT_GT(fetched, 0u);
    EXPECT_GT(evicted, 0u);
}

TEST(PromptDisk, AFailingDiskCostsTimeOnly) {
    const TemporaryDirectory directory;
    const auto engine = open(directory.path());
    std::signal(SIGXFSZ, SIG_IGN);
    struct rlimit before {};
    ::getrlimit(RLIMIT_FSIZE, &before);
    const struct rlimit none { 4096, before.rlim_max };
    ::setrlimit(RLIMIT_FSIZE, &none);
    for (std::uint64_t i = 0; i < 3; ++i) {
        const auto prompt = support::tiny_prompt(i, 100);
        EXPECT_EQ(answer(*engine, request(prompt, 30)), cold<Int8>(request(prompt, 30)));
    }
    ::setrlimit(RLIMIT_FSIZE, &before);
    EXPECT_TRUE(engine->prompts()->store().off());
    EXPECT_NE(engine->prompts()->store().warning().find("going on without it"), std::string::npos);
    EXPECT_EQ(counts(*engine).written, 0u);
}

TEST(PromptDisk, WhatMakesNoSenseIsRefused) {
    const TemporaryDirectory directory;
    const auto engine = open(directory.path());
    support::expect_error([&] { open(directory.path()); }, zse::ErrorCode::usage,
                          {"in use by another zse engine", directory.path().native()});
    support::expect_error([&] { open(""); }, zse::ErrorCode::usage, {"needs a directory and a size"});
    support::expect_error([&] { open(directory.path(), plain); }, zse::ErrorCode::usage,
                          {"needs a directory and a size"});
    support::expect_error(
        [&] { open(directory.path(), on_disk(plain, 5000)); }, zse::ErrorCode::usage,
        {"a prompt cache of 5000 bytes on disk holds no page", "state at least 12288 bytes"});
    EXPECT_EQ(open(directory.path() / "least", on_disk(plain, 12288))->prompts()->store().layout().slots, 1u);
    // Pages that are written again are no business of the cache.
    zse::Limits pruned{.context = 2048, .step_tokens = 256, .kv_recent = 1024};
    const auto without = open(directory.path(), on_disk(pruned));
    EXPECT_EQ(without->prompts(), nullptr);
    EXPECT_EQ(without->plan().disk.total(), 0u);
}

}  // namespace
