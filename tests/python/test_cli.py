"""The installed `tokcask` command with tokenizer files."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import time
from typing import Any

import pytest
import tokenizers
import transformers
from tokcask import (
    CacheKey,
    TokenizedCache,
    __version__,
    pretokenize_rows,
    section_id,
    tokenizer_sha256,
)
from tokenizers import models, pre_tokenizers, processors

from conftest import COMMAND, EOS, run_python

LENGTH = 64


def start(*arguments: object, **options: Any) -> subprocess.Popen[str]:
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([str(COMMAND), *map(str, arguments)], text=True, **streams, **options)


def command(*arguments: object, code: int = 0) -> Any:
    """What the command printed: the object for --json, otherwise standard output."""
    process = start(*arguments)
    output, messages = process.communicate(timeout=300)
    assert process.returncode == code, messages
    return json.loads(output) if "--json" in arguments else output


@pytest.fixture
def corpus(tmp_path: pathlib.Path) -> pathlib.Path:
    root = tmp_path / "corpus"
    (root / "below").mkdir(parents=True)
    for n in range(20):
        (root / ("below" if n % 2 else ".") / f"{n}.txt").write_text(f"ein Täxt, number {n}. " * n)
    return root


def warm(store: object, corpus: object, tokenizer: object, *more: object, code: int = 0) -> Any:
    return command(
        "warm", store, corpus, "--tokenizer", tokenizer, "--seq-len", LENGTH, "--json", *more, code=code
    )


def test_warm_twice_and_after_an_edit(
    tmp_path: pathlib.Path, corpus: pathlib.Path, tokenizer_file: pathlib.Path, large_backend: Any
) -> None:
    store = tmp_path / "store"
    first = warm(store, corpus, tokenizer_file)
    assert (first["files"], first["sections"], first["hits"], first["misses"]) == (20, 20, 0, 20)
    assert first["tokenizer_loaded"] is True
    assert first["tokenizer_sha"] == tokenizer_sha256(large_backend)

    second = warm(store, corpus, tokenizer_file)
    assert (second["hits"], second["misses"], second["files_read"]) == (20, 0, 0)
    assert second["tokenizer_loaded"] is False

    (corpus / "4.txt").write_text("edited")
    third = warm(store, corpus, tokenizer_file)
    assert (third["hits"], third["misses"], third["files_read"]) == (19, 1, 1)

    shown = command("show", store, "--json")
    assert shown["last_run"]["misses"] == 1


def test_tokens_are_those_of_the_tokenizer(
    tmp_path: pathlib.Path, corpus: pathlib.Path, tokenizer_file: pathlib.Path
) -> None:
    """The same keys and the same ids as with transformers, also where the text is cut."""
    warm(tmp_path / "store", corpus, tokenizer_file)
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(tokenizer_file))
    sha = tokenizer_sha256(tokenizer)
    with TokenizedCache.open(tmp_path / "store", read_only=True) as cache:
        lengths = set()
        for file in corpus.rglob("*.txt"):
            text = file.read_text()
            tokens = cache.get(CacheKey(section_id(text, "file"), sha, LENGTH))
            assert tokens is not None
            expected = tokenizer(text, truncation=True, padding=False, max_length=LENGTH)["input_ids"]
            assert tokens.input_ids.tolist() == expected
            lengths.add(len(expected))
    assert {0, LENGTH} < lengths


def test_special_tokens_and_the_side_of_truncation(tmp_path: pathlib.Path) -> None:
    words = {"[UNK]": 0, "[CLS]": 1, **{f"w{n}": n + 2 for n in range(100)}}
    backend = tokenizers.Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(single="[CLS] $A", special_tokens=[("[CLS]", 1)])
    backend.add_special_tokens(["[PAD]"])
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    text = " ".join(f"w{n}" for n in range(100))
    (corpus / "file.txt").write_text(text)
    for side in ("right", "left"):
        backend.enable_truncation(5, direction=side)
        backend.enable_padding(length=500, pad_id=backend.token_to_id("[PAD]"))
        file = tmp_path / f"{side}.json"
        backend.save(str(file))
        warm(tmp_path / "store", corpus, file)
        tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(file))
        expected = tokenizer(text, truncation=True, padding=False, max_length=LENGTH)["input_ids"]
        assert (len(expected), expected[0], expected[1]) == (LENGTH, 1, 2 if side == "right" else 39)
        key = CacheKey(section_id(text, "file"), tokenizer_sha256(tokenizer), LENGTH)
        with TokenizedCache.open(tmp_path / "store", read_only=True) as cache:
            tokens = cache.get(key)
            assert tokens is not None, side
            assert tokens.input_ids.tolist() == expected


@pytest.mark.parametrize("jobs", [1, 2])
def test_jobs(tmp_path: pathlib.Path, corpus: pathlib.Path, tokenizer_file: pathlib.Path, jobs: int) -> None:
    assert warm(tmp_path / "store", corpus, tokenizer_file, "--jobs", jobs)["misses"] == 20


@pytest.mark.parametrize("content", [b"", b"no JSON", b"{}", b'{"model": {}}', b"\xff\xfe", b"[1, 2]"])
def test_bad_tokenizer_file(tmp_path: pathlib.Path, corpus: pathlib.Path, content: bytes) -> None:
    bad = tmp_path / "bad.json"
    bad.write_bytes(content)
    process = start("warm", tmp_path / "store", corpus, "--tokenizer", bad, "--seq-len", LENGTH)
    output, messages = process.communicate(timeout=60)
    assert (process.returncode, output) == (2, "")
    assert "bad.json" in messages and "Traceback" not in messages
    assert messages.splitlines()[1:] == ["Run 'tokcask warm --help' to see what it takes."]


def test_no_tokenizer_file(tmp_path: pathlib.Path, corpus: pathlib.Path) -> None:
    error = warm(tmp_path / "store", corpus, tmp_path / "absent.json", code=66)
    assert "absent.json" in error["error"]["message"]


def test_a_tokenizer_that_fails(tmp_path: pathlib.Path, corpus: pathlib.Path) -> None:
    """Without an unknown token, a word that is not in the vocabulary is an error."""
    words = tokenizers.Tokenizer(models.WordLevel({"a": 0}, unk_token="[absent]"))
    words.save(str(tmp_path / "words.json"))
    error = warm(tmp_path / "store", corpus, tmp_path / "words.json", code=74)
    assert "tokenizer failed" in error["error"]["message"]


def test_names_that_are_not_text(
    tmp_path: pathlib.Path, corpus: pathlib.Path, tokenizer_file: pathlib.Path
) -> None:
    odd = os.fsencode(tmp_path) + b"/odd \xff name.json"
    os.symlink(tokenizer_file, odd)
    arguments: list[Any] = [
        COMMAND,
        "warm",
        os.fsencode(tmp_path) + b"/st\xffore",
        corpus,
        "--tokenizer",
        odd,
    ]
    process = subprocess.run([*arguments, "--seq-len", "8"], capture_output=True, timeout=120)
    assert process.returncode == 0, process.stderr
    assert os.path.isdir(os.fsencode(tmp_path) + b"/st\xffore")


def test_usage_and_help() -> None:
    assert command("--version").startswith(f"tokcask {__version__}")
    assert "warm" in command("--help")
    command(code=2)
    command("", code=2)
    command("warm", code=2)
    command("show", "/nowhere/at/all", code=66)
    module = run_python(
        "import runpy, sys; sys.argv = ['x', '--version']; runpy.run_module('tokcask', run_name='__main__')"
    )
    assert (module.returncode, module.stdout, module.stderr) == (0, f"tokcask {__version__}\n", "")


def test_starts_without_heavy_imports(
    tmp_path: pathlib.Path, corpus: pathlib.Path, tokenizer_file: pathlib.Path
) -> None:
    """A warm run that needs no tokenizer must not pay for one."""
    store = tmp_path / "store"
    warm(store, corpus, tokenizer_file)
    process = run_python(
        """
import sys
from tokcask._cli import main
assert main(["--version"]) == 0
store, corpus, tokenizer = sys.argv[1:]
assert main(["warm", store, corpus, "--tokenizer", tokenizer, "--seq-len", "64", "--json"]) == 0
heavy = {"numpy", "tokenizers", "torch", "transformers", "logging", "typing", "pathlib", "dataclasses"}
print(sorted(heavy & set(sys.modules)), file=sys.stderr)
""",
        store,
        corpus,
        tokenizer_file,
    )
    assert process.returncode == 0
    assert process.stderr == "[]\n"


@pytest.fixture(scope="module")
def big_corpus(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Some seconds of work for one thread."""
    root = tmp_path_factory.mktemp("big")
    for n in range(3000):
        (root / f"{n}.txt").write_text("".join(f"{n * i:x} lines, {i} of ten thousand\n" for i in range(400)))
    return root


def entries(store: pathlib.Path) -> int:
    try:
        with TokenizedCache.open(store, read_only=True) as cache:
            return cache.entry_count
    except FileNotFoundError:
        return 0


def test_interrupt_and_resume(
    tmp_path: pathlib.Path, big_corpus: pathlib.Path, tokenizer_file: pathlib.Path
) -> None:
    store = tmp_path / "store"
    arguments = ("warm", store, big_corpus, "--tokenizer", tokenizer_file, "--seq-len", LENGTH, "--json")
    process = start(*arguments, "--jobs", 1)
    deadline = time.monotonic() + 120
    while entries(store) == 0 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    output, messages = process.communicate(timeout=120)
    assert process.returncode == 130, messages
    assert "Traceback" not in messages
    first = json.loads(output)
    assert first["interrupted"] is True
    assert 0 < first["stored"] < 3000

    second = command(*arguments)
    assert second["interrupted"] is False
    assert second["hits"] == first["stored"]
    assert second["hits"] + second["misses"] == 3000
    assert entries(store) == 3000


def test_interrupt_outside_of_warm_ends_the_process(tmp_path: pathlib.Path) -> None:
    """Python's own handler would only note the signal, and the command would run on."""
    process = run_python(
        """
import os, signal
from tokcask import _cli, _core
def run_cli(arguments, load, formats):
    os.kill(os.getpid(), signal.SIGINT)
    print("still here")
    return 0
_core.run_cli = run_cli
_cli.main([])
"""
    )
    assert (process.returncode, process.stdout, process.stderr) == (-signal.SIGINT, "", "")


def test_an_ignored_interrupt_stays_ignored() -> None:
    process = run_python(
        """
import signal
signal.signal(signal.SIGINT, signal.SIG_IGN)
from tokcask._cli import main
main(["--version"])
print(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)
"""
    )
    assert process.stdout == f"tokcask {__version__}\nTrue\n"


def test_the_end_of_sequence_is_not_added(
    tmp_path: pathlib.Path, corpus: pathlib.Path, large_tokenizer: Any, tokenizer_file: pathlib.Path
) -> None:
    """The identity is the same, but a row has its end token in its section id, so it never finds a file's entry."""
    sha = warm(tmp_path / "store", corpus, tokenizer_file)["tokenizer_sha"]
    assert large_tokenizer.eos_token == EOS
    assert tokenizer_sha256(large_tokenizer) == sha
    rows = [{"text": file.read_text()} for file in corpus.iterdir() if file.suffix == ".txt"]
    with TokenizedCache.open(tmp_path / "store") as cache:
        made, stats = pretokenize_rows(rows, tokenizer=large_tokenizer, sequence_len=1 << 20, cache=cache)
    assert stats.cache_hits == 0
    assert all(row["input_ids"][-1] == large_tokenizer.eos_token_id for row in made)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[" * 1_000_000,
        b'{"model":' * 100_000,
        b"\xff\xfe",
        b'{"model": {"type": "BPE", "vocab": 1e999}}',
        b"0" * 5_000_000,
    ],
    ids=["empty", "deep", "deep objects", "no text", "number", "long number"],
)
def test_a_file_that_is_no_tokenizer_is_refused(
    tmp_path: pathlib.Path, corpus: pathlib.Path, content: bytes
) -> None:
    file = tmp_path / "tokenizer.json"
    file.write_bytes(content)
    message = warm(tmp_path / "store", corpus, file, code=2)["error"]["message"]
    assert "tokenizer.json" in message
    file.unlink()
    os.mkfifo(file)
    message = warm(tmp_path / "store", corpus, file, code=2)["error"]["message"]
    assert "not a regular file" in message
