// SPDX-License-Identifier: Apache-2.0
// The steps of an engine whose forward pass a device computes: what is uploaded, enqueued, captured and brought back. Knows
// neither the codecs nor whether the device is a GPU.
#pragma once

#include <zse/attention/cuda/calls.hpp>
#include <zse/engine/any_engine.hpp>
#include <zse/exec/cuda/executor.hpp>
#include <zse/model/device_layout.hpp>
#include <zse/model/device_windows.hpp>
#include <zse/model/llama.hpp>

#include <algorithm>
#include <functional>
#include <memory>
#include <numeric>
#include <vector>

namespace zse::inline v1 {
namespace engine {

/// The launches that an engine's policies bind.
struct DeviceTables {
    const kernels::RowKernels* rows = nullptr;
    std::vector<const attention::cuda::CacheLaunches*> caches;  ///< of each pair of codecs
    const sampling::cuda::SamplingLaunches* sampling = nullptr;
};

/// Weights as a forward pass sees them, whatever policy loaded them.
struct DeviceWeights {
    const model::ModelWeights* model = nullptr;
    std::span<const model::LayerWeights> layers;
    std::span<const kernels::Matrix> tiles;
    model::WeightRing* disk = nullptr;
    model::DeviceWindows* host = nullptr;

    [[nodiscard]] const model::ModelWeights& top() const noexcept { return *model; }
    [[nodiscard]] const model::LayerWeights& layer(std::uint32_t index) const noexcept {
        return layers[index];
    }
    [[nodiscard]] std::span<const kernels::Matrix> output_tiles() const noexcept { return tiles; }
    [[nodiscard]] model::WeightRing* ring() const noexcept { return disk; }
    [[nodiscard]] model::DeviceWindows* windows() const noexcept { return host; }
};

/// Everything but the loading of weights. A step uploads what describes it, runs the forward pass (from a graph where all
/// sequences generate), and brings its logits back. Graphs are captured at open, and nothing is allocated
/// between steps.
template <class Attention>
class DeviceEngine : public AnyEngine {
public:
    ~DeviceEngine() override {
        runtime().synchronise(stream_.get());
        for (const exec::gpu::Graph graph : graphs_) {
            if (graph.handle != nullptr) runtime().destroy(graph);
        }
    }

    /// What the driver takes of the device beside the arenas, measured at open.
    [[nodiscard]] std::optional<system::DriverBytes> driver_bytes() const noexcept override {
        return driver_;
    }

protected:
    DeviceEngine(const ModelSpec& spec, std::shared_ptr<const Vocabulary> vocabulary,
                 const memory::Plan& plan, const model::StateGroups& groups, const Options& options,
                 const Identity& identity, DeviceTables tables)
        : AnyEngine(spec, std::move(vocabulary), plan, groups, options, identity),
          runtime_(options.device),
          stream_(*runtime_),
          tables_(std::move(tables)),
          layout_(groups, options.limits),
          team_(options.limits.threads),
          scratch_(arena(memory::Tier::gpu, memory::Kind::scratch)),
          device_logits_(arena(memory::Tier::gpu, memory::Kind::logits)),
          device_step_(arena(memory::Tier::gpu, memory::Kind::control)),
          pinned_(arenas().take(memory::Tier::host, memory::Kind::staging, layout_.host_bytes())),
          uploader_(*runtime_, stream_.get(), pinned_.bytes().subspan(layout_.load_at()),
                    model::DeviceLayout::load_window_bytes, model::DeviceLayout::load_windows),
          executor_(*runtime_, stream_.get(), scratch_.data()),
          places_(control().template take<model::LayerPlace>(spec.layers)),
          graphs_(model::ControlLayout::buckets(limits())) {
        const Bytes workspace = plan.scratch_per_thread;
        stream_.get().set_multiprocessors(runtime_->multiprocessors());
        stream_.get().set_workspace(scratch_.data() + scratch_.size() - workspace, workspace);
    }

    [[nodiscard]] exec::gpu::Runtime& runtime() const noexcept { return *runtime_; }
    [[nodiscard]] exec::gpu::Stream& stream() noexcept { return stream_.get(); }
    [[nodiscard]] exec::Team& team() noexcept { return team_; }
    [[nodiscard]] model::Uploader& uploader() noexcept { return uploader_; }
    [[nodiscard]] std::span<model::LayerPlace> places() const noexcept { return places_; }
    /// Weights are there: captures a step for each bucket of sequences. Where the driver makes no graph, steps of that
    /// size are enqueued one by one.
    void start(const DeviceWeights& weights) {
        weights_ = weights;
        if (streams()) graphs_.clear();
        for (std::size_t i = 0; i < graphs_.size(); ++i) {
            const Bytes before = runtime().memory().free;
            const std::size_t rows = std::size_t{1} << i;
            // Tokens are always chosen, so that one graph serves requests of any kind.
            runtime().begin_capture(stream());
            enqueue(described(rows, rows, rows, 1), true);
            graphs_[i] = runtime().end_capture(stream());
            const Bytes after = runtime().memory().free;
            driver_.per_graph = std::max(driver_.per_graph, before - std::min(before, after));
        }
        runtime().synchronise(stream());
        expect_device();
        const auto [free, total] = runtime().memory();
        // What others hold counts as the driver's: nobody else can tell them apart.
        driver_.context = total - std::min(total, free + ledger().held(memory::Tier::gpu).total() +
                                                      driver_.per_graph * graphs_.size());
    }
    /// Throws what the device failed with, if it did.
    void expect_device() {
        const exec::gpu::Stream& stream = stream_.get();
        const bool copies = weights_.host != nullptr && weights_.host->copies().failed();
        if (!stream.failed() && !copies) return;
        throw Error(ErrorCode::internal,
                    text("the GPU failed: ", stream.failed() ? stream.why() : weights_.host->copies().why(),
                         "; this engine is closed: open the model again"));
    }

private:
    /// The cache of every layer, for a forward pass.
    struct Cache {
        DeviceEngine& engine;
        const model::Batch& batch;

        [[nodiscard]] kv::LayerState layer(std::uint32_t layer) const noexcept {
            const auto [number, index] = engine.places_[layer];
            const model::StateGroup& group = engine.groups().groups[number];
            const kv::PagePool& pool = engine.pages().groups()[number].pool;
            kv::LayerState state;
            state.rows = batch.rows;
            state.rows.segments = {engine.template at<kv::Segment>(engine.layout_.segments[number]),
                                   batch.rows.segments.size()};
            state.window = group.keeping.window;
            state.cache.pages = pool.layer(group.layout, index);
            // The device has a table of its own of where pages lie.
            if (pool.tiers() != nullptr) {
                state.cache.pages.places = engine.template at<kv::PagePlace>(engine.layout_.places[number]);
            }
            state.cache.append = engine.tables_.caches[group.codecs.recent]->append;
            state.tiers = group.spread.disk != 0 ? pool.tiers() : nullptr;
            state.index = index;
            return state;
        }
        [[nodiscard]] attention::LayerKernels kernels(std::uint32_t layer) const noexcept {
            const model::StateGroup& group = engine.groups().groups[engine.places_[layer].group];
            attention::LayerKernels kernels;
            kernels.recent.device = engine.tables_.caches[group.codecs.recent];
            return kernels;
        }
    };

    /// An array of a step in the device.
    template <class T>
    [[nodiscard]] T* at(Bytes offset) const noexcept {
        return reinterpret_cast<T*>(device_step_.data() + offset);
    }

    void forward(const model::Batch& batch, float* logits) override {
        runtime().enter();
        expect_device();
        const bool generates = batch.most_rows == 1 && batch.output_rows.size() == batch.rows.rows;
        const std::size_t rows = generates && !graphs_.empty() && !streams() ? padded(batch.rows.rows) : 0;
        const bool chooses = prepare_choices();
        const model::Batch there = upload(batch, std::max(rows, batch.rows.rows));
        page_mover().join(stream());
        const std::uint32_t bucket = rows == 0 ? exec::Buckets::none : exec::Buckets::of(rows);
        if (bucket < graphs_.size() && graphs_[bucket].handle != nullptr) {
            runtime().launch(stream(), graphs_[bucket]);
            count_step(true);
        } else {
            enqueue(there, chooses);
            count_step(false);
        }
        const Bytes bytes = batch.output_rows.size() * spec().vocabulary * sizeof(float);
        if (chooses) {
            runtime().copy(stream(), pinned_.data() + layout_.chosen, at<std::byte>(layout_.chosen),
                           batch.output_rows.size() * sizeof(std::int32_t));
        }
        if (!chooses || std::ranges::any_of(asked(), [](const Asked& a) { return a.host; })) {
            runtime().copy(stream(), logits, device_logits_.data(), bytes);
        }
        runtime().synchronise(stream());
        chose_ = chooses;
        scratch_.uses(executor_.used() + stream().workspace_bytes());
        device_logits_.uses(bytes);
        finish_streaming(weights_.disk);
        expect_device();
    }

    /// Of the output rows, those whose tokens the device has chosen.
    [[nodiscard]] std::optional<std::int32_t> chosen(std::size_t output) const noexcept override {
        if (!chose_ || asked()[output].host || asked()[output].sampling == nullptr) return std::nullopt;
        return reinterpret_cast<const std::int32_t*>(pinned_.data() + layout_.chosen)[output];
    }
    /// Writes how tokens are chosen, before the upload; false where the host chooses all of them.
    bool prepare_choices() {
        auto* const to =
            reinterpret_cast<sampling::cuda::DeviceSampling*>(pinned_.data() + layout_.sampling_rows);
        bool any = false;
        for (std::size_t i = 0; i < limits().output_rows; ++i) {
            to[i] = {};
            if (i >= asked().size() || asked()[i].host || asked()[i].sampling == nullptr) continue;
            to[i] = sampling::cuda::device_sampling(*asked()[i].sampling, asked()[i].position);
            any = true;
        }
        return any && spec().vocabulary <= sampling::cuda::most_vocabulary;
    }

    void enqueue(const model::Batch& batch, bool chooses) {
        auto* const rows = reinterpret_cast<float*>(device_logits_.data());
        model::Llama<Attention>::forward(executor_, spec(), limits(), weights_, Cache{*this, batch}, batch,
                                         rows);
        if (!chooses) return;
        sampling::cuda::SampleCall call;
        call.logits = rows;
        call.stride = spec().vocabulary;
        call.rows = static_cast<std::uint32_t>(batch.output_rows.size());
        call.vocabulary = spec().vocabulary;
        call.params = at<sampling::cuda::DeviceSampling>(layout_.sampling_rows);
        call.tokens = at<std::int32_t>(layout_.chosen);
        call.workspace = stream().workspace() + exec::gpu::workspace_zeros;
        tables_.sampling->sample(stream(), call);
    }
    /// Whether the host has a part in a step, so that it cannot be captured.
    [[nodiscard]] bool streams() const noexcept {
        if (weights_.host != nullptr || weights_.disk != nullptr) return true;
        for (const model::StateGroup& group : groups().all()) {
            if (group.spread.disk != 0) return true;
        }
        return false;
    }
    /// Rows of the bucket in which a step of so many sequences runs; as many as there are where no bucket holds them.
    [[nodiscard]] std::size_t padded(std::size_t rows) const noexcept {
        std::size_t bucket = 1;
        while (bucket < rows) bucket *= 2;
        return bucket <= limits().batch && bucket <= exec::Buckets::largest ? bucket : rows;
    }

    /// Writes what describes the step to the device, and says where it is. Rows up to `rows` repeat the first one: they
    /// write the same bytes to the same places, and nobody asks for their logits.
    model::Batch upload(const model::Batch& batch, std::size_t rows) {
        std::byte* const host = pinned_.data();
        const std::size_t real = batch.rows.rows;
        const std::size_t sequences = batch.rows.segments.size();
        const bool invariant = tables_.rows->device->invariant;
        const std::size_t all_sequences = invariant ? rows : sequences + (rows - real);
        const auto repeat_first = [&](Bytes offset, const auto* values) {
            auto* const to = reinterpret_cast<std::remove_const_t<std::remove_pointer_t<decltype(values)>>*>(
                host + offset);
            std::fill(std::copy_n(values, real, to), to + rows, values[0]);
        };
        repeat_first(layout_.tokens, batch.tokens);
        repeat_first(layout_.positions, batch.rows.positions);
        // Rows that repeat are sequences of their own, and give logits.
        auto* const segment_of_row = reinterpret_cast<std::uint32_t*>(host + layout_.segment_of_row);
        if (invariant) {
            std::iota(segment_of_row, segment_of_row + rows, 0u);
        } else {
            std::iota(std::copy_n(batch.rows.segment_of_row, real, segment_of_row), segment_of_row + rows,
                      static_cast<std::uint32_t>(sequences));
        }
        auto* const output_rows = reinterpret_cast<std::uint32_t*>(host + layout_.output_rows);
        const std::size_t outputs = batch.output_rows.size() + (rows - real);
        std::iota(std::ranges::copy(batch.output_rows, output_rows).out, output_rows + outputs,
                  static_cast<std::uint32_t>(real));

        Bytes end = layout_.entries;
        for (std::uint32_t g = 0; g < groups().count; ++g) {
            const std::span<const kv::Segment> segments = this->segments(g, sequences);
            auto* const to = reinterpret_cast<kv::Segment*>(host + layout_.segments[g]);
            const std::uint32_t page_tokens = groups().groups[g].layout.page_tokens;
            std::size_t written = 0;
            for (kv::Segment segment : segments) {
                const std::size_t entries = ceil_div(segment.first_position + segment.rows, page_tokens);
                std::copy_n(segment.pages, entries, reinterpret_cast<kv::PageIndex*>(host + end));
                segment.pages = at<kv::PageIndex>(end);
                segment.old_pages = nullptr;
                segment.mass = nullptr;
                end += entries * sizeof(kv::PageIndex);
                if (!invariant) {
                    to[written++] = segment;
                    continue;
                }
                for (const std::uint32_t all = std::exchange(segment.rows, 1),
                                         last = segment.first_position + all;
                     segment.first_position < last; ++segment.first_position) {
                    to[written] = segment;
                    to[written].first_row =
                        static_cast<std::uint32_t>(written % attention::cuda::split_rows(limits().batch));
                    ++written;
                }
            }
            for (std::size_t more = 0; written < all_sequences; ++written, ++more) {
                to[written] = to[0];
                to[written].first_row = static_cast<std::uint32_t>(real + more);
            }
            if (const kv::TieredPages* const tiers = pages().groups()[g].pool.tiers(); tiers != nullptr) {
                std::copy_n(tiers->places(), tiers->tiers().total(),
                            reinterpret_cast<kv::PagePlace*>(host + layout_.places[g]));
            }
        }
        runtime().copy(stream(), device_step_.data(), host, end);
        device_step_.uses(end);
        pinned_.uses(pinned_.size());

        return described(rows, all_sequences, outputs, invariant ? 1 : batch.most_rows);
    }
    /// A batch of this shape, whose arrays are where upload() puts them.
    [[nodiscard]] model::Batch described(std::size_t rows, std::size_t sequences, std::size_t outputs,
                                         std::size_t most_rows) const noexcept {
        model::Batch there;
        there.tokens = at<std::int32_t>(layout_.tokens);
        there.rows.positions = at<std::uint32_t>(layout_.positions);
        there.rows.segment_of_row = at<std::uint32_t>(layout_.segment_of_row);
        there.rows.rows = rows;
        there.rows.segments = {at<kv::Segment>(layout_.segments[0]), sequences};
        there.output_rows = {at<std::uint32_t>(layout_.output_rows), outputs};
        there.most_rows = most_rows;
        return there;
    }

    std::shared_ptr<exec::gpu::Runtime> runtime_;
    exec::gpu::OwnedStream stream_;
    DeviceTables tables_;
    model::DeviceLayout layout_;
    exec::Team team_;
    memory::Arena scratch_, device_logits_, device_step_, pinned_;
    model::Uploader uploader_;
    exec::gpu::DeviceExecutor executor_;
    DeviceWeights weights_;
    std::span<model::LayerPlace> places_;
    std::vector<exec::gpu::Graph> graphs_;  ///< by bucket
    system::DriverBytes driver_;
    bool chose_ = false;  ///< the step's tokens
};

}  // namespace engine
}  // namespace zse::inline v1
