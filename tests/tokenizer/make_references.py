#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes tests/data/tokenizer_smollm2.json and tests/data/pre_tokenizers.json. Run by hand; no test runs it.

    python tests/tokenizer/make_references.py PATH/TO/SmolLM2-135M-Instruct.Q4_1.gguf

Needs llama-cpp-python (the truth for ids) and tokenizers (the truth for splitting). Made with
llama-cpp-python 0.3.36 and tokenizers 0.23.3. Expressions here are those of the published
tokenizer.json files, not the ones in zse's table.
"""
import json
import pathlib
import sys

from llama_cpp import Llama
from tokenizers import Regex
from tokenizers.pre_tokenizers import Sequence, Split

DATA = pathlib.Path(__file__).resolve().parent.parent / "data"

TEXTS = [
    "Hello, world!",
    "What is the capital of France? Answer in one sentence.",
    " leading space",
    "trailing space ",
    "   three   spaces   ",
    "a\nb\n\nc\n\n\nd",
    "line\r\nline\r\n\r\nline\r",
    "\ttab\t\ttabs \t mixed \t\n \t",
    "                                                            x",
    "\n" * 20 + "x" + " \n" * 10,
    "0 1 22 333 4444 55555 1234567890",
    "3.14159, 1,000,000 and 0x1F; 2024-01-02T03:04:05Z",
    "I'm you're he'll she'd we've it's don't CAN'T WE'LL 's'",
    "'quoted' \"double\" `back` ''nested''",
    "CamelCaseHTTPServer snake_case_name SCREAMING_CASE kebab-case",
    "for (int i = 0; i < n; ++i) {\n\tsum += a[i] * b[i];  // dot\n}\n",
    "def f(x):\n    if x:\n        return {'a': [1, 2]}\n    return None\n",
    "#include <vector>\n#define MAX(a,b) ((a)>(b)?(a):(b))\n",
    "SELECT * FROM t WHERE a='b' AND c<>d;",
    "https://example.com/path?q=1&r=%20#frag user@example.com",
    "<html><body class=\"x\">&amp;</body></html>",
    "!!! ??? ... --- *** ~~~ ### $$$ %%% ^^^ &&& ||| \\\\\\",
    "a.b,c;d:e!f?g(h)i[j]k{l}m",
    "caf\u00e9 na\u00efve \u00fcber stra\u00dfe \u0130stanbul \u017fharp",
    "cafe\u0301 e\u0301\u0302\u0303 a\u0308o\u0308u\u0308",
    "\u4f60\u597d\uff0c\u4e16\u754c\u3002\u8fd9\u662f\u4e00\u4e2a\u6d4b\u8bd5\uff01",
    "\u65e5\u672c\u8a9e\u306e\u30c6\u30ad\u30b9\u30c8\u3001\u30ab\u30bf\u30ab\u30ca\u3068\u3072\u3089\u304c\u306a",
    "\ud55c\uad6d\uc5b4 \ud14d\uc2a4\ud2b8\uc785\ub2c8\ub2e4 123\uac1c",
    "\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440! \u042d\u0442\u043e \u0442\u0435\u0441\u0442.",
    "\u0645\u0631\u062d\u0628\u0627 \u0628\u0627\u0644\u0639\u0627\u0644\u0645 \u0661\u0662\u0663",
    "\u05e9\u05dc\u05d5\u05dd \u05e2\u05d5\u05dc\u05dd abc \u200f123\u200e",
    "\u0928\u092e\u0938\u094d\u0924\u0947 \u0926\u0941\u0928\u093f\u092f\u093e",
    "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35\u0e0a\u0e32\u0e27\u0e42\u0e25\u0e01",
    "\U0001F680\U0001F680 rockets \U0001F469\u200d\U0001F469\u200d\U0001F467 \U0001F1E9\U0001F1EA \U0001F44D\U0001F3FD",
    "emoji\U0001F600in\U0001F600words 1\uFE0F\u20E3",
    "\u2460 \u00bd \u2167 x\u00b2 \u0663\u0664 \uff11\uff12\uff13 \u4e00\u4e8c\u4e09",
    "\U0001D4D7\U0001D4EE\U0001D4F5\U0001D4F5\U0001D4F8 \U00010400\U00010428",
    "nbsp\u00a0nbsp em\u2003em ideographic\u3000space narrow\u202fx",
    "nel\u0085x ls\u2028x ps\u2029x zwsp\u200bx mvs\u180ex bom\ufeffx",
    "\u0001\u0002\u001b[0m\u007f control\u0000null",
    "\u201csmart\u201d \u2018quotes\u2019 it\u2019s \u2026 \u2014 \u2013 \u00ab\u00bb",
    "\u20ac10 \u00a35 \u00a52 $1 \u20bf1 5\u00b0C 10\u00b5m \u221e\u2260\u2264",
    "A",
    "\u00e9",
    " ",
    "\n",
    "  ",
    "\t\n ",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "abababababababababababababababababababababababab",
    "Donaudampfschifffahrtsgesellschaftskapit\u00e4nsm\u00fctze",
    "the the the The THE tHe",
    "word\u0301word  \u0301 \u20dd",
    "\u01c5 \u02b0 \u00aa \u00ba \u0345 \u1f88",
    "mixed \u4e2d\u6587English\u4e2d\u6587 123\u4e2d456",
    "...a ,b !c ;d \u3002e \uff0cf",
    "/* c */ // d\n# e /f\n\n  /g",
    "x\n\n  y\n \n z  \n",
    "1st 2nd 3rd v1.2.3-rc4 4K 8GB",
    "\ue000 private \U000F0000 use",
]
SPECIAL = [
    "<|im_start|>user\nWhat is 2+2?<|im_end|>\n<|im_start|>assistant\n",
    "<|im_start|>system\nYou are helpful.<|im_end|>",
    "a<|endoftext|>b <|endoftext|> c",
    "<|im_start|><|im_start|><|im_end|>",
    "<|im_start<|im_end|>|>",
    "<repo_name>x/y<file_sep>main.py\n<reponame><filename>",
    " <|im_end|> \n<|im_end|>\n",
    "<|IM_END|> <| im_end |>",
]

# As published: names in GGUF, then the sequence of "isolated" splits.
TAIL = r"\s*[\r\n]+|\s+(?!\S)|\s+"
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
WORD = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
CAPS = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
ENGLISH = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
FAMILIES = {
    "gpt-2": [GPT2],
    "smollm": [r"\p{N}", GPT2],
    "falcon": [r"[\p{P}\$\+<=>\^~\|`]+", GPT2, r"[0-9][0-9][0-9]"],
    "llama-bpe": [ENGLISH + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + TAIL],
    "qwen2": [ENGLISH + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + TAIL],
    "tekken": [WORD + "|" + CAPS + r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|" + TAIL],
    "gpt-4o": [WORD + ENGLISH + "?|" + CAPS + ENGLISH + r"?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|" + TAIL],
    "deepseek-coder": [r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+", r"\p{N}"],
    "deepseek-v3": [
        r"\p{N}{1,3}",
        "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
        r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
        r"| ?[\p{P}\p{S}]+[\r\n]*|" + TAIL,
    ],
    "bloom": [" ?[^(\\s|.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c)]+"],
    "bailingmoe": [
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
    ],
}


def smollm2(model):
    llama = Llama(model, vocab_only=True, verbose=False)
    cases = [(text, True) for text in TEXTS] + [(text, p) for text in SPECIAL for p in (True, False)]
    return [
        {"text": text, "parse_special": parse, "ids": llama.tokenize(text.encode(), add_bos=True, special=parse)}
        for text, parse in cases
    ]


def splits():
    families = {}
    for name, expressions in FAMILIES.items():
        splitter = Sequence([Split(Regex(e), "isolated") for e in expressions])
        families[name] = [[len(p.encode()) for p, _ in splitter.pre_tokenize_str(t)] for t in TEXTS]
    return {"texts": TEXTS, "lengths": families}


def write(name, lines, head="[", foot="]"):
    (DATA / name).write_text(head + "\n" + ",\n".join(lines) + "\n" + foot + "\n")


def main():
    dump = lambda value: json.dumps(value, separators=(",", ":"))
    write("tokenizer_smollm2.json", [dump(case) for case in smollm2(sys.argv[1])])
    made = splits()
    lengths = ",\n".join(f"{dump(name)}:{dump(rows)}" for name, rows in made["lengths"].items())
    write("pre_tokenizers.json", [f'"texts":{dump(made["texts"])}', f'"lengths":{{\n{lengths}\n}}'], "{", "}")


if __name__ == "__main__":
    main()
