// SPDX-License-Identifier: Apache-2.0
// Fills the weights arena from a file: packs what is held as it is stored, decodes and encodes what is not.
#pragma once

#include <zse/exec/team.hpp>
#include <zse/kernels/bind.hpp>
#include <zse/memory/arena.hpp>
#include <zse/model/from_gguf.hpp>
#include <zse/model/planner.hpp>
#include <zse/model/weight_ring.hpp>

#include <array>
#include <cstring>
#include <functional>
#include <memory>
#include <vector>

namespace zse::inline v1 {
namespace model {

/// Told how many of how many bytes of weights are in place.
using LoadProgress = std::function<void(Bytes done, Bytes total)>;

/// Where weights go: what each tier has for them, and the memory through which those on disk pass.
struct WeightArenas {
    memory::Arena gpu;
    memory::Arena host;
    memory::DiskArena disk;
    memory::Arena staging;
};

/// The weights of a model, with kernels bound. Holds no file.
///
/// An arena holds the vectors first and then one part for each thread. A part holds the thread's share of every matrix
/// in the order in which a step reads them, so that a thread reads one stretch of memory from end to end. A layer in the
/// disk tier is laid out alike in an image of its own, which is written once.
template <class WeightPolicy>
class LoadedWeights {
public:
    using Layout = WeightLayout<WeightPolicy>;

    /// Reads every tensor on the team's threads. The arenas have exactly what the plan says; `control`
    /// has room for what ControlLayout counts.
    LoadedWeights(const io::Gguf& file, const ModelSpec& spec, const Placement& placement,
                  WeightArenas arenas, memory::Carver& control, exec::Team& team, kernels::Isa isa,
                  const LoadProgress& progress)
        : gpu_(std::move(arenas.gpu)),
          host_(std::move(arenas.host)),
          layers_(control.take<LayerWeights>(spec.layers)) {
        const auto pointers = control.take<const std::byte*>(ControlLayout::matrices(spec) * team.size());
        if (const RingLayout ring = Layout::ring(spec, placement); ring.images() != 0) {
            ring_ = std::make_unique<WeightRing>(ring, std::move(arenas.disk), std::move(arenas.staging),
                                                 control);
        }
        const Bytes total = gpu_.size() + host_.size() + Layout::bytes(spec, placement, memory::Tier::disk);
        Loader loader{file, team, progress, isa, total, 0, pointers, {}};
        memory::Carver gpu(gpu_.bytes());
        memory::Carver host(host_.bytes());
        memory::Carver& output = placement.of_output() == memory::Tier::gpu ? gpu : host;
        top_ = Layout::top(spec);
        top_.rows = kernels::row_kernels(isa);
        if (!spec.tied_output && !placement.disk_output) {
            loader.plan(host, top_.embedding, "token_embd.weight");
        }
        top_.output_norm = loader.place_floats(output, "output_norm.weight", spec.hidden);
        if (spec.rope_factors) {
            top_.rope_factors = loader.place_floats(host, "rope_freqs.weight", spec.rope_dim / 2);
        }
        std::vector<typename Loader::Planned> resident = std::move(loader.planned);
        for (std::uint32_t run = 0, index = 0; run < spec.run_count; ++run) {
            const LayerFormats& formats = spec.runs[run].formats;
            for (std::uint32_t i = 0; i < spec.runs[run].count; ++i, ++index) {
                LayerWeights& w = *std::construct_at(&layers_[index], Layout::layer(spec, formats));
                loader.planned.clear();
                if (placement.of_weights(index) == memory::Tier::disk) {
                    memory::Carver image(ring_->begin_image(Layout::layer_bytes(spec, formats)));
                    loader.plan_layer(image, spec, index, w);
                    loader.place_matrices();
                    ring_->store_image();
                    continue;
                }
                loader.plan_layer(placement.of_layer(index) == memory::Tier::gpu ? gpu : host, spec, index,
                                  w);
                resident.insert(resident.end(), loader.planned.begin(), loader.planned.end());
            }
        }
        const std::string output_name = spec.tied_output ? "token_embd.weight" : "output.weight";
        if (placement.disk_output) {
            const RingLayout& ring = ring_->layout();
            tiles_ = control.take<kernels::Matrix>(ring.output.count());
            const auto parts = control.take<const std::byte*>(tiles_.size() * team.size());
            loader.bind(top_.output, output_name);
            loader.bind(top_.embedding, "token_embd.weight");
            loader.store_tiles(*ring_, ring.output, top_.output, output_name, tiles_, parts);
            if (!spec.tied_output) {
                // Rows of it are read one by one, so nobody needs its tiles as matrices.
                std::vector<kernels::Matrix> passing(ring.embedding.count());
                std::vector<const std::byte*> nowhere(passing.size() * team.size());
                loader.store_tiles(*ring_, ring.embedding, top_.embedding, "token_embd.weight", passing,
                                   nowhere);
            }
        }
        loader.planned = std::move(resident);
        if (!placement.disk_output) loader.plan(output, top_.output, output_name);
        loader.place_matrices();
        if (spec.tied_output) top_.embedding = top_.output;
        gpu_.uses(gpu.taken());
        host_.uses(host.taken());
        if (ring_) ring_->finish_storing();
    }

    [[nodiscard]] const ModelWeights& top() const noexcept { return top_; }
    [[nodiscard]] const LayerWeights& layer(std::uint32_t index) const noexcept { return layers_[index]; }
    /// The output matrix in pieces, one after the other, where it lies in the disk tier.
    [[nodiscard]] std::span<const kernels::Matrix> output_tiles() const noexcept { return tiles_; }
    /// Through which weights in the disk tier come; null where there are none.
    [[nodiscard]] WeightRing* ring() const noexcept { return ring_.get(); }

private:
    using Convert = void (*)(const std::byte* from, std::size_t columns, std::byte* to) noexcept;

    /// How a stored row becomes a held one; null where it is held as it is stored.
    static Convert converter(weights::Format stored, weights::Format held) {
        if (stored == held) return nullptr;
        Convert found = nullptr;
        if constexpr (weights::WeightCodec<WeightPolicy>) {
            weights::visit_codec(stored, [&](auto codec) {
                using Stored = decltype(codec);
                found = &reencode<Stored, WeightPolicy>;
                if constexpr (requires { typename WeightPolicy::Table; }) {
                    if (held == WeightPolicy::Table::format)
                        found = &reencode<Stored, typename WeightPolicy::Table>;
                }
            });
        }
        if (found == nullptr) {
            throw Error(ErrorCode::internal,
                        text("no conversion from ", weights::name(stored), " to ", weights::name(held)));
        }
        return found;
    }

    /// Through float32 in pieces of whole groups.
    template <class Stored, class Held>
    static void reencode(const std::byte* from, std::size_t columns, std::byte* to) noexcept {
        constexpr std::size_t piece = 1024;  // a multiple of every group
        float values[piece];
        for (std::size_t first = 0; first < columns; first += piece) {
            const std::size_t count = std::min(piece, columns - first);
            Stored::decode_row(from + Stored::format.row_bytes(first), count, values);
            Held::encode_row(values, count, to + Held::format.row_bytes(first));
        }
    }

    /// What is needed while tensors are read, and not afterwards.
    struct Loader {
        const io::Gguf& file;
        exec::Team& team;
        const LoadProgress& progress;
        kernels::Isa isa;
        Bytes total;
        Bytes done;
        std::span<const std::byte*> pointers;  ///< to parts, those that are not given out yet
        struct Planned {
            memory::Carver* carver;
            kernels::Matrix* matrix;
            const io::TensorInfo* tensor;
            std::uint32_t first_row = 0;  ///< of the tensor
        };
        std::vector<Planned> planned;

        /// Places a layer's vectors and plans its matrices.
        void plan_layer(memory::Carver& carver, const ModelSpec& spec, std::uint32_t index, LayerWeights& w) {
            const auto vector = [&](const char* name, std::uint64_t count) {
                return place_floats(carver, text("blk.", index, ".", name), count);
            };
            w.attention_norm = vector("attn_norm.weight", spec.hidden);
            w.mlp_norm = vector("ffn_norm.weight", spec.hidden);
            if (spec.qkv_bias) {
                w.q_bias = vector("attn_q.bias", spec.q_width());
                w.k_bias = vector("attn_k.bias", spec.kv_width());
                w.v_bias = vector("attn_v.bias", spec.kv_width());
            }
            plan(carver, w.q, detail::layer_name(index, "attn_q"));
            plan(carver, w.k, detail::layer_name(index, "attn_k"));
            plan(carver, w.v, detail::layer_name(index, "attn_v"));
            plan(carver, w.o, detail::layer_name(index, "attn_output"));
            plan(carver, w.gate, detail::layer_name(index, "ffn_gate"));
            plan(carver, w.up, detail::layer_name(index, "ffn_up"));
            plan(carver, w.down, detail::layer_name(index, "ffn_down"));
        }

        const float* place_floats(memory::Carver& carver, const std::string& name, std::uint64_t count) {
            const io::TensorInfo& tensor = detail::vector_tensor(file, name, count);
            const std::span<float> place = carver.take<float>(count);
            std::memcpy(place.data(), tensor.data.data(), count * sizeof(float));
            report(Layout::floats(count));
            return place.data();
        }

        /// Notes a matrix for place_matrices().
        void plan(memory::Carver& carver, kernels::Matrix& matrix, const std::string& name) {
            bind(matrix, name);
            planned.push_back(
                {&carver, &matrix, &detail::matrix_tensor(file, name, matrix.rows, matrix.columns)});
        }
        void bind(kernels::Matrix& matrix, const std::string& name) {
            matrix.part_count = team.size();
            matrix.kernels = kernels::bind<WeightPolicy>(matrix.format, isa);
            if (matrix.kernels == nullptr) {
                throw Error(ErrorCode::internal,
                            text("no kernels for ", weights::name(matrix.format), " in tensor ", name));
            }
        }

        /// Packs a matrix tile by tile into the ring's images, whose parts then lie in its slots.
        void store_tiles(WeightRing& ring, const TileLayout& layout, const kernels::Matrix& matrix,
                         const std::string& name, std::span<kernels::Matrix> tiles,
                         std::span<const std::byte*> parts) {
            const io::TensorInfo& tensor = detail::matrix_tensor(file, name, matrix.rows, matrix.columns);
            const std::span<const std::byte*> others = std::exchange(pointers, parts);
            for (std::uint32_t i = 0; i < layout.count(); ++i) {
                kernels::Matrix& tile = *std::construct_at(&tiles[i], matrix);
                tile.rows =
                    std::min<std::uint32_t>(layout.first_row(i + 1), matrix.rows) - layout.first_row(i);
                memory::Carver image(ring.begin_image(layout.bytes(i)));
                planned = {{&image, &tile, &tensor, layout.first_row(i)}};
                place_matrices();
                ring.store_image();
            }
            pointers = others;
        }

        /// Gives what was planned its parts, in the order of reading, and packs it.
        void place_matrices() {
            for (std::size_t part = 0; part < team.size(); ++part) {
                for (std::size_t i = 0; i < planned.size(); ++i) {
                    pointers[i * team.size() + part] =
                        planned[i]
                            .carver->template take<std::byte>(planned[i].matrix->part_bytes(part))
                            .data();
                }
            }
            for (std::size_t i = 0; i < planned.size(); ++i) {
                planned[i].matrix->parts = pointers.data() + i * team.size();
                pack(*planned[i].matrix, *planned[i].tensor, planned[i].first_row);
            }
            pointers = pointers.subspan(planned.size() * team.size());
        }

        void pack(const kernels::Matrix& matrix, const io::TensorInfo& tensor, std::uint32_t first_row) {
            const weights::PackedLayout layout = matrix.layout();
            const weights::Format stored = *detail::format_of(tensor.type);
            const Bytes stored_row = stored.row_bytes(matrix.columns);
            const Bytes held_row = matrix.format.row_bytes(matrix.columns);
            const Convert convert = converter(stored, matrix.format);
            std::vector<std::vector<std::byte>> rows(convert == nullptr ? 0 : team.size());
            for (auto& row : rows) row.resize(layout.rows * held_row);
            team.for_each_in_parts(
                [&](std::size_t part) { return matrix.part_groups(part); },
                [&](std::size_t part, std::size_t item, unsigned thread) {
                    const std::size_t first = (matrix.first_group(part) + item) * layout.rows;
                    const std::size_t count = std::min<std::size_t>(layout.rows, matrix.rows - first);
                    const std::byte* from = tensor.data.data() + (first_row + first) * stored_row;
                    // The one place that writes through the pointers that kernels read.
                    auto* to = const_cast<std::byte*>(matrix.group(part, item));
                    if (convert == nullptr) return layout.pack(from, stored_row, count, to);
                    for (std::size_t r = 0; r < count; ++r) {
                        convert(from + r * stored_row, matrix.columns, rows[thread].data() + r * held_row);
                    }
                    layout.pack(rows[thread].data(), held_row, count, to);
                });
            file.release(tensor);  // its pages of the file would only be held twice
            report(matrix.bytes());
        }

        void report(Bytes placed) {
            done += placed;
            if (progress) progress(done, total);
        }
    };

    memory::Arena gpu_, host_;
    ModelWeights top_;
    std::span<LayerWeights> layers_;
    std::span<kernels::Matrix> tiles_;
    std::unique_ptr<WeightRing> ring_;  ///< null where nothing is streamed
};

}  // namespace model
}  // namespace zse::inline v1
