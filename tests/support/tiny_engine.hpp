// SPDX-License-Identifier: Apache-2.0
// Engines over tiny models in memory, and a forward pass in double precision to compare them with.
#pragma once

#include <support/smollm2.hpp>
#include <support/tiny_model.hpp>

#include <zse/engine.hpp>

#include <cmath>
#include <memory>
#include <vector>

namespace support {

/// A tiny model's file image with its shape and vocabulary.
struct Tiny {
    std::vector<std::byte> image;
    zse::io::Gguf file;
    zse::ModelSpec spec;
    std::shared_ptr<const zse::engine::Vocabulary> vocabulary;

    explicit Tiny(const TinySpec& wanted)
        : image(tiny_model(wanted)),
          file(zse::io::Gguf::parse(image, "tiny.gguf")),
          spec(zse::model::spec_from_gguf(file)),
          vocabulary(zse::engine::vocabulary_from_gguf(file, spec.vocabulary)) {}

    /// Draws from the ledger, or from one of its own.
    template <class Engine = zse::Engine<zse::kv::f32>>
    [[nodiscard]] std::unique_ptr<zse::AnyEngine> open(
        zse::Limits limits, zse::engine::Options options = {},
        std::shared_ptr<zse::memory::Ledger> ledger = nullptr) const {
        options.limits = limits;
        auto words =
            zse::engine::vocabulary_from_gguf(file, spec.vocabulary, std::move(ledger), options.mapping);
        return Engine::open(file, spec, std::move(words), options);
    }
};

/// The formula of a Llama decoder, row by row in double, from the stored weights: independent of every
/// kernel.
class NaiveLlama {
public:
    explicit NaiveLlama(const Tiny& tiny) : spec_(tiny.spec), file_(tiny.file) {}

    /// Logits after each token, `[tokens][vocabulary]`.
    [[nodiscard]] std::vector<std::vector<double>> logits(const std::vector<std::int32_t>& tokens) const {
        const std::size_t hidden = spec_.hidden;
        const std::size_t dim = spec_.head_dim;
        std::vector<std::vector<double>> h;
        for (const std::int32_t token : tokens)
            h.push_back(row("token_embd.weight", static_cast<std::size_t>(token)));
        for (std::uint32_t layer = 0; layer < spec_.layers; ++layer) {
            const auto name = [&](const char* part) {
                return "blk." + std::to_string(layer) + "." + part + ".weight";
            };
            std::vector<std::vector<double>> q, k, v;
            for (std::size_t t = 0; t < tokens.size(); ++t) {
                const auto n = norm(h[t], name("attn_norm"));
                q.push_back(turned(product(name("attn_q"), spec_.q_width(), n), t));
                k.push_back(turned(product(name("attn_k"), spec_.kv_width(), n), t));
                v.push_back(product(name("attn_v"), spec_.kv_width(), n));
            }
            for (std::size_t t = 0; t < tokens.size(); ++t) {
                std::vector<double> mixed(spec_.q_width());
                for (std::size_t head = 0; head < spec_.heads; ++head) {
                    const std::size_t shared = head / (spec_.heads / spec_.kv_heads);
                    std::vector<double> weight(t + 1);
                    double sum = 0;
                    const std::size_t window = spec_.run_of(layer).window;
                    const std::size_t first = window == 0 || t < window ? 0 : t + 1 - window;
                    for (std::size_t s = first; s <= t; ++s) {
                        double score = 0;
                        for (std::size_t i = 0; i < dim; ++i)
                            score += q[t][head * dim + i] * k[s][shared * dim + i];
                        sum += weight[s] = std::exp(score / std::sqrt(static_cast<double>(dim)));
                    }
                    for (std::size_t s = 0; s <= t; ++s) {
                        for (std::size_t i = 0; i < dim; ++i) {
                            mixed[head * dim + i] += weight[s] / sum * v[s][shared * dim + i];
                        }
                    }
                }
                const auto o = product(name("attn_output"), hidden, mixed);
                for (std::size_t i = 0; i < hidden; ++i) h[t][i] += o[i];
                const auto n = norm(h[t], name("ffn_norm"));
                auto gate = product(name("ffn_gate"), spec_.feed_forward, n);
                const auto up = product(name("ffn_up"), spec_.feed_forward, n);
                for (std::size_t i = 0; i < gate.size(); ++i)
                    gate[i] = gate[i] / (1 + std::exp(-gate[i])) * up[i];
                const auto down = product(name("ffn_down"), hidden, gate);
                for (std::size_t i = 0; i < hidden; ++i) h[t][i] += down[i];
            }
        }
        std::vector<std::vector<double>> result;
        for (const auto& row_of_h : h) {
            result.push_back(product(spec_.tied_output ? "token_embd.weight" : "output.weight",
                                     spec_.vocabulary, norm(row_of_h, "output_norm.weight")));
        }
        return result;
    }

private:
    [[nodiscard]] std::vector<double> row(const std::string& name, std::size_t index) const {
        const auto& tensor = file_.require(name);
        const std::size_t columns = tensor.shape[0];
        std::vector<float> values(columns);
        const auto format = *zse::model::detail::format_of(tensor.type);
        zse::weights::visit_codec(format, [&](auto codec) {
            decltype(codec)::decode_row(tensor.data.data() + index * format.row_bytes(columns), columns,
                                        values.data());
        });
        return {values.begin(), values.end()};
    }
    [[nodiscard]] std::vector<double> product(const std::string& name, std::size_t rows,
                                              const std::vector<double>& x) const {
        std::vector<double> y(rows);
        for (std::size_t r = 0; r < rows; ++r) {
            const auto w = row(name, r);
            for (std::size_t i = 0; i < x.size(); ++i) y[r] += w[i] * x[i];
        }
        return y;
    }
    [[nodiscard]] std::vector<double> norm(const std::vector<double>& x, const std::string& name) const {
        double squares = 0;
        for (const double value : x) squares += value * value;
        const double scale =
            1 / std::sqrt(squares / static_cast<double>(x.size()) + static_cast<double>(spec_.rms_epsilon));
        auto y = row(name, 0);
        for (std::size_t i = 0; i < x.size(); ++i) y[i] *= x[i] * scale;
        return y;
    }
    [[nodiscard]] std::vector<double> turned(std::vector<double> heads, std::size_t position) const {
        for (std::size_t first = 0; first < heads.size(); first += spec_.head_dim) {
            for (std::size_t i = 0; i < spec_.rope_dim / 2; ++i) {
                double angle = static_cast<double>(position) *
                               std::pow(static_cast<double>(spec_.rope_base),
                                        -2.0 * static_cast<double>(i) / static_cast<double>(spec_.rope_dim));
                if (spec_.rope_factors) angle /= row("rope_freqs.weight", 0)[i];
                double& a = heads[first + 2 * i];
                double& b = heads[first + 2 * i + 1];
                const double x = a;
                a = x * std::cos(angle) - b * std::sin(angle);
                b = x * std::sin(angle) + b * std::cos(angle);
            }
        }
        return heads;
    }

    const zse::ModelSpec& spec_;
    const zse::io::Gguf& file_;
};

/// Greatest difference of two rows as a share of the second's spread (maximum minus mean).
template <class A, class B>
double share_of_spread(const A& got, const B& expected) {
    double greatest = -1e300, mean = 0, worst = 0;
    for (const auto value : expected) {
        greatest = std::max(greatest, static_cast<double>(value));
        mean += static_cast<double>(value) / static_cast<double>(expected.size());
    }
    for (std::size_t i = 0; i < expected.size(); ++i) {
        worst = std::max(worst, std::fabs(static_cast<double>(got[i]) - static_cast<double>(expected[i])));
    }
    return worst / (greatest - mean);
}

}  // namespace support
