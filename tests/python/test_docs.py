"""What the pages show is true: each block of each page is run, and what it prints is what the page says it does.

The blocks of a page run one after another in one directory, with what the guides take for granted: a `tokenizer`, a
`model`, `rows`, and the corpus `src`. A block that cannot run here has `<!--- skip: next -->` before it.
"""

from __future__ import annotations

import ast
import doctest
import os
import pathlib
import re
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from typing import Any

import pytest
import sybil
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser, SkipParser

ROOT = pathlib.Path(__file__).parent.parent.parent
CONSUMER = ROOT / "tests" / "consumer"
GENERATED = ROOT / "docs/reference/command-line.md"  # from the command's own help
PAGES = [
    ROOT / "README.md",
    *(page for page in sorted((ROOT / "docs").rglob("*.md")) if not page.is_symlink() and page != GENERATED),
]
# Not run are text, which is not code, and c++, where a header is included whole.
LANGUAGES = {"python", "sh", "console", "cpp", "meson", "text", "c++"}


def in_shell(commands: str) -> str:
    """What the commands print, on both streams; AssertionError if one fails."""
    process = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )
    assert process.returncode == 0, f"exit code {process.returncode} of:\n{commands}\n{process.stdout}"
    return process.stdout


def run_commands(example: sybil.Example) -> None:
    in_shell(example.parsed)


def compare_session(example: sybil.Example) -> str | None:
    """A session: commands after `$`, and what each prints, in which `...` stands for anything."""
    for step in re.split(r"^\$ ", example.parsed, flags=re.MULTILINE)[1:]:
        command, _, expected = step.partition("\n")
        printed = in_shell(command)
        how = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
        if not doctest.OutputChecker().check_output(expected.strip(), printed.strip(), how):
            return f"{command}\nexpected:\n{expected}\nprinted:\n{printed}"
    return None


def find_in_consumer(example: sybil.Example) -> str | None:
    """Compiled and run is what lies in tests/consumer: the block has to be a passage of a file there."""

    def passage(text: str) -> str:
        return "\n".join(line.strip() for line in text.splitlines() if line.strip())

    files = [*CONSUMER.glob("*.cc"), CONSUMER / "meson.build"]
    if any(passage(example.parsed) in passage(file.read_text()) for file in files):
        return None
    return f"in no file of tests/consumer:\n{example.parsed}"


BLOCKS = sybil.Sybil(
    parsers=[
        SkipParser(),
        PythonCodeBlockParser(),
        CodeBlockParser("sh", run_commands),
        CodeBlockParser("console", compare_session),
        CodeBlockParser("cpp", find_in_consumer),
        CodeBlockParser("meson", find_in_consumer),
    ]
)


@pytest.fixture
def world(
    tmp_path: pathlib.Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dict[str, Any]]:
    """A directory with a corpus and a tokenizer, and the names that pages use."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    monkeypatch.setenv("PATH", f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("COLUMNS", "100")
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.backend_tokenizer.save("tokenizer.json")
    texts = [f"Paragraph {number}: " + "the quick brown fox " * (number % 7 + 1) for number in range(40)]
    pathlib.Path("src").mkdir()
    for number, text in enumerate(texts):
        pathlib.Path("src", f"{number:02}.txt").write_text(text)
    import tiny

    model = tiny.model(len(tokenizer))
    yield {"tokenizer": tokenizer, "model": model, "rows": [{"text": text} for text in texts]}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_blocks(page: pathlib.Path, world: dict[str, Any]) -> None:
    document = BLOCKS.parse(page)
    document.namespace.update(world)
    for example in document:
        example.evaluate()


def test_the_snippets_of_the_readme_go_together(world: dict[str, Any]) -> None:
    """In order, on a corpus that is edited between two runs: the batches hold the new tokens, and the old ones nowhere."""
    parsed = PythonCodeBlockParser()
    blocks = [
        region.parsed for region in parsed(sybil.Document((ROOT / "README.md").read_text(), "README.md"))
    ]
    tokenizer, rows = world["tokenizer"], world["rows"]
    old = tokenizer(rows[3]["text"] + tokenizer.eos_token)["input_ids"]
    seen: list[list[list[int]]] = []
    for edit in (rows[3], {"text": "Something else: " + rows[3]["text"]}):
        rows[3] = edit
        batches: list[Any] = []
        names: dict[str, Any] = {**world, "batches": batches}
        for block in blocks:
            loop = str(block).replace("    ...\n", "    batches.append(batch)\n")
            exec(compile(loop, "README.md", "exec"), names)
        assert names["stats"].cache_hits + names["stats"].cache_misses == len(rows)
        assert names["tokens"].input_ids.tolist() == names["tokenized"][0]["input_ids"].tolist()
        seen.append(
            [
                ids[mask.bool()].tolist()
                for batch in batches
                for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)
            ]
        )
        expected = [tokenizer(row["text"] + tokenizer.eos_token)["input_ids"] for row in rows]
        assert sorted(seen[-1]) == sorted(expected)
    assert names["stats"].cache_misses == 1
    assert old in seen[0]
    assert old not in seen[1]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_block_escapes(page: pathlib.Path) -> None:
    """A block is of a language that is run, and what is not to be run is a block that would be."""
    skipped = re.findall(r"^ *<!--- skip: next -->\n *```(.*)$", page.read_text(), re.MULTILINE)
    assert set(skipped) <= {"sh", "python"} and len(skipped) == page.read_text().count("skip:")
    fences = re.findall(r"^ *```(.*)$", page.read_text(), re.MULTILINE)
    assert {fence.strip() for fence in fences[::2]} <= LANGUAGES
    assert not any(fences[1::2])


def test_the_site(tmp_path: pathlib.Path) -> None:
    """Every link leads somewhere, and every name of the reference is there."""
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "--site-dir",
        str(tmp_path / "site"),
    ]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert process.returncode == 0, process.stdout + process.stderr
    pages = "".join(page.read_text() for page in (tmp_path / "site").rglob("*.html"))
    fetched = re.findall(r'<(?:link|script|img)[^>]*(?:href|src)="?(?:https?:)?//[^ >]*', pages)
    assert not fetched


def public_names(module: pathlib.Path) -> set[str]:
    """__all__, without importing what may need a package that is not here."""
    for statement in ast.parse(module.read_text()).body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "__all__":
            return set(ast.literal_eval(statement.value)) - {"__version__"}
    return set()


def test_the_reference_of_python_is_complete() -> None:
    package = ROOT / "python/tokcask"
    public = {
        ".".join([*module.relative_to(package.parent).with_suffix("").parts, name]).replace(".__init__", "")
        for module in [*package.glob("[!_]*.py"), package / "__init__.py", *package.glob("[!_]*/__init__.py")]
        for name in public_names(module)
    }
    assert {"tokcask.TokenizedCache", "tokcask.torch.collate", "tokcask.trl.sft_dataset"} <= public
    assert (
        set(re.findall(r"^::: (\S+)$", (ROOT / "docs/reference/python.md").read_text(), re.MULTILINE))
        == public
    )


def test_the_reference_of_cpp_is_complete() -> None:
    named = set(
        re.findall(r'^--8<-- "(include/.*)"$', (ROOT / "docs/reference/cpp.md").read_text(), re.MULTILINE)
    )
    assert named == {str(header.relative_to(ROOT)) for header in (ROOT / "include/tokcask").glob("*.h")}
