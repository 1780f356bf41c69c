// SPDX-License-Identifier: Apache-2.0
// The Llama family: RMS norm, rotary positions, grouped-query attention, SwiGLU, tied or untied output.
#pragma once

#include <zse/attention/flash.hpp>
#include <zse/attention/weigh.hpp>
#include <zse/kernels/operations.hpp>
#include <zse/model/batch.hpp>
#include <zse/model/device_windows.hpp>
#include <zse/model/spec.hpp>
#include <zse/model/weight_ring.hpp>

#include <initializer_list>

namespace zse::inline v1 {
namespace model {

/// Matrices and norms of one layer.
struct LayerWeights {
    kernels::Matrix q, k, v, o, gate, up, down;
    const float* attention_norm = nullptr;  ///< `[hidden]`
    const float* mlp_norm = nullptr;        ///< `[hidden]`
    const float* q_bias = nullptr;          ///< `[heads * head_dim]`, or none; k and v likewise
    const float* k_bias = nullptr;
    const float* v_bias = nullptr;
};

/// What does not belong to a layer.
struct ModelWeights {
    kernels::Matrix embedding;
    kernels::Matrix output;
    const float* output_norm = nullptr;   ///< `[hidden]`
    const float* rope_factors = nullptr;  ///< `[rope_dim / 2]`, or none
    const kernels::RowKernels* rows = nullptr;
};

/// The architecture. `Attention` is the attention policy; the same forward plans (over exec::Recorder) and
/// computes.
template <class Attention>
struct Llama {
    /// Operations of a step, at most, without those of RingLayout::operations().
    static constexpr std::uint64_t operations(const ModelSpec& spec, const Limits& limits) noexcept {
        const std::uint64_t each = 9 + (limits.kv_heavy != 0 ? 1 : 0) + (limits.kv_disk_tokens != 0 ? 1 : 0);
        return each * spec.layers + 4;
    }

    /// Layers of a batch, `weights.layer(i)`, `cache.layer(i)` and `cache.kernels(i)` for each, then logits
    /// `[output rows, vocabulary]`. The first layers come through `weights.ring()` where limits say so.
    /// Buffers are as large as `limits` allow, so that a real step has the plan's layout.
    template <exec::Executor X, class Weights, class Cache>
    static constexpr void forward(X& x, const ModelSpec& spec, const Limits& limits, const Weights& weights,
                                  const Cache& cache, const Batch& batch, float* logits) {
        const std::size_t most = limits.step_tokens;
        const ModelWeights top = weights.top();
        exec::Buffer<float, X> hidden(x, most * spec.hidden);
        exec::Buffer<float, X> cosines(x, most * spec.rope_dim);
        exec::Buffer<float, X> sines(x, most * spec.rope_dim);
        Magnitudes<X> magnitudes(x, most);
        Step step{spec,          limits,         batch,        top.rows,
                  hidden.data(), cosines.data(), sines.data(), magnitudes.data()};
        step.rows = X::records ? most : batch.rows.rows;
        if (limits.disk_output) {
            x.run(EmbedFromDisk{weights.ring(), top.embedding, batch.tokens, step.rows, hidden.data()});
        } else {
            x.run(kernels::Embed{top.embedding, batch.tokens, step.rows, hidden.data()});
        }
        x.run(kernels::RopeAngles{batch.rows.positions, step.rows, spec.rope_dim, spec.rope_base,
                                  spec.rope_linear, top.rope_factors, spec.rope_pairs, cosines.data(),
                                  sines.data(), top.rows});

        std::uint32_t layer = 0;
        for (std::uint32_t run = 0; run < spec.run_count; ++run) {
            const std::uint32_t end = layer + spec.runs[run].count;
            // Layers leave the scratch as they found it, so one of each kind is enough for a plan.
            for (std::uint32_t i = layer; i < end; ++i) {
                if constexpr (X::records) {
                    if (i > layer && cache.alike(i, i - 1)) continue;
                }
                if (i < limits.disk_layers) {
                    x.run(Pass{weights.ring(), i == 0 ? WeightRing::none : i - 1, i});
                }
                if constexpr (X::device) pass_window(x, weights.windows(), limits, i, true);
                attend(x, step, weights.layer(i), cache.layer(i), cache.kernels(i));
                feed_forward(x, step, weights.layer(i));
                if constexpr (X::device) pass_window(x, weights.windows(), limits, i, false);
                if (i + 1 == limits.disk_layers) x.run(Pass{weights.ring(), i, WeightRing::none});
            }
            layer = end;
        }

        const std::size_t outputs = X::records ? limits.output_rows : batch.output_rows.size();
        if (outputs == 0) return;
        Input<X> last(x, {&top.output}, limits.output_rows, outputs, spec.hidden);
        last.activations.greatest = step.greatest(Row::normed);
        x.run(kernels::RmsNorm{step.kernels, hidden.data(), top.output_norm, batch.output_rows.data(),
                               spec.rms_epsilon, last.activations});
        if (!limits.disk_output) {
            return x.run(linear(step.kernels, last.activations, {{top.output, logits, spec.vocabulary}}));
        }
        // Tiles follow the layers in the ring.
        std::uint32_t done = WeightRing::none;
        std::uint32_t next = limits.disk_layers;
        for (const kernels::Matrix& tile : weights.output_tiles()) {
            x.run(Pass{weights.ring(), done, next});
            x.run(linear(step.kernels, last.activations, {{tile, logits, spec.vocabulary}}));
            logits += tile.rows;
            done = next++;
        }
        x.run(Pass{weights.ring(), done, WeightRing::none});
    }

private:
    using Output = kernels::Linear::Output;

    /// Layers of the host tier, which follow those on disk, come to a device through a window.
    template <class X>
    static constexpr void pass_window(X& x, DeviceWindows* windows, const Limits& limits, std::uint32_t layer,
                                      bool enters) {
        if (windows == nullptr || layer < limits.disk_layers) return;
        const std::uint32_t index = layer - limits.disk_layers;
        if (index < windows->layers()) x.run(Window{windows, index, enters});
    }

    /// Whose greatest magnitudes are kept on a device: what was normed, what attention gives, what the gated block gives.
    enum class Row : std::uint32_t { normed, attended, gated };

    /// The greatest magnitude of each row of three activations, `[3, most]`; nothing where no device computes.
    template <class X>
    struct Magnitudes {
        exec::Buffer<std::uint32_t, X> buffer;
        constexpr Magnitudes(X& x, std::size_t most) : buffer(x, 3 * most) {}
        [[nodiscard]] constexpr std::uint32_t* data() const noexcept { return buffer.data(); }
    };
    template <class X>
    requires(!X::device) struct Magnitudes<X> {
        constexpr Magnitudes(X& /*x*/, std::size_t /*most*/) noexcept {}
        [[nodiscard]] constexpr std::uint32_t* data() const noexcept { return nullptr; }
    };

    /// What all layers of a step share.
    struct Step {
        const ModelSpec& spec;
        const Limits& limits;
        const Batch& batch;
        const kernels::RowKernels* kernels;
        float* hidden;
        const float* cosines;
        const float* sines;
        std::uint32_t* magnitudes;  ///< null where no device computes
        std::size_t rows = 0;

        [[nodiscard]] constexpr std::uint32_t* greatest(Row of) const noexcept {
            return magnitudes == nullptr ? nullptr
                                         : magnitudes + static_cast<std::size_t>(of) * limits.step_tokens;
        }
    };

    /// The input of some matrices, in the forms that they read. `rows` of at most `most` are used.
    template <class X>
    struct Input {
        exec::Buffer<std::byte, X> buffer;
        kernels::Activations activations;

        constexpr Input(X& x, std::initializer_list<const kernels::Matrix*> readers, std::size_t most,
                        std::size_t rows, std::size_t width)
            : buffer(x, forms(readers).bytes(most, width)),
              activations(forms(readers).in(buffer.data(), most, rows, width)) {}

        static constexpr kernels::ActivationForms forms(
            std::initializer_list<const kernels::Matrix*> readers) {
            kernels::ActivationForms f;
            for (const kernels::Matrix* reader : readers) (reader->reads_codes() ? f.codes : f.floats) = true;
            return f;
        }
    };

    template <std::size_t N>
    static constexpr kernels::Linear linear(const kernels::RowKernels* rows, const kernels::Activations& from,
                                            const Output (&outputs)[N]) noexcept {
        kernels::Linear op;
        op.kernels = rows;
        op.x = from;
        op.count = N;
        for (std::size_t i = 0; i < N; ++i) op.outputs[i] = outputs[i];
        return op;
    }

    template <class X>
    static constexpr void attend(X& x, const Step& step, const LayerWeights& w, const kv::LayerState& state,
                                 const attention::LayerKernels& cache_kernels) {
        const ModelSpec& spec = step.spec;
        const std::size_t most = step.limits.step_tokens;
        const std::size_t q_width = spec.q_width();
        const std::size_t kv_width = spec.kv_width();
        const std::size_t stride = q_width + 2 * kv_width;

        Input<X> normed(x, {&w.q, &w.k, &w.v}, most, step.rows, spec.hidden);
        normed.activations.greatest = step.greatest(Row::normed);
        x.run(kernels::RmsNorm{step.kernels, step.hidden, w.attention_norm, nullptr, spec.rms_epsilon,
                               normed.activations, step.greatest(Row::attended), most});
        exec::Buffer<float, X> qkv(x, most * stride);
        float* q = qkv.data();
        float* k = q != nullptr ? q + q_width : nullptr;
        float* v = q != nullptr ? k + kv_width : nullptr;
        x.run(linear(step.kernels, normed.activations,
                     {{w.q, q, stride, false, w.q_bias},
                      {w.k, k, stride, false, w.k_bias},
                      {w.v, v, stride, false, w.v_bias}}));
        normed.buffer.release();
        x.run(kv::RopeAppend{step.kernels, state.rows, state.cache, q, k, v, stride, spec.heads, step.cosines,
                             step.sines, spec.rope_dim, spec.rope_pairs});

        exec::Buffer<float, X> attended(x, most * q_width);
        attention::Arguments arguments;
        arguments.batch = state.rows;
        arguments.cache = state.cache;
        arguments.old_cache = state.old;
        arguments.kernels = cache_kernels.recent;
        arguments.old_kernels = cache_kernels.old;
        arguments.window = state.window;
        arguments.q = q;
        arguments.q_stride = stride;
        arguments.out = attended.data();
        arguments.greatest = step.greatest(Row::attended);
        arguments.heads = spec.heads;
        arguments.most_tokens = step.limits.context;
        arguments.most_rows = X::records ? most : step.batch.most_rows;
        arguments.threads = X::device ? 1 : step.limits.threads;
        arguments.segments = step.limits.batch;
        if constexpr (X::device && !X::records) arguments.invariant = step.kernels->device->invariant;
        if (state.tiers != nullptr) x.run(kv::Stage{state.tiers, state.index});
        typename Attention::Attend attending{arguments};
        exec::Buffer<float, X> partials(x, attending.partials_floats());
        attending.arguments.partials = partials.data();
        x.run(attending);
        if (state.mass.recent != 0) x.run(attention::Weigh{arguments, state.mass, state.mass_at});
        const std::size_t codes = w.o.reads_codes() ? most : 0;
        Input<X> mixed(x, {&w.o}, codes, codes == 0 ? 0 : step.rows, q_width);
        mixed.activations.tokens = step.rows;
        mixed.activations.floats = attended.data();
        mixed.activations.greatest = step.greatest(Row::attended);
        // On a device, attention is one operation that finishes its own partial states.
        if constexpr (!X::device) {
            x.run(attention::Finish<typename Attention::Attend>{attending, mixed.activations});
        }
        x.run(linear(step.kernels, mixed.activations, {{w.o, step.hidden, spec.hidden, true}}));
    }

    template <class X>
    static constexpr void feed_forward(X& x, const Step& step, const LayerWeights& w) {
        const ModelSpec& spec = step.spec;
        const std::size_t most = step.limits.step_tokens;
        Input<X> normed(x, {&w.gate, &w.up}, most, step.rows, spec.hidden);
        normed.activations.greatest = step.greatest(Row::normed);
        x.run(kernels::RmsNorm{step.kernels, step.hidden, w.mlp_norm, nullptr, spec.rms_epsilon,
                               normed.activations});
        // A row that goes through several experts holds an activation for each of them.
        const std::size_t blocks = std::max(spec.experts_used, 1u);
        Input<X> gated(x, {&w.down}, most * blocks, step.rows, spec.feed_forward);
        gated.activations.greatest = step.greatest(Row::gated);
        x.run(kernels::GatedLinear{step.kernels, normed.activations, w.gate, w.up, gated.activations});
        x.run(linear(step.kernels, gated.activations, {{w.down, step.hidden, spec.hidden, true}}));
    }
};

}  // namespace model
}  // namespace zse::inline v1
