// SPDX-License-Identifier: Apache-2.0
// The Llama family: RMS norm, rotary positions, grouped-query attention, SwiGLU, tied or untied output.
#pragma once

#include <zse/attention/arguments.hpp>
#include <zse/kernels/operations.hpp>
#include <zse/model/batch.hpp>
#include <zse/model/spec.hpp>

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
};

/// The architecture. `Attention` is the attention policy; the same forward plans (over exec::Recorder) and
/// computes.
template <class Attention>
struct Llama {
    /// Layers of a batch, `weights.layer(i)` and `cache.layer(i)` for each, then logits `[output rows,
    /// vocabulary]`. Buffers are as large as `limits` allow, so that a real step has the plan's layout.
    template <exec::Executor X, class Weights, class Cache>
    static constexpr void forward(X& x, const ModelSpec& spec, const Limits& limits, const Weights& weights,
                                  const Cache& cache, const Batch& batch, float* logits) {
        const std::size_t most = limits.step_tokens;
        const std::size_t rows = X::records ? most : batch.rows.rows;
        const std::size_t pairs = spec.rope_dim / 2;
        const ModelWeights top = weights.top();

        exec::Buffer<float, X> hidden(x, most * spec.hidden);
        exec::Buffer<float, X> cosines(x, most * pairs);
        exec::Buffer<float, X> sines(x, most * pairs);
        x.run(kernels::Embed{top.embedding, batch.tokens, rows, hidden.data()});
        x.run(kernels::RopeAngles{batch.rows.positions, rows, pairs, spec.rope_base, spec.rope_linear,
                                  top.rope_factors, cosines.data(), sines.data()});

        std::uint32_t layer = 0;
        for (std::uint32_t run = 0; run < spec.run_count; ++run) {
            const std::uint32_t end = layer + spec.runs[run].count;
            // Equal layers leave the scratch as they found it, so one stands for its run in a plan.
            for (std::uint32_t i = layer; i < (X::records ? layer + 1 : end); ++i) {
                attend(x, spec, limits, weights.layer(i), cache.layer(i), batch, rows, hidden.data(),
                       cosines.data(), sines.data());
                feed_forward(x, spec, limits, weights.layer(i), rows, hidden.data());
            }
            layer = end;
        }

        const std::size_t outputs = X::records ? limits.output_rows : batch.output_rows.size();
        if (outputs == 0) return;
        exec::Buffer<float, X> last(x, static_cast<std::size_t>(limits.output_rows) * spec.hidden);
        x.run(kernels::RmsNorm{hidden.data(), top.output_norm, batch.output_rows.data(), outputs, spec.hidden,
                               spec.rms_epsilon, last.data()});
        x.run(linear(last.data(), outputs, {{top.output, logits, spec.vocabulary}}));
    }

private:
    using Output = kernels::Linear::Output;

    template <std::size_t N>
    static constexpr kernels::Linear linear(const float* from, std::size_t rows,
                                            const Output (&outputs)[N]) noexcept {
        kernels::Linear op;
        op.x = from;
        op.tokens = rows;
        op.count = N;
        for (std::size_t i = 0; i < N; ++i) op.outputs[i] = outputs[i];
        return op;
    }

    template <class X>
    static constexpr void attend(X& x, const ModelSpec& spec, const Limits& limits, const LayerWeights& w,
                                 const kv::LayerCache& cache, const Batch& batch, std::size_t rows,
                                 float* hidden, const float* cosines, const float* sines) {
        const std::size_t most = limits.step_tokens;
        const std::size_t q_width = spec.q_width();
        const std::size_t kv_width = spec.kv_width();
        const std::size_t stride = q_width + 2 * kv_width;

        exec::Buffer<float, X> normed(x, most * spec.hidden);
        x.run(kernels::RmsNorm{hidden, w.attention_norm, nullptr, rows, spec.hidden, spec.rms_epsilon,
                               normed.data()});
        exec::Buffer<float, X> qkv(x, most * stride);
        float* q = qkv.data();
        float* k = q != nullptr ? q + q_width : nullptr;
        float* v = q != nullptr ? k + kv_width : nullptr;
        x.run(linear(normed.data(), rows,
                     {{w.q, q, stride, false, w.q_bias},
                      {w.k, k, stride, false, w.k_bias},
                      {w.v, v, stride, false, w.v_bias}}));
        normed.release();
        x.run(kv::RopeAppend{batch.rows, cache, q, k, v, stride, spec.heads, cosines, sines,
                             spec.rope_dim / 2u, spec.rope_pairs});
        exec::Buffer<float, X> attended(x, most * q_width);
        attention::Arguments arguments;
        arguments.batch = batch.rows;
        arguments.cache = cache;
        arguments.q = q;
        arguments.q_stride = stride;
        arguments.out = attended.data();
        arguments.heads = spec.heads;
        arguments.most_tokens = limits.context;
        arguments.most_rows = X::records ? most : batch.most_rows;
        x.run(typename Attention::Attend{arguments});
        x.run(linear(attended.data(), rows, {{w.o, hidden, spec.hidden, true}}));
    }

    template <class X>
    static constexpr void feed_forward(X& x, const ModelSpec& spec, const Limits& limits,
                                       const LayerWeights& w, std::size_t rows, float* hidden) {
        const std::size_t most = limits.step_tokens;
        exec::Buffer<float, X> normed(x, most * spec.hidden);
        x.run(kernels::RmsNorm{hidden, w.mlp_norm, nullptr, rows, spec.hidden, spec.rms_epsilon,
                               normed.data()});
        exec::Buffer<float, X> gate(x, most * spec.feed_forward);
        exec::Buffer<float, X> up(x, most * spec.feed_forward);
        x.run(linear(normed.data(), rows,
                     {{w.gate, gate.data(), spec.feed_forward}, {w.up, up.data(), spec.feed_forward}}));
        normed.release();
        x.run(kernels::SwiGlu{gate.data(), up.data(), rows, spec.feed_forward});
        x.run(linear(gate.data(), rows, {{w.down, hidden, spec.hidden, true}}));
    }
};

}  // namespace model
}  // namespace zse::inline v1
