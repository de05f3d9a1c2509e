"""docs/troubleshooting.md has an entry for each message of the code, and none that the code does not have.

A message is matched by what stands in backticks in a heading, or in the first column of a table, of that page: words that the
message has, with `…` where a value goes in.
"""

from __future__ import annotations

import ast
import pathlib
import re
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).parent.parent.parent
PAGE = ROOT / "docs/troubleshooting.md"

_PART = re.compile(r'"((?:[^"\\\n]|\\.)*)"')
_LITERAL = re.compile(rf"{_PART.pattern}(?:\s*{_PART.pattern})*")
# What a statement of the command and of the bindings has that tells of something. In lib, all text does.
_TELLS = re.compile(r"\bthrow\b|Error\(|\.(?:error|warning|note)\(|fail\(|print_names\(|PyErr_|confirm")


def _plain(text: str) -> str:
    return (
        re.sub(r"(?:\{[^{}]*\}|%[sd]|%\.\d[fg]|…)+", "…", text)
        .replace("\\n", " ")
        .replace('\\"', '"')
        .strip()
    )


def _of_cpp(file: pathlib.Path, everything: bool) -> Iterator[str]:
    code = re.sub(r"^\s*//.*|^#.*|static_assert\([^;]*;", "", file.read_text(), flags=re.MULTILINE)
    code = _PART.sub(lambda found: found[0].translate({ord(";"): 1, ord("{"): 2, ord("}"): 3}), code)
    for statement in re.split(r"[;{}]", code):
        if everything or file.is_relative_to(ROOT / "lib") or _TELLS.search(statement):
            for found in _LITERAL.finditer(statement):
                yield _plain("".join(_PART.findall(found[0])).translate({1: ";", 2: "{", 3: "}"}))


def _text(node: ast.AST) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
    return ""


def _of_python(file: pathlib.Path, everything: bool) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        told: list[ast.AST] = []
        if everything:
            told = [node]
        elif isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            told = [*node.exc.args]
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "warning"
        ):
            told = [*node.args]
        yield from (_plain(_text(argument)) for argument in told)


def texts(everything: bool = False) -> set[str]:
    """What the code tells, or every text that is in it."""
    found: set[str] = set()
    for folder in ("lib", "tools", "python/src"):
        for file in [*(ROOT / folder).rglob("*.cc"), *(ROOT / folder).rglob("*.h")]:
            found.update(_of_cpp(file, everything))
    for file in (ROOT / "python/tokcask").rglob("*.py"):
        found.update(_of_python(file, everything))
    return found


def messages() -> set[str]:
    """Of four words and more: shorter texts are names, units and parts of messages."""
    return {text for text in texts() if sum(bool(re.search("[A-Za-z]", word)) for word in text.split()) >= 4}


def phrases() -> set[str]:
    cells = re.findall(r"^(?:#+ (.*)|\| ((?:`[^`]*`|[^|`])*) \|)", PAGE.read_text(), re.MULTILINE)
    found = {phrase for cell in cells for phrase in re.findall(r"`([^`]+)`", "".join(cell))}
    return {phrase.replace("\\|", "|").strip("… ") for phrase in found}


def test_every_message_is_on_the_page() -> None:
    known = phrases()
    told = messages()
    assert len(told) > 200
    assert sorted(text for text in told if not any(phrase in text for phrase in known)) == []


def test_the_page_has_messages_of_the_code_only() -> None:
    written = texts(everything=True)
    assert sorted(phrase for phrase in phrases() if not any(phrase in text for text in written)) == []
