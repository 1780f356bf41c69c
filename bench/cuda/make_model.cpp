// SPDX-License-Identifier: Apache-2.0
// Writes a file with random weights in Q4_0 that has the shape of a public model, for speed alone. Takes three times the
// file's size in memory.
#include "shapes.hpp"

#include <cstdio>
#include <exception>
#include <string_view>
#include <support/tiny_model.hpp>

int main(int argc, char** argv) try {
    for (const zse_bench::Shape& shape : zse_bench::shapes) {
        const zse::ModelSpec& spec = *shape.spec;
        if (argc != 3 || shape.name != argv[1] || spec.qkv_bias) continue;
        support::TinySpec random;
        random.layers = spec.layers;
        random.hidden = spec.hidden;
        random.heads = spec.heads;
        random.kv_heads = spec.kv_heads;
        random.head_dim = spec.head_dim;
        random.ffn = spec.feed_forward;
        random.vocab = spec.vocabulary;
        random.context = spec.trained_context;
        random.rope_theta = spec.rope_base;
        random.type = random.embedding = random.output = zse::io::GgmlType::q4_0;
        support::tiny_writer(random).write(argv[2]);
        return 0;
    }
    std::fputs("usage: cuda_bench_model Llama-3-8B|Llama-2-7B FILE\n", stderr);
    return 2;
} catch (const std::exception& error) {
    std::fprintf(stderr, "cuda_bench_model: %s\n", error.what());
    return 1;
}
