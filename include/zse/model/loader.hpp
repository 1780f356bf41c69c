// SPDX-License-Identifier: Apache-2.0
// Fills the weights arena from a file: packs what is held as it is stored, decodes and encodes what is not.
#pragma once

#include <zse/exec/team.hpp>
#include <zse/kernels/bind.hpp>
#include <zse/memory/arena.hpp>
#include <zse/model/device_windows.hpp>
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

/// Who computes with the weights.
struct WeightBinding {
    /// The kernels of a format that the policy holds, or null.
    std::function<const kernels::MatrixKernels*(weights::Format)> matrix;
    const kernels::RowKernels* rows = nullptr;
    /// Where a device computes: how weights get there, and the windows for those in the host tier, if there are any.
    Uploader* uploader = nullptr;
    DeviceWindows* windows = nullptr;
};

/// The weights of a model, with kernels bound. Holds no file.
///
/// An arena holds the vectors first and then one part for each thread. A part holds the thread's share of every matrix
/// in the order in which a step reads them, so that a thread reads one stretch of memory from end to end. A layer in the
/// disk tier is laid out alike in an image of its own, which is written once.
template <class WeightPolicy, class Target = OnHost>
class LoadedWeights {
public:
    using Layout = WeightLayout<WeightPolicy, Target>;

    /// Reads every tensor on the team's threads. The arenas have exactly what the plan says; `control`
    /// has room for what ControlLayout counts.
    LoadedWeights(const io::Gguf& file, const ModelSpec& spec, const Placement& placement,
                  WeightArenas arenas, memory::Carver& control, exec::Team& team,
                  const WeightBinding& binding, const LoadProgress& progress)
        : gpu_(std::move(arenas.gpu)),
          host_(std::move(arenas.host)),
          layers_(control.take<LayerWeights>(spec.layers)) {
        const auto pointers = control.take<const std::byte*>(ControlLayout::matrices(spec) * team.size());
        if (const RingLayout ring = Layout::ring(spec, placement); ring.images() != 0) {
            ring_ = std::make_unique<WeightRing>(ring, std::move(arenas.disk), std::move(arenas.staging),
                                                 control);
        }
        const Bytes total = gpu_.size() + host_.size() + Layout::bytes(spec, placement, memory::Tier::disk);
        Loader loader{file, team, progress, binding, gpu_.bytes(), total, 0, pointers, {}};
        memory::Carver gpu(gpu_.bytes());
        memory::Carver host(host_.bytes());
        memory::Carver& output = placement.of_output() == memory::Tier::gpu ? gpu : host;
        top_ = Layout::top(spec);
        top_.rows = binding.rows;
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
                if (binding.windows != nullptr && placement.of_layer(index) == memory::Tier::host) {
                    const std::span<std::byte> bytes =
                        host.take<std::byte>(Layout::layer_bytes(spec, formats));
                    memory::Carver image(bytes);
                    loader.plan_layer(image, spec, index, w);
                    loader.place_matrices();
                    move(w, bytes.data(), binding.windows->window(index - placement.disk_layers));
                    binding.windows->add(bytes);
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
            const auto parts = control.take<const std::byte*>(tiles_.size() * loader.parts());
            loader.bind(top_.output, output_name);
            loader.bind(top_.embedding, "token_embd.weight");
            loader.store_tiles(*ring_, ring.output, top_.output, output_name, tiles_, parts);
            if (!spec.tied_output) {
                // Rows of it are read one by one, so nobody needs its tiles as matrices.
                std::vector<kernels::Matrix> passing(ring.embedding.count());
                std::vector<const std::byte*> nowhere(passing.size() * loader.parts());
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
    [[nodiscard]] std::span<const LayerWeights> layers() const noexcept { return layers_; }
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

    /// Packs groups of rows of a tensor as a matrix holds them.
    struct Packer {
        const kernels::Matrix& matrix;
        const std::byte* first;  ///< stored row that is the matrix's first
        Bytes stored_row;
        Bytes held_row;
        Convert convert;
        std::unique_ptr<std::byte[]> rows;  ///< 16 of each thread, converted

        Packer(const kernels::Matrix& of, const io::TensorInfo& tensor, std::uint32_t first_row,
               unsigned threads)
            : matrix(of), held_row(of.format.row_bytes(of.columns)) {
            const weights::Format stored = *detail::format_of(tensor.type);
            stored_row = stored.row_bytes(of.columns);
            first = tensor.data.data() + first_row * stored_row;
            convert = converter(stored, of.format);
            if (convert != nullptr) rows.reset(new std::byte[threads * matrix.group_rows * held_row]);
        }
        void pack(std::size_t group, unsigned thread, std::byte* to) const noexcept {
            const std::size_t row = group * matrix.group_rows;
            const std::size_t count = std::min<std::size_t>(matrix.group_rows, matrix.rows - row);
            const std::byte* from = first + row * stored_row;
            if (convert == nullptr) {
                return weights::pack(matrix.packing, matrix.format, matrix.columns, from, stored_row, count,
                                     to);
            }
            std::byte* const converted = rows.get() + thread * matrix.group_rows * held_row;
            for (std::size_t r = 0; r < count; ++r) {
                convert(from + r * stored_row, matrix.columns, converted + r * held_row);
            }
            weights::pack(matrix.packing, matrix.format, matrix.columns, converted, held_row, count, to);
        }
    };

    /// A layer is computed with where it is not stored: at the same places behind another address.
    static void move(LayerWeights& w, const std::byte* from, std::byte* to) {
        const auto moved = [&](const std::byte* at) { return at == nullptr ? nullptr : to + (at - from); };
        for (const float** vector : {&w.attention_norm, &w.mlp_norm, &w.q_bias, &w.k_bias, &w.v_bias}) {
            *vector = reinterpret_cast<const float*>(moved(reinterpret_cast<const std::byte*>(*vector)));
        }
        for (kernels::Matrix* matrix : {&w.q, &w.k, &w.v, &w.o, &w.gate, &w.up, &w.down}) {
            // The loader made these pointers.
            for (std::size_t part = 0; part < matrix->part_count; ++part) {
                auto& at = const_cast<const std::byte*&>(matrix->parts[part]);
                at = moved(at);
            }
        }
    }

    /// What is needed while tensors are read, and not afterwards.
    struct Loader {
        const io::Gguf& file;
        exec::Team& team;
        const LoadProgress& progress;
        const WeightBinding& binding;
        std::span<const std::byte> gpu;  ///< the gpu tier's arena
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
            if (on_device(place.data())) {
                upload(reinterpret_cast<std::byte*>(place.data()), tensor.data.first(count * sizeof(float)));
            } else {
                std::memcpy(place.data(), tensor.data.data(), count * sizeof(float));
            }
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
            matrix.part_count = parts();
            matrix.kernels = binding.matrix(matrix.format);
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
            for (std::size_t part = 0; part < parts(); ++part) {
                for (std::size_t i = 0; i < planned.size(); ++i) {
                    pointers[i * parts() + part] =
                        planned[i]
                            .carver->template take<std::byte>(planned[i].matrix->part_bytes(part))
                            .data();
                }
            }
            for (std::size_t i = 0; i < planned.size(); ++i) {
                planned[i].matrix->parts = pointers.data() + i * parts();
                pack(*planned[i].matrix, *planned[i].tensor, planned[i].first_row);
            }
            pointers = pointers.subspan(planned.size() * parts());
        }

        /// A device reads a matrix as one.
        [[nodiscard]] unsigned parts() const noexcept {
            return binding.uploader == nullptr ? team.size() : 1;
        }
        [[nodiscard]] bool on_device(const void* at) const noexcept {
            const auto* const byte = static_cast<const std::byte*>(at);
            return binding.uploader != nullptr && byte >= gpu.data() && byte < gpu.data() + gpu.size();
        }
        void upload(std::byte* to, std::span<const std::byte> bytes) {
            while (!bytes.empty()) {
                const auto now =
                    bytes.first(std::min<std::size_t>(bytes.size(), binding.uploader->piece_bytes()));
                std::memcpy(binding.uploader->piece().data(), now.data(), now.size());
                binding.uploader->send(to, now.size());
                to += now.size();
                bytes = bytes.subspan(now.size());
            }
        }

        void pack(const kernels::Matrix& matrix, const io::TensorInfo& tensor, std::uint32_t first_row) {
            const Packer packer(matrix, tensor, first_row, team.size());
            // The one place that writes through the pointers that kernels read.
            const auto place = [](const std::byte* at) { return const_cast<std::byte*>(at); };
            if (!on_device(matrix.parts[0])) {
                team.for_each_in_parts([&](std::size_t part) { return matrix.part_groups(part); },
                                       [&](std::size_t part, std::size_t item, unsigned thread) {
                                           packer.pack(matrix.first_group(part) + item, thread,
                                                       place(matrix.group(part, item)));
                                       });
            } else {
                const std::size_t at_once = binding.uploader->piece_bytes() / matrix.group_bytes();
                if (at_once == 0) {
                    throw Error(ErrorCode::unsupported,
                                text("16 rows of a matrix with ", matrix.columns, " columns are ",
                                     matrix.group_bytes(), " bytes; a GPU takes up to ",
                                     binding.uploader->piece_bytes()));
                }
                for (std::size_t first = 0; first < matrix.groups(); first += at_once) {
                    const std::size_t count = std::min(at_once, matrix.groups() - first);
                    std::byte* const piece = binding.uploader->piece().data();
                    team.for_each(count, [&](std::size_t item, unsigned thread) {
                        packer.pack(first + item, thread, piece + item * matrix.group_bytes());
                    });
                    binding.uploader->send(place(matrix.group(0, first)), count * matrix.group_bytes());
                }
            }
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
