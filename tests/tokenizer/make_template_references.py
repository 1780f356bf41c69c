#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Renders the cases and the chat templates of tests/data/templates with Python's jinja2, set up as transformers
sets it up, and writes what came out: cases.txt gives cases.json, *.jinja with chats.json give conversations.json.

Run by hand in the root of the repository, where jinja2 3.1.6 or later is installed:
    python3 tests/tokenizer/make_template_references.py
A case that fails in jinja2 is stored with the error, and must fail in zse too.
"""
import datetime
import json
import pathlib

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment

ROOT = pathlib.Path("tests/data/templates")
NOW = datetime.datetime(2024, 8, 1, 9, 5, 7)


class Generation(jinja2.ext.Extension):
    """{% generation %}, without the tracking of what it spans."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_pass"), [], [], body).set_lineno(line)

    def _pass(self, caller):
        return caller()


class Raised(Exception):
    pass


def raise_exception(message):
    raise Raised(message)


def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def environment():
    env = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols])
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = NOW.strftime
    return env


def render(source, context):
    try:
        return {"expected": environment().from_string(source).render(**context)}
    except Raised as error:
        return {"raised": str(error)}
    except Exception as error:  # whatever jinja2 or the template's Python ends with
        return {"error": type(error).__name__}


def write(name, rows):
    text = "[\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n]\n"
    (ROOT / name).write_text(text, encoding="utf-8")


def read_cases():
    """Cases are divided by lines of "----"; all of them see the names of context.json."""
    return (ROOT / "cases.txt").read_text(encoding="utf-8").removesuffix("\n").split("\n----\n")


def main():
    rows = []
    context = json.loads((ROOT / "context.json").read_text(encoding="utf-8"))
    for number, source in enumerate(read_cases(), 1):
        rows.append({"number": number, "template": source, **render(source, context)})
    write("cases.json", rows)
    failing = sum("expected" not in row for row in rows)
    print(f"{len(rows)} cases, {failing} of them fail as they should")

    conversations = json.loads((ROOT / "chats.json").read_text(encoding="utf-8"))
    rows = []
    for path in sorted(ROOT.glob("*.jinja")):
        source = path.read_text(encoding="utf-8")
        for name, chat in conversations.items():
            for prompt in (False, True):
                context = {"messages": chat["messages"], "tools": chat.get("tools"), "documents": None,
                           "add_generation_prompt": prompt, "bos_token": "<s>", "eos_token": "</s>"}
                rows.append({"template": path.name, "chat": name, "prompt": prompt, **render(source, context)})
    write("conversations.json", rows)
    failing = sum("expected" not in row for row in rows)
    print(f"{len(rows)} conversations, {failing} of them fail as they should")


if __name__ == "__main__":
    main()
