#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""llama.cpp in a process of its own: opens one model, then measures on command.

Each line of standard input is a JSON object of arguments, each line of standard output its result. A context is kept
as long as commands want the same one, and so are the tokens that its cache begins with.
"""
import ctypes
import json
import math
import sys
import time

import llama_cpp
import numpy as np

BATCH = 512
KV_TYPES = {"f16": llama_cpp.GGML_TYPE_F16, "int8": llama_cpp.GGML_TYPE_Q8_0, "int4": llama_cpp.GGML_TYPE_Q4_0}
SILENT = llama_cpp.llama_log_callback(lambda level, text, data: None)  # must outlive its use


def made_up(count, vocabulary):
    """The tokens that zse benchmark feeds."""
    state = 1
    for _ in range(count):
        state = (state * 1664525 + 1013904223) & 0xFFFFFFFF
        yield (state >> 8) % vocabulary


class Llama:
    def __init__(self, path, threads):
        llama_cpp.llama_log_set(SILENT, None)
        llama_cpp.llama_backend_init()
        parameters = llama_cpp.llama_model_default_params()
        parameters.n_gpu_layers = 0
        self.model = llama_cpp.llama_model_load_from_file(path.encode(), parameters)
        if not self.model:
            raise RuntimeError(f"llama.cpp does not open {path}")
        self.threads = threads
        self.words = llama_cpp.llama_model_get_vocab(self.model)
        self.vocabulary = llama_cpp.llama_vocab_n_tokens(self.words)
        self.batch = llama_cpp.llama_batch_init(BATCH, 0, 1)
        self.context = self.wanted = None
        self.depth = 0

    def use(self, **wanted):
        """Makes a context for: tokens of a sequence, sequences, KV type (or keys/values), flash attention."""
        if wanted == self.wanted:
            return
        if self.context:
            llama_cpp.llama_free(self.context)
        parameters = llama_cpp.llama_context_default_params()
        parameters.n_ctx = wanted["context"] * wanted["sequences"]
        parameters.n_seq_max = wanted["sequences"]
        parameters.n_batch = parameters.n_ubatch = BATCH
        parameters.n_threads = parameters.n_threads_batch = self.threads
        keys, _, values = wanted["kv"].partition("/")
        parameters.type_k, parameters.type_v = KV_TYPES[keys], KV_TYPES[values or keys]
        parameters.flash_attn_type = int(wanted["flash"])
        parameters.no_perf = True
        self.context = llama_cpp.llama_init_from_model(self.model, parameters)
        if not self.context:
            raise RuntimeError(f"llama.cpp makes no context for {wanted}")
        self.memory = llama_cpp.llama_get_memory(self.context)
        self.wanted = wanted
        self.depth = 0

    def cut(self, depth):
        """Forgets what follows the first `depth` tokens of each sequence."""
        if depth == 0:
            llama_cpp.llama_memory_clear(self.memory, False)
            return
        for sequence in range(self.wanted["sequences"]):
            if not llama_cpp.llama_memory_seq_rm(self.memory, sequence, depth, -1):
                raise RuntimeError("llama.cpp does not cut its cache")

    def decode(self, rows):
        """Computes rows of (token, position, sequence, whether logits are wanted); returns seconds."""
        batch = self.batch
        batch.n_tokens = len(rows)
        for i, (token, position, sequence, logits) in enumerate(rows):
            batch.token[i] = token
            batch.pos[i] = position
            batch.n_seq_id[i] = 1
            batch.seq_id[i][0] = sequence
            batch.logits[i] = logits
        start = time.perf_counter()
        if llama_cpp.llama_decode(self.context, batch) != 0:
            raise RuntimeError("llama_decode failed")
        llama_cpp.llama_synchronize(self.context)
        return time.perf_counter() - start

    def prompt(self, tokens, first, sequence=0):
        """Computes tokens of one sequence, with logits for the last alone; returns seconds."""
        seconds = 0.0
        for start in range(0, len(tokens), BATCH):
            part = tokens[start:start + BATCH]
            seconds += self.decode([(token, first + start + i, sequence, start + i + 1 == len(tokens))
                                    for i, token in enumerate(part)])
        return seconds

    def speed(self, prompt, generation, depth, sequences, kv, flash):
        """Tokens a second of a prompt of one sequence and of generation by all, after `depth` tokens of each."""
        self.use(context=depth + max(prompt, generation) + 1, sequences=sequences, kv=kv, flash=flash)
        tokens = list(made_up(depth + max(prompt, generation), self.vocabulary))
        if self.depth != depth:
            self.cut(0)
            for sequence in range(sequences):
                self.prompt(tokens[:depth], 0, sequence)
            self.depth = depth
        result = {}
        self.cut(depth)
        if prompt:
            result["prompt"] = prompt / self.prompt(tokens[depth:depth + prompt], depth)
            self.cut(depth)
        if generation:
            seconds = sum(self.decode([(token, position, sequence, True) for sequence in range(sequences)])
                          for position, token in enumerate(tokens[depth:depth + generation], depth))
            result["generation"] = sequences * generation / seconds
        return result

    def encode(self, text):
        data = text.encode()
        tokens = (ctypes.c_int32 * (len(data) + 8))()
        count = llama_cpp.llama_tokenize(self.words, data, len(data), tokens, len(tokens), True, True)
        if count < 0:
            raise RuntimeError("llama_tokenize failed")
        return list(tokens[:count])

    def scored(self, tokens, window, kv, flash):
        """Yields the logits [scored, vocabulary] and the tokens that came, for each window of `zse perplexity`.

        That is the second half of each whole window, but for its first token.
        """
        self.use(context=window, sequences=1, kv=kv, flash=flash)
        for first in range(0, len(tokens) - window + 1, window):
            part = tokens[first:first + window]
            if llama_cpp.llama_vocab_get_add_bos(self.words):
                part[0] = llama_cpp.llama_vocab_bos(self.words)
            self.cut(0)
            logits = []
            for start in range(0, window, BATCH):
                rows = [(part[i], i, 0, window // 2 <= i < window - 1)
                        for i in range(start, min(start + BATCH, window))]
                self.decode(rows)
                logits += [np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(self.context, row),
                                                 (self.vocabulary,)).copy()
                           for row, (_, _, _, wanted) in enumerate(rows) if wanted]
            yield np.array(logits), part[window // 2 + 1:]

    def perplexity(self, file, window, kv, flash):
        with open(file, encoding="utf-8") as source:
            tokens = self.encode(source.read())
        likelihoods = [log_softmax(logits)[np.arange(len(came)), came]
                       for logits, came in self.scored(tokens, window, kv, flash)]
        self.depth = 0
        return {"perplexity": math.exp(-np.mean(likelihoods)), "tokens": int(np.size(likelihoods))}


def log_softmax(logits):
    """Of each row, in double."""
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def main():
    path, threads = sys.argv[1:]
    llama = Llama(path, int(threads))
    for line in sys.stdin:
        arguments = json.loads(line)
        what = arguments.pop("measure")
        print(json.dumps({"speed": llama.speed, "perplexity": llama.perplexity}[what](**arguments)), flush=True)


if __name__ == "__main__":
    main()
