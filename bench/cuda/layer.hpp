// SPDX-License-Identifier: Apache-2.0
// The products of one layer of a model, over as many layers of weights as it takes to miss the level-2 cache.
#pragma once

#include "measure.hpp"
#include "shapes.hpp"

#include <zse/kernels/cuda/linear.hpp>
#include <zse/kernels/cuda/workspace.hpp>
#include <zse/weights/mma_packed.hpp>

#include <random>

namespace zse_bench {

/// The launches that a layer makes, as a model fuses them.
enum class Part : std::uint8_t { qkv, attention_output, gate_and_up, down };
inline constexpr Part parts[] = {Part::qkv, Part::attention_output, Part::gate_and_up, Part::down};
constexpr std::string_view name(Part part) noexcept {
    switch (part) {
        case Part::qkv: return "queries, keys, values";
        case Part::attention_output: return "attention output";
        case Part::gate_and_up: return "gate and up";
        case Part::down: return "down";
    }
    return "";
}

/// Rows of a matrix that the same input is multiplied with.
struct PartShape {
    std::uint32_t rows[3] = {};
    std::uint32_t count = 0;
    std::uint32_t columns = 0;

    static PartShape of(const zse::ModelSpec& spec, Part part) noexcept {
        const std::uint32_t q = spec.heads * spec.head_dim;
        const std::uint32_t kv = spec.kv_heads * spec.head_dim;
        switch (part) {
            case Part::qkv: return {{q, kv, kv}, 3, spec.hidden};
            case Part::attention_output: return {{spec.hidden}, 1, q};
            case Part::gate_and_up: return {{spec.feed_forward, spec.feed_forward}, 2, spec.hidden};
            case Part::down: return {{spec.hidden}, 1, spec.feed_forward};
        }
        return {};
    }
    [[nodiscard]] std::uint64_t all_rows() const noexcept {
        return std::uint64_t{rows[0]} + rows[1] + rows[2];
    }
};

/// Packed weights of `Codec` for some parts of a layer, several times.
template <class Codec>
class Layers {
public:
    Layers(Bench& bench, const zse::ModelSpec& spec, std::vector<Part> wanted) : wanted_(std::move(wanted)) {
        for (const Part part : wanted_) bytes_ += bytes_of(PartShape::of(spec, part));
        layers_.resize(bench.copies(bytes_));
        for (std::vector<const std::byte*>& layer : layers_) {
            for (const Part part : wanted_) {
                const PartShape shape = PartShape::of(spec, part);
                for (std::uint32_t i = 0; i < shape.count; ++i) {
                    const zse::weights::MmaLayout layout{Codec::format, shape.columns};
                    layer.push_back(bench.fill(group(layout), layout.bytes(shape.rows[i])));
                }
            }
        }
        spec_ = &spec;
    }

    [[nodiscard]] unsigned count() const noexcept { return static_cast<unsigned>(layers_.size()); }
    /// Bytes of the weights of one.
    [[nodiscard]] zse::Bytes bytes() const noexcept { return bytes_; }

    /// Buffers for `tokens` tokens.
    void prepare(Bench& bench, std::uint32_t tokens) {
        tokens_ = tokens;
        const std::uint32_t widest = std::max(spec_->feed_forward, spec_->heads * spec_->head_dim);
        x_ = bench.fill(ones(widest), zse::Bytes{tokens} * widest * sizeof(float));
        y_ = bench.zeros<float>(zse::Bytes{tokens} * 3 * widest);
        greatest_ = bench.put(std::vector<std::uint32_t>(tokens, std::bit_cast<std::uint32_t>(1.0f)));
        out_greatest_ = bench.zeros<std::uint32_t>(tokens);
        workspace_bytes_ = 0;
        for (const Part part : wanted_) {
            const PartShape shape = PartShape::of(*spec_, part);
            workspace_bytes_ = std::max(workspace_bytes_, zse::kernels::cuda::workspace_bytes(
                                                              shape.all_rows(), shape.columns, tokens));
        }
        workspace_ = bench.zeros<std::byte>(workspace_bytes_);
    }

    /// All layers, one after the other.
    void enqueue(zse::exec::gpu::Stream& stream) const noexcept {
        using Launches = std::remove_cvref_t<decltype(launches())>;
        const Launches& to = launches();
        for (const std::vector<const std::byte*>& layer : layers_) {
            std::size_t next = 0;
            for (const Part part : wanted_) {
                const PartShape shape = PartShape::of(*spec_, part);
                if (part == Part::gate_and_up) {
                    to.gated(stream, {.gate = layer[next],
                                      .up = layer[next + 1],
                                      .rows = shape.rows[0],
                                      .columns = shape.columns,
                                      .x = x(),
                                      .greatest = greatest_,
                                      .tokens = tokens_,
                                      .out = y_,
                                      .out_greatest = out_greatest_,
                                      .workspace = workspace_,
                                      .workspace_bytes = workspace_bytes_});
                } else {
                    zse::kernels::cuda::LinearCall call{.count = shape.count,
                                                        .x = x(),
                                                        .greatest = greatest_,
                                                        .tokens = tokens_,
                                                        .columns = shape.columns,
                                                        .workspace = workspace_,
                                                        .workspace_bytes = workspace_bytes_};
                    float* y = y_;
                    for (std::uint32_t i = 0; i < shape.count; ++i) {
                        call.outputs[i] = {.weights = layer[next + i],
                                           .rows = shape.rows[i],
                                           .y = y,
                                           .y_stride = shape.rows[i]};
                        y += std::size_t{tokens_} * shape.rows[i];
                    }
                    to.linear(stream, call);
                }
                next += shape.count;
            }
        }
    }

private:
    static const zse::kernels::cuda::MatrixLaunches& launches() noexcept {
        return zse::kernels::cuda::matrix_launches<Codec, zse::exec::gpu::Native>;
    }
    static zse::Bytes bytes_of(const PartShape& shape) noexcept {
        zse::Bytes bytes = 0;
        for (std::uint32_t i = 0; i < shape.count; ++i)
            bytes += zse::weights::MmaLayout{Codec::format, shape.columns}.bytes(shape.rows[i]);
        return bytes;
    }
    /// A packed group of 16 random rows; matrices are made of copies of it.
    static std::vector<std::byte> group(const zse::weights::MmaLayout& layout) {
        std::mt19937 random(1);
        std::normal_distribution<float> normal(0.0f, 0.02f);
        const zse::Bytes row_bytes = Codec::format.row_bytes(layout.columns);
        std::vector<std::byte> coded(row_bytes * zse::weights::MmaLayout::rows);
        std::vector<float> row(layout.columns);
        for (std::size_t r = 0; r < zse::weights::MmaLayout::rows; ++r) {
            for (float& value : row) value = normal(random);
            Codec::encode_row(row.data(), row.size(), coded.data() + r * row_bytes);
        }
        std::vector<std::byte> packed(layout.group_bytes());
        layout.pack(coded.data(), row_bytes, zse::weights::MmaLayout::rows, packed.data());
        return packed;
    }
    static std::vector<std::byte> ones(std::uint32_t count) {
        const std::vector<float> values(count, 1.0f);
        const auto* const bytes = reinterpret_cast<const std::byte*>(values.data());
        return {bytes, bytes + values.size() * sizeof(float)};
    }
    [[nodiscard]] const float* x() const noexcept { return reinterpret_cast<const float*>(x_); }

    std::vector<Part> wanted_;
    const zse::ModelSpec* spec_ = nullptr;
    zse::Bytes bytes_ = 0;
    std::vector<std::vector<const std::byte*>> layers_;
    std::uint32_t tokens_ = 0;
    std::byte* x_ = nullptr;
    float* y_ = nullptr;
    std::uint32_t* greatest_ = nullptr;
    std::uint32_t* out_greatest_ = nullptr;
    std::byte* workspace_ = nullptr;
    zse::Bytes workspace_bytes_ = 0;
};

}  // namespace zse_bench
