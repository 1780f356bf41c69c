// SPDX-License-Identifier: Apache-2.0
// Engines on a GPU, with the host in its place: against the formula in double precision and against the processor's
// engines, in all the ways in which steps are put together.
// rows: 41 42 44 46 64
// labels: cuda_host slow
// timeout: 600
#include <gtest/gtest.h>
#include <support/emulated_gpu.hpp>
#include <support/expect_error.hpp>
#include <support/temporary_directory.hpp>
#include <support/tiny_engine.hpp>

#include <bit>
#include <map>
#include <numeric>

namespace {

namespace kv = zse::kv;
using support::emulated_gpu;
using support::emulated_invariant_gpu;
using support::Tiny;
using support::TinySpec;
using zse::Limits;
using zse::exec::gpu::EmulatedRuntime;
using zse::memory::Kind;
using zse::memory::Tier;

template <class... P>
using OnGpu = zse::Engine<P..., emulated_gpu>;

/// Heads of 64, as the kernels of flash attention have them.
TinySpec shape() {
    TinySpec spec;
    spec.layers = 2;
    spec.hidden = 96;
    spec.heads = 4;
    spec.kv_heads = 2;
    spec.head_dim = 64;
    spec.ffn = 160;
    spec.context = 1024;
    return spec;
}
const Tiny& tiny() {
    static const Tiny model(shape());
    return model;
}

/// An engine with the runtime on which it lies.
template <class Engine>
struct Opened {
    std::shared_ptr<EmulatedRuntime> device = std::make_shared<EmulatedRuntime>();
    std::unique_ptr<zse::AnyEngine> engine;

    explicit Opened(const Limits& limits, const Tiny& model = tiny(), zse::engine::Options options = {}) {
        options.device = device;
        engine = model.open<Engine>(limits, options);
    }
};

struct Answers {
    std::map<zse::engine::RequestId, std::vector<std::int32_t>> tokens;
    std::vector<std::vector<float>> rows;  ///< of the request that is watched
};

/// Sequences of different lengths, so that the batch shrinks to one; the second is watched.
Answers answers(zse::AnyEngine& engine, std::uint32_t sequences, std::uint32_t prompt,
                float temperature = 0) {
    Answers result;
    for (std::uint32_t i = 0; i < sequences; ++i) {
        zse::AnyEngine::Request request;
        request.tokens = support::tiny_prompt(i, prompt + 5 * i);
        request.max_tokens = 4 + 3 * i;
        request.ignore_end = true;
        request.sampling = {.temperature = temperature, .top_k = 20, .top_p = 0.95f, .seed = i};
        if (i == 1) {
            request.observe = [&](std::uint32_t, std::span<const float> row) {
                result.rows.emplace_back(row.begin(), row.end());
            };
        }
        engine.submit(std::move(request));
    }
    while (!engine.idle()) {
        for (const auto& event : engine.step()) {
            if (event.token >= 0) result.tokens[event.id].push_back(event.token);
            EXPECT_NE(event.finish, zse::engine::Finish::failed);
        }
    }
    return result;
}

// Products are exact up to a rounding of activations to 2 x 11 bits and of attention's weights to 11 bits, whose errors
// are independent from token to token: 5e-3 of the spread is ten times what comes out, and any error of formula or layout
// gives more than a tenth of the spread.
TEST(CudaEngine, EveryFormatAgreesWithTheFormula) {
    using Type = zse::io::GgmlType;
    for (const Type type : {Type::f32, Type::f16, Type::bf16, Type::q8_0, Type::q4_0, Type::q4_1}) {
        TinySpec spec = shape();
        spec.type = type;
        spec.embedding = type == Type::q4_0 ? Type::q8_0 : type;
        spec.output = type;
        spec.tied = type == Type::q8_0;
        const Tiny model(spec);
        Opened<OnGpu<kv::f16>> opened({.context = 64, .step_tokens = 32, .output_rows = 8}, model);
        const std::vector<std::int32_t> tokens = support::tiny_prompt(1, 40);
        const auto rows = support::all_logits(*opened.engine, tokens);
        const auto expected = support::NaiveLlama(model).logits(tokens);
        ASSERT_EQ(rows.size(), tokens.size());
        for (std::size_t i = 0; i < tokens.size(); ++i) {
            EXPECT_LT(support::share_of_spread(rows[i], expected[i]), 5e-3)
                << static_cast<int>(type) << " row " << i;
        }
    }
}

template <class Kv, class Attention = zse::attention::flash<>>
void expect_like_the_processor(double tolerance, bool same_tokens = true) {
    const Limits limits{.context = 128, .batch = 3, .step_tokens = 24, .output_rows = 3};
    Opened<OnGpu<Kv, Attention>> gpu(limits);
    const auto cpu = tiny().open<zse::Engine<Kv>>(limits);
    const Answers theirs = answers(*cpu, 3, 30);
    const Answers ours = answers(*gpu.engine, 3, 30);
    if (same_tokens) {
        EXPECT_EQ(ours.tokens, theirs.tokens);
    }
    ASSERT_EQ(ours.rows.size(), theirs.rows.size());
    for (std::size_t i = 0; i < ours.rows.size(); ++i) {
        EXPECT_LT(support::share_of_spread(ours.rows[i], theirs.rows[i]), tolerance) << "row " << i;
    }
}

// The same codes in the pages but for values that lie on the edge between two, which another order of sums moves: a step
// of int4 is 1/15 of a group's range, so near ties may go the other way there.
TEST(CudaEngine, EveryKvCodecGivesTheTokensOfTheProcessor) {
    expect_like_the_processor<kv::f16>(5e-3);
    expect_like_the_processor<kv::fp8<32>>(2e-2);
    expect_like_the_processor<kv::int8<32>>(1e-2);
    expect_like_the_processor<kv::int4<32, kv::plain>>(5e-2, false);
    expect_like_the_processor<kv::pair<kv::int8<32>, kv::int4<32>>>(5e-2, false);
}
TEST(CudaEngine, TheReferencePolicyGivesTheTokensOfTheProcessor) {
    expect_like_the_processor<kv::f16, zse::attention::reference>(5e-3);
    expect_like_the_processor<kv::int4<32>, zse::attention::reference>(5e-2, false);
}

// A graph is what it replays: the same kernels on the same buffers. Three sequences run padded to four.
TEST(CudaEngine, GraphsGiveTheBitsOfStepsThatAreEnqueued) {
    Limits limits{.context = 128, .batch = 4, .step_tokens = 16, .output_rows = 4};
    Opened<OnGpu<kv::f16>> graphs(limits);
    limits.enforce_eager = true;
    Opened<OnGpu<kv::f16>> eager(limits);
    for (const float temperature : {0.0f, 0.8f}) {
        const Answers a = answers(*graphs.engine, 4, 20, temperature);
        const Answers b = answers(*eager.engine, 4, 20, temperature);
        EXPECT_EQ(a.tokens, b.tokens);
        EXPECT_EQ(a.rows, b.rows);
    }
    EXPECT_GT(graphs.engine->counters().replayed_steps, 10u);
    EXPECT_EQ(eager.engine->counters().replayed_steps, 0u);
}

// A batch of five has no bucket of its own where six run at most, and falls back with a count.
TEST(CudaEngine, ShapesWithoutABucketFallBack) {
    Opened<OnGpu<kv::f16>> opened({.context = 64, .batch = 6, .step_tokens = 12, .output_rows = 6});
    for (std::uint32_t i = 0; i < 5; ++i) {
        zse::AnyEngine::Request request;
        request.tokens = support::tiny_prompt(i, 2);
        request.max_tokens = 4;
        request.ignore_end = true;
        opened.engine->submit(std::move(request));
    }
    support::run_to_end(*opened.engine);
    EXPECT_EQ(opened.engine->counters().replayed_steps, 0u);
    EXPECT_GE(opened.engine->counters().eager_steps, 4u);
}

TEST(CudaEngine, InvariantNumericsGiveTheSameBitsAloneAndAmongOthers) {
    const auto run = []<class E>(std::type_identity<E>, std::uint32_t batch, std::uint32_t step_tokens) {
        Opened<E> opened({.context = 128, .batch = batch, .step_tokens = step_tokens, .output_rows = batch});
        return answers(*opened.engine, 3, 30).rows;
    };
    const std::type_identity<zse::Engine<kv::int8<32>, emulated_invariant_gpu>> invariant;
    const auto alone = run(invariant, 1, 7);
    EXPECT_EQ(alone, run(invariant, 3, 40));
    EXPECT_EQ(alone, run(invariant, 2, 100));
    const std::type_identity<OnGpu<kv::int8<32>>> fast;
    EXPECT_NE(run(fast, 1, 7), run(fast, 2, 100)) << "this test compares nothing";
}

// Tokens are chosen on the device unless their logits are watched, which must not change them.
TEST(CudaEngine, TheDeviceChoosesTheTokensThatTheHostWould) {
    Opened<OnGpu<kv::f16>> opened({.context = 128, .batch = 2, .output_rows = 2});
    const auto run = [&](bool watched, float temperature) {
        zse::AnyEngine::Request request;
        request.tokens = support::tiny_prompt(3, 12);
        request.max_tokens = 10;
        request.ignore_end = true;
        request.sampling = {
            .temperature = temperature, .top_k = 40, .top_p = 0.9f, .min_p = 0.01f, .seed = 5};
        if (watched) request.observe = [](std::uint32_t, std::span<const float>) {};
        opened.engine->submit(std::move(request));
        std::vector<std::int32_t> tokens;
        while (!opened.engine->idle()) {
            for (const auto& event : opened.engine->step()) {
                if (event.token >= 0) tokens.push_back(event.token);
            }
        }
        return tokens;
    };
    for (const float temperature : {0.0f, 1.5f}) EXPECT_EQ(run(false, temperature), run(true, temperature));
    EXPECT_NE(run(false, 0.0f), run(false, 1.5f));
}

TEST(CudaEngine, WhatIsPlannedIsHeldAndGivenBack) {
    const Limits limits{.context = 256, .batch = 2, .output_rows = 2, .gpu_layers = 1};
    auto device = std::make_shared<EmulatedRuntime>();
    zse::engine::Options options;
    options.device = device;
    {
        const auto ledger = std::make_shared<zse::memory::Ledger>();
        const auto engine = tiny().open<OnGpu<kv::int8<32>>>(limits, options, ledger);
        answers(*engine, 2, 10);
        const zse::memory::Plan& plan = engine->plan();
        for (const Tier tier : zse::memory::all_tiers)
            EXPECT_EQ(ledger->held(tier), plan[tier]) << name(tier);
        EXPECT_EQ(device->taken(Tier::gpu), plan.gpu.total());
        EXPECT_GT(plan.gpu[Kind::weights], 0u);
        EXPECT_GT(plan.gpu[Kind::kv], 0u);
        EXPECT_GT(plan.gpu[Kind::staging], 0u) << "windows of the layer that the gpu tier does not hold";
        EXPECT_EQ(plan.host[Kind::kv], 0u);
    }
    EXPECT_EQ(device->taken(Tier::gpu), 0u);
    EXPECT_EQ(device->taken(Tier::host), 0u);
}

// Layers that the device does not hold come through its windows: no other tokens, whatever their number.
TEST(CudaEngine, LayersAreStreamedFromTheHost) {
    TinySpec spec = shape();
    spec.layers = 5;
    const Tiny model(spec);
    const auto run = [&](std::uint32_t gpu_layers) {
        Opened<OnGpu<kv::f16>> opened(
            {.context = 128, .batch = 2, .output_rows = 2, .gpu_layers = gpu_layers}, model);
        return answers(*opened.engine, 2, 6);
    };
    const Answers whole = run(5);
    for (const std::uint32_t gpu_layers : {4u, 2u, 1u}) {
        const Answers some = run(gpu_layers);
        EXPECT_EQ(some.tokens, whole.tokens) << gpu_layers;
        EXPECT_EQ(some.rows, whole.rows) << gpu_layers;
    }
}

// Pages that leave the device are read where they lie, or brought back; no bit of them changes.
TEST(CudaEngine, PagesSpillToTheHostAndToDisk) {
    const support::TemporaryDirectory directory;
    zse::engine::Options options;
    options.disk_directory = directory.path();
    const auto run = [&](std::uint64_t host, std::uint64_t disk) {
        Limits limits{.context = 160, .batch = 1, .step_tokens = 16, .output_rows = 1};
        limits.kv_host_tokens = host;
        limits.kv_disk_tokens = disk;
        Opened<OnGpu<kv::int8<32>>> opened(limits, tiny(), options);
        Answers result;
        zse::AnyEngine::Request request;
        request.tokens = support::tiny_prompt(4, 130);
        request.max_tokens = 6;
        request.ignore_end = true;
        request.observe = [&](std::uint32_t, std::span<const float> row) {
            result.rows.emplace_back(row.begin(), row.end());
        };
        opened.engine->submit(std::move(request));
        support::run_to_end(*opened.engine);
        const kv::TierTraffic traffic = opened.engine->tier_traffic();
        EXPECT_EQ(traffic.spilled_to_host != 0, host != 0);
        EXPECT_EQ(traffic.spilled_to_disk != 0, disk != 0);
        return result;
    };
    const Answers whole = run(0, 0);
    EXPECT_EQ(run(100, 0).rows, whole.rows);
    EXPECT_EQ(run(40, 80).rows, whole.rows);
}

/// A device whose stream fails at a copy.
class FailingRuntime final : public zse::exec::gpu::Runtime {
public:
    explicit FailingRuntime(int copies) : left_(copies) {}
    [[nodiscard]] std::string name() const override { return inner_.name(); }
    [[nodiscard]] unsigned multiprocessors() const noexcept override { return inner_.multiprocessors(); }
    [[nodiscard]] Memory memory() const override { return inner_.memory(); }
    std::byte* take(Tier tier, zse::Bytes bytes) override { return inner_.take(tier, bytes); }
    void give_back(Tier tier, std::byte* base, zse::Bytes bytes) noexcept override {
        inner_.give_back(tier, base, bytes);
    }
    using Stream = zse::exec::gpu::Stream;
    using Event = zse::exec::gpu::Event;
    using Graph = zse::exec::gpu::Graph;
    Stream make_stream() override { return inner_.make_stream(); }
    void destroy(Stream& stream) noexcept override { inner_.destroy(stream); }
    void synchronise(Stream& stream) noexcept override { inner_.synchronise(stream); }
    void copy(Stream& stream, void* to, const void* from, zse::Bytes bytes) noexcept override {
        if (armed && --left_ == 0) stream.fail(700, "an illegal memory access was encountered");
        inner_.copy(stream, to, from, bytes);
    }
    void fill_zero(Stream& stream, void* to, zse::Bytes bytes) noexcept override {
        inner_.fill_zero(stream, to, bytes);
    }
    Event make_event() override { return inner_.make_event(); }
    void destroy(Event event) noexcept override { inner_.destroy(event); }
    void record(Stream& stream, Event event) noexcept override { inner_.record(stream, event); }
    void wait(Stream& stream, Event event) noexcept override { inner_.wait(stream, event); }
    void wait_on_host(Stream& stream, Event event) noexcept override { inner_.wait_on_host(stream, event); }
    void begin_capture(Stream& stream) noexcept override { inner_.begin_capture(stream); }
    Graph end_capture(Stream& stream) noexcept override { return inner_.end_capture(stream); }
    void launch(Stream& stream, Graph graph) noexcept override { inner_.launch(stream, graph); }
    void destroy(Graph graph) noexcept override { inner_.destroy(graph); }

    bool armed = false;

private:
    EmulatedRuntime inner_;
    int left_;
};

TEST(CudaEngine, AStickyErrorClosesTheEngineAndNothingElse) {
    const auto device = std::make_shared<FailingRuntime>(5);
    zse::engine::Options options;
    options.device = device;
    const auto engine = tiny().open<OnGpu<kv::f16>>({.context = 64, .batch = 1, .output_rows = 1}, options);
    device->armed = true;
    zse::AnyEngine::Request request;
    request.tokens = support::tiny_prompt(1, 8);
    request.max_tokens = 20;
    request.ignore_end = true;
    engine->submit(request);
    support::expect_error([&] { support::run_to_end(*engine); }, zse::ErrorCode::internal,
                          {"an illegal memory access was encountered"});
    EXPECT_TRUE(engine->idle());
    engine->submit(request);
    support::expect_error([&] { engine->step(); }, zse::ErrorCode::internal, {"this engine is closed"});
}

TEST(CudaEngine, WhatOnlyTheProcessorDoesIsRefused) {
    support::expect_error(
        [] { (void)tiny().open<OnGpu<kv::f16>>({.context = 4096, .kv_recent = 1024, .kv_heavy = 1024}); },
        zse::ErrorCode::unsupported, {"heavy tokens"});
    support::expect_error(
        [] { (void)tiny().open<OnGpu<kv::sliding<kv::f16, kv::int8<32>>>>({.context = 4096}); },
        zse::ErrorCode::unsupported, {"a second precision for old tokens"});
}

}  // namespace
