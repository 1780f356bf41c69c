// SPDX-License-Identifier: Apache-2.0
// Fills the weights arena from a file: copies what is held as it is stored, decodes and encodes what is not.
#pragma once

#include <zse/exec/team.hpp>
#include <zse/kernels/bind.hpp>
#include <zse/memory/arena.hpp>
#include <zse/model/from_gguf.hpp>
#include <zse/model/planner.hpp>

#include <cstring>
#include <functional>
#include <vector>

namespace zse::inline v1 {
namespace model {

/// Told how many of how many bytes of weights are in place.
using LoadProgress = std::function<void(Bytes done, Bytes total)>;

/// The weights of a model in an arena, with kernels bound. Holds no file.
template <class WeightPolicy>
class LoadedWeights {
public:
    using Layout = WeightLayout<WeightPolicy>;

    /// Reads every tensor on the team's threads. The arena has exactly Layout::bytes(spec).
    LoadedWeights(const io::Gguf& file, const ModelSpec& spec, memory::Arena arena, exec::Team& team,
                  const LoadProgress& progress)
        : arena_(std::move(arena)) {
        Loader loader{file, team, progress, memory::Carver(arena_.bytes()), arena_.size()};
        top_ = Layout::top(spec);
        loader.place(top_.embedding, "token_embd.weight");
        if (spec.tied_output) {
            top_.output = top_.embedding;
        } else {
            loader.place(top_.output, "output.weight");
        }
        top_.output_norm = loader.place_floats("output_norm.weight", spec.hidden);
        if (spec.rope_factors)
            top_.rope_factors = loader.place_floats("rope_freqs.weight", spec.rope_dim / 2);
        layers_.reserve(spec.layers);
        for (std::uint32_t run = 0, index = 0; run < spec.run_count; ++run) {
            for (std::uint32_t i = 0; i < spec.runs[run].count; ++i, ++index) {
                LayerWeights w = Layout::layer(spec, spec.runs[run].formats);
                loader.place(w.q, detail::layer_name(index, "attn_q"));
                loader.place(w.k, detail::layer_name(index, "attn_k"));
                loader.place(w.v, detail::layer_name(index, "attn_v"));
                loader.place(w.o, detail::layer_name(index, "attn_output"));
                loader.place(w.gate, detail::layer_name(index, "ffn_gate"));
                loader.place(w.up, detail::layer_name(index, "ffn_up"));
                loader.place(w.down, detail::layer_name(index, "ffn_down"));
                w.attention_norm = loader.place_floats(detail::layer_name(index, "attn_norm"), spec.hidden);
                w.mlp_norm = loader.place_floats(detail::layer_name(index, "ffn_norm"), spec.hidden);
                if (spec.qkv_bias) {
                    w.q_bias = loader.place_floats(text("blk.", index, ".attn_q.bias"), spec.q_width());
                    w.k_bias = loader.place_floats(text("blk.", index, ".attn_k.bias"), spec.kv_width());
                    w.v_bias = loader.place_floats(text("blk.", index, ".attn_v.bias"), spec.kv_width());
                }
                layers_.push_back(w);
            }
        }
    }

    [[nodiscard]] const ModelWeights& top() const noexcept { return top_; }
    [[nodiscard]] const LayerWeights& layer(std::uint32_t index) const noexcept { return layers_[index]; }

private:
    /// Rows that one item of the team converts.
    static constexpr std::size_t item_rows = 64;

    using Convert = void (*)(const std::byte* from, Bytes from_bytes, std::size_t columns,
                             std::byte* to) noexcept;

    static Convert converter(weights::Format stored, weights::Format held) {
        if (stored == held) {
            return [](const std::byte* from, Bytes bytes, std::size_t, std::byte* to) noexcept {
                std::memcpy(to, from, bytes);
            };
        }
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

    /// Through float32 in pieces of whole groups, so that any width needs no memory of its own.
    template <class Stored, class Held>
    static void reencode(const std::byte* from, Bytes /*bytes*/, std::size_t columns,
                         std::byte* to) noexcept {
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
        memory::Carver carver;
        Bytes total;
        Bytes done = 0;

        const float* place_floats(const std::string& name, std::uint64_t count) {
            const io::TensorInfo& tensor = detail::vector_tensor(file, name, count);
            const std::span<float> place = carver.take<float>(count);
            std::memcpy(place.data(), tensor.data.data(), count * sizeof(float));
            report(Layout::floats(count));
            return place.data();
        }

        void place(kernels::Matrix& matrix, const std::string& name) {
            const io::TensorInfo& tensor = detail::matrix_tensor(file, name, matrix.rows, matrix.columns);
            matrix.kernels = kernels::bind<WeightPolicy>(matrix.format);
            const weights::Format stored = *detail::format_of(tensor.type);
            if (matrix.kernels == nullptr) {
                throw Error(ErrorCode::internal,
                            text("no kernels for ", weights::name(matrix.format), " in tensor ", name));
            }
            std::byte* to = carver.take<std::byte>(matrix.bytes()).data();
            matrix.data = to;
            const std::byte* from = tensor.data.data();
            const Bytes from_row = stored.row_bytes(matrix.columns);
            const Bytes to_row = matrix.row_bytes();
            const auto convert = converter(stored, matrix.format);
            team.for_each(ceil_div(matrix.rows, item_rows), [&](std::size_t item, unsigned /*thread*/) {
                const std::size_t last = std::min<std::size_t>((item + 1) * item_rows, matrix.rows);
                for (std::size_t row = item * item_rows; row < last; ++row) {
                    convert(from + row * from_row, from_row, matrix.columns, to + row * to_row);
                }
            });
            file.release(tensor);  // its pages of the file would only be held twice
            report(Layout::padded(matrix.bytes()));
        }

        void report(Bytes placed) {
            done += placed;
            if (progress) progress(done, total);
        }
    };

    memory::Arena arena_;
    ModelWeights top_;
    std::vector<LayerWeights> layers_;
};

}  // namespace model
}  // namespace zse::inline v1
