"""Docstrings as Markdown, for the site: help() shows aligned columns and lines, which Markdown would run together."""

from __future__ import annotations

import re
from typing import Any

import griffe

_TERM = re.compile(r"(?P<name>[\w.]+(?:, [\w.]+)*)(?: {2,}(?P<text>\S.*)|$)")
_TOPIC = re.compile(r"(?P<name>[A-Z][a-z]+): (?P<text>.*)")


def _escaped(line: str) -> str:
    """Without what Markdown would take for a tag or a link."""
    return line.replace("<", "&lt;").replace("[", r"\[")


def _markdown(docstring: str, with_topics: bool) -> str:
    lines = docstring.split("\n")
    written: list[str] = []
    in_list = False
    for number, line in enumerate(lines):
        following = lines[number + 1] if number + 1 < len(lines) else ""
        term, topic = _TERM.fullmatch(line), _TOPIC.fullmatch(line) if with_topics else None
        if term and (term["text"] or re.match(r" {8,}\S", following)):
            written += [
                "",
                *(f"`{name}`" for name in term["name"].split(", ")),
                f":   {_escaped(term['text'] or '')}",
            ]
            in_list = True
        elif topic:
            written += ["", f"**{topic['name']}:** {_escaped(topic['text'])}"]
            in_list = False
        elif in_list and line.startswith("  "):
            written.append(f"    {_escaped(line.strip())}")
        else:
            if in_list and line:
                written.append("")
            in_list = in_list and not line
            written.append(line if line.startswith("    ") else _escaped(line))
    return "\n".join(written)


class Columns(griffe.Extension):
    """Columns become definition lists, and the lines of a class that begin with a topic, as Threads, paragraphs."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring and not obj.is_module:
            obj.docstring.value = _markdown(obj.docstring.value, with_topics=obj.is_class)
