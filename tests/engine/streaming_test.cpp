// SPDX-License-Identifier: Apache-2.0
// Layers in the disk tier: the bits of a model that is resident, what is planned is held, and counters that prove it.
// rows: 44 49 56
// timeout: 300
#include <gtest/gtest.h>
#include <support/counted_new.hpp>
#include <support/expect_error.hpp>
#include <support/nameless_files.hpp>
#include <support/temporary_directory.hpp>
#include <support/tiny_engine.hpp>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <zse/model/models.hpp>

#include <bit>
#include <tuple>

namespace {

using support::Tiny;
using zse::Bytes;
using zse::Limits;
using zse::memory::Kind;
using zse::memory::Tier;

using Streamed = zse::Engine<zse::tiers::chain<zse::tiers::arena, zse::tiers::host, zse::tiers::disk>>;

constexpr std::uint32_t layers = 6;

const Tiny& tiny() {
    static const Tiny model({.layers = layers, .type = zse::io::GgmlType::q4_1});
    return model;
}

struct Answers {
    std::vector<std::int32_t> tokens;
    std::vector<std::uint32_t> bits;  ///< of all logits
    zse::engine::Counters counters;
};

/// Three sequences of which one is watched, so that batches of several sizes and prompts in chunks occur.
Answers run(zse::AnyEngine& engine) {
    Answers result;
    for (std::uint32_t i = 0; i < 3; ++i) {
        zse::AnyEngine::Request request;
        request.tokens = support::tiny_prompt(i, 30 + 11 * i);
        request.max_tokens = 20 + 5 * i;
        request.ignore_end = true;
        request.sampling = {.temperature = 0.8f, .seed = i};
        if (i == 1) {
            request.observe = [&](std::uint32_t, std::span<const float> row) {
                for (const float value : row) result.bits.push_back(std::bit_cast<std::uint32_t>(value));
            };
        }
        engine.submit(std::move(request));
    }
    while (!engine.idle()) {
        for (const auto& event : engine.step()) {
            if (event.token >= 0) result.tokens.push_back(event.token);
        }
    }
    result.counters = engine.counters();
    return result;
}

Limits limits_of(std::uint32_t disk_layers, std::uint32_t gpu_layers = 0, std::uint32_t threads = 1) {
    return {.context = 128,
            .batch = 3,
            .step_tokens = 24,
            .threads = threads,
            .gpu_layers = gpu_layers,
            .disk_layers = disk_layers};
}

TEST(Streaming, TokensAndLogitsAreThoseOfAResidentModel) {
    const Answers expected = run(*tiny().open<Streamed>(limits_of(0)));
    ASSERT_EQ(expected.tokens.size(), 20 + 25 + 30u);
    EXPECT_EQ(expected.counters.streamed, zse::model::RingCounts{});
    for (const std::uint32_t threads : {1u, 2u}) {
        for (const bool eager : {false, true}) {
            for (const auto& [disk, gpu] : {std::pair{1u, 0u}, {2u, 4u}, {3u, 0u}, {4u, 1u}, {layers, 0u}}) {
                Limits limits = limits_of(disk, gpu, threads);
                limits.enforce_eager = eager;
                const auto engine = tiny().open<Streamed>(limits);
                const Answers streamed = run(*engine);
                SCOPED_TRACE(zse::text(disk, " layers on disk, ", gpu, " in the gpu tier, ", threads,
                                       " threads", eager ? ", eager" : ""));
                EXPECT_EQ(streamed.tokens, expected.tokens);
                EXPECT_EQ(streamed.bits, expected.bits);
                EXPECT_EQ(streamed.counters.replayed_steps == 0, eager);
                // Every layer that has no slot to itself is read once a step, and two before the first.
                const auto& counts = streamed.counters.streamed;
                const std::uint64_t each = disk <= 2 ? 0 : (disk == 3 ? 2 : disk);
                EXPECT_EQ(counts.fetches, std::min(disk, 2u) + each * streamed.counters.steps);
                EXPECT_EQ(counts.bytes * disk, counts.fetches * engine->plan().disk[Kind::weights]);
                EXPECT_EQ(counts.hits + counts.misses, disk * streamed.counters.steps);
            }
        }
    }
}

TEST(Streaming, AlsoWithTheOutputMatrixAndTheEmbedding) {
    // A vocabulary that makes more than one tile, and does not fill its last group of rows.
    for (const bool tied : {true, false}) {
        const Tiny model({.layers = 4, .hidden = 128, .vocab = 9001, .tied = tied});
        const Answers expected = run(*model.open<Streamed>(limits_of(0)));
        for (const std::uint32_t threads : {1u, 2u}) {
            for (const std::uint32_t disk : {0u, 1u, 4u}) {
                for (const bool eager : {false, true}) {
                    Limits limits = limits_of(disk, 0, threads);
                    limits.disk_output = true;
                    limits.enforce_eager = eager;
                    const auto plan = Streamed::plan(model.spec, limits);
                    const auto engine = model.open<Streamed>(limits);
                    SCOPED_TRACE(zse::text(disk, " layers on disk, ", threads, " threads",
                                           tied ? ", tied" : "", eager ? ", eager" : ""));
                    const Answers streamed = run(*engine);
                    EXPECT_EQ(streamed.tokens, expected.tokens);
                    EXPECT_EQ(streamed.bits, expected.bits);
                    for (const Tier tier : zse::memory::all_tiers) {
                        EXPECT_EQ(engine->ledger().held(tier), plan[tier]) << zse::memory::name(tier);
                        EXPECT_EQ(engine->ledger().reserved(tier), plan[tier]);
                    }
                    EXPECT_LE(plan.host[Kind::weights], (4 - disk) * zse::KiB(300) + zse::KiB(1))
                        << "no part of the vocabulary stays";
                    EXPECT_LT(plan.host[Kind::staging], zse::MiB(3));
                    EXPECT_GT(plan.disk[Kind::weights], (tied ? 1u : 2u) * zse::MB(4));
                    EXPECT_EQ(streamed.counters.streamed.rows, streamed.counters.rows);
                    EXPECT_GT(streamed.counters.streamed.fetches, streamed.counters.eager_steps);
                }
            }
        }
    }
    Limits limits = limits_of(0, 2);
    limits.disk_output = true;
    const auto with_gpu = Streamed::plan(tiny().spec, limits);
    EXPECT_EQ(with_gpu.disk.total(), 0u) << "the output matrix lies with the last layers";
}

TEST(Streaming, OtherPrecisionsStreamToo) {
    const auto same = [&]<class E>(std::type_identity<E>, const Tiny& model, Limits limits) {
        limits.disk_layers = 0;
        const Answers expected = run(*model.open<E>(limits));
        limits.disk_layers = 4;
        for (const bool output : {false, true}) {
            limits.disk_output = output;
            const auto engine = model.open<E>(limits);
            const Answers streamed = run(*engine);
            EXPECT_EQ(streamed.tokens, expected.tokens);
            EXPECT_EQ(streamed.bits, expected.bits);
            EXPECT_GT(streamed.counters.streamed.fetches, streamed.counters.steps);
        }
    };
    using Tiers = zse::tiers::chain<zse::tiers::host, zse::tiers::disk>;
    const Tiny untied({.layers = layers, .rope_freqs = std::vector<float>(8, 1.5f)});
    const Tiny tied({.layers = layers, .tied = true, .type = zse::io::GgmlType::q8_0});
    same(std::type_identity<zse::Engine<Tiers, zse::weights::nf4<>, zse::kv::int8<16>>>{}, untied,
         limits_of(0, 0, 2));
    same(std::type_identity<zse::Engine<Tiers>>{}, tied, limits_of(0, 0, 2));
    same(std::type_identity<zse::Engine<Tiers>>{}, untied, limits_of(0));
}

TEST(Streaming, WhatIsHeldIsWhatWasPlannedInEveryTier) {
    for (const std::uint32_t disk : {1u, 2u, 3u, layers}) {
        for (const std::uint32_t gpu : {0u, 3u}) {
            const Limits limits = limits_of(disk, gpu, 2);
            const auto plan = Streamed::plan(tiny().spec, limits);
            const auto before = support::nameless_files();
            const auto engine = tiny().open<Streamed>(limits);
            EXPECT_EQ(engine->plan(), plan);
            run(*engine);
            for (const Tier tier : zse::memory::all_tiers) {
                EXPECT_EQ(plan[tier], engine->ledger().held(tier));
                EXPECT_EQ(plan[tier], engine->ledger().reserved(tier));
            }
            EXPECT_EQ(engine->ledger().peak(Tier::disk)[Kind::weights], plan.disk[Kind::weights]);
            EXPECT_EQ(engine->ledger().peak(Tier::host)[Kind::staging], plan.host[Kind::staging]);
            // And what the file system says.
            Bytes blocks = 0;
            for (const auto& file : support::nameless_files()) {
                struct stat status {};
                ASSERT_EQ(::stat(file.c_str(), &status), 0);
                blocks += static_cast<Bytes>(status.st_blocks) * 512;
            }
            EXPECT_EQ(support::nameless_files().size(), before.size() + 1);
            EXPECT_EQ(blocks, plan.disk.total());
        }
    }
}

TEST(Streaming, APlanMovesTheLayersBytesToTheDiskTier) {
    const auto plan = [](std::uint32_t disk) {
        return Streamed::plan(zse::models::smollm2_135m, {.context = 512, .disk_layers = disk});
    };
    const auto resident = plan(0);
    EXPECT_EQ(resident.disk.total(), 0u);
    EXPECT_EQ(resident.host[Kind::staging], 0u);
    const auto ten = plan(10);
    const auto twenty = plan(20);
    const Bytes layer = (resident.host[Kind::weights] - ten.host[Kind::weights]) / 10;
    EXPECT_EQ(ten.host[Kind::weights] - twenty.host[Kind::weights], 10 * layer);
    const Bytes image = zse::round_up(layer, 4096);
    EXPECT_EQ(ten.disk[Kind::weights], 10 * image);
    EXPECT_EQ(ten.host[Kind::staging], 2 * image);
    EXPECT_EQ(plan(1).host[Kind::staging], image);
    EXPECT_EQ(ten.host[Kind::kv], resident.host[Kind::kv]) << "keys and values stay where steps compute";
    EXPECT_EQ(plan(99), plan(30)) << "there are no more layers";
}

TEST(Streaming, NothingIsAllocatedBetweenTokens) {
    for (const bool eager : {false, true}) {
        Limits limits = limits_of(layers, 0, 2);
        limits.enforce_eager = eager;
        limits.disk_output = !eager;
        const auto engine = tiny().open<Streamed>(limits);
        zse::AnyEngine::Request request;
        request.tokens = support::tiny_prompt(1, 20);
        request.ignore_end = true;
        engine->submit(std::move(request));
        while (engine->counters().generated_tokens < 3) engine->step();
        const std::size_t before = support::allocations.load();
        for (int i = 0; i < 60; ++i) engine->step();
        EXPECT_EQ(support::allocations.load() - before, 0u);
    }
}

/// Overwrites what the disk tier holds, and puts it back.
class Damage {
public:
    explicit Damage(const std::filesystem::path& file)
        : file_(::open(file.c_str(), O_RDWR | O_CLOEXEC)), bytes_(std::filesystem::file_size(file)) {
        std::ignore = ::pread(file_, bytes_.data(), bytes_.size(), 0);
        const std::vector<std::byte> noise(bytes_.size(), std::byte{0x5a});
        std::ignore = ::pwrite(file_, noise.data(), noise.size(), 0);
    }
    ~Damage() {
        std::ignore = ::pwrite(file_, bytes_.data(), bytes_.size(), 0);
        ::close(file_);
    }
    [[nodiscard]] bool done() const noexcept { return file_ >= 0; }

private:
    int file_;
    std::vector<std::byte> bytes_;
};

// Bytes that are not those that were written end the requests of the step with an error, and give no token. Afterwards
// the engine answers as ever.
void wrong_bytes_give_no_token(Limits limits) {
    const auto prompt = support::tiny_prompt(3, 30);
    limits.prompt_cache = true;
    const auto expected = support::greedy(*tiny().open<Streamed>(limits_of(0)), prompt, 40);
    const auto before = support::nameless_files();
    const auto engine = tiny().open<Streamed>(limits);
    const auto files = support::nameless_files();
    ASSERT_EQ(files.size(), before.size() + 1);
    for (const int steps : {1, 4, 9}) {  // in a prompt, as it is captured, and captured
        zse::AnyEngine::Request request;
        request.tokens = prompt;
        request.max_tokens = 40;
        request.ignore_end = true;
        engine->submit(std::move(request));
        std::vector<std::int32_t> heard;
        const auto step = [&] {
            for (const auto& event : engine->step()) {
                if (event.token >= 0) heard.push_back(event.token);
            }
        };
        for (int i = 0; i < steps; ++i) step();
        {
            const Damage damage(files.back());
            ASSERT_TRUE(damage.done());
            support::expect_error(
                [&] {
                    for (int i = 0; i < 3; ++i) step();
                },
                zse::ErrorCode::unreadable, {"weights", "disk tier", "checksum"});
        }
        EXPECT_TRUE(engine->idle());
        EXPECT_EQ(engine->page_use().used, 0u);
        ASSERT_LE(heard.size(), expected.size());
        EXPECT_TRUE(std::equal(heard.begin(), heard.end(), expected.begin()));
        EXPECT_EQ(support::greedy(*engine, prompt, 40), expected);
    }
    EXPECT_GT(engine->counters().streamed.retries, 0u);
}

TEST(Streaming, WrongBytesOnDiskGiveAnErrorAndNoToken) {
    wrong_bytes_give_no_token(limits_of(layers));
    Limits limits = limits_of(0);
    limits.disk_output = true;  // two tiles that stay in their slots: rows of the embedding are what is read
    wrong_bytes_give_no_token(limits);
}

TEST(Streaming, RefusalsSayWhatToDo) {
    using Plain = zse::Engine<zse::tiers::chain<zse::tiers::arena, zse::tiers::host>>;
    support::expect_error([] { std::ignore = Plain::plan(tiny().spec, limits_of(1)); }, zse::ErrorCode::usage,
                          {"disk tier", "tiers::disk"});
    zse::engine::Options options;
    options.disk_directory = "/no/such/directory";
    support::expect_error([&] { std::ignore = tiny().open<Streamed>(limits_of(3), options); },
                          zse::ErrorCode::usage, {"/no/such/directory", "directory"});
    const auto plan = Streamed::plan(tiny().spec, limits_of(3));
    const auto ledger =
        std::make_shared<zse::memory::Ledger>(zse::memory::Caps{.disk = plan.disk.total() - 1});
    support::expect_error([&] { std::ignore = tiny().open<Streamed>(limits_of(3), {}, ledger); },
                          zse::ErrorCode::out_of_memory, {"tier disk", "weights"});
    for (const Tier tier : zse::memory::all_tiers) EXPECT_EQ(ledger->held(tier).total(), 0u);
}

}  // namespace
