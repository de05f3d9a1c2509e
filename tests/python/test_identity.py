"""tokenizer_sha256: one identity for one content, whatever state is set."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import tokenizers
import transformers
from tokcask import tokenizer_sha256
from tokenizers import models, pre_tokenizers, processors

from conftest import CHAT_TEMPLATE, EOS


def small(words: dict[str, int] | None = None) -> Any:
    """A backend that is quick to make and to hash."""
    vocabulary = {"[UNK]": 0, "hello": 1, "world": 2, EOS: 3} if words is None else words
    backend = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return backend


def wrapped(**options: Any) -> Any:
    backend = small()
    # A wrapper would add its special tokens to the backend; so only the wrappers differ.
    backend.add_special_tokens(["hello", "world", EOS])
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend, **options)


def test_is_stable_over_objects_and_wrappers(large_backend: Any, tokenizer_file: Any, tmp_path: Any) -> None:
    sha = tokenizer_sha256(large_backend)
    assert re.fullmatch("[0-9a-f]{64}", sha)
    plain = transformers.PreTrainedTokenizerFast(tokenizer_file=str(tokenizer_file))
    assert tokenizer_sha256(plain) == sha
    large_backend.save(str(tmp_path / "again.json"))
    assert tokenizer_sha256(tokenizers.Tokenizer.from_file(str(tmp_path / "again.json"))) == sha


def test_a_known_value() -> None:
    """What is stored under it must be found by the next version."""
    content = (
        '{"version": "1.0", "truncation": {"max_length": 3}, "padding": null, "model": {"type": "WordLevel", '
        '"vocab": {"b": 2, "[UNK]": 0, "\u00e4": 1}, "unk_token": "[UNK]"}}'
    )

    class Backend:
        def to_str(self) -> str:
            return content

    import hashlib

    canonical = (
        '{"model":{"type":"WordLevel","unk_token":"[UNK]","vocab":{"[UNK]":0,"b":2,"ä":1}},"version":"1.0"}'
    )
    assert tokenizer_sha256(Backend()) == hashlib.sha256(canonical.encode()).hexdigest()


def test_padding_and_truncation_are_state() -> None:
    backend = small()
    sha = tokenizer_sha256(backend)
    backend.enable_truncation(7, stride=2, direction="left")
    backend.enable_padding(length=9, direction="left")
    state = (backend.truncation, backend.padding)
    assert tokenizer_sha256(backend) == sha
    assert (backend.truncation, backend.padding) == state


def test_calls_do_not_change_a_wrapper() -> None:
    tokenizer = wrapped(eos_token=EOS, chat_template=CHAT_TEMPLATE)
    assert tokenizer.pad_token is None
    sha = tokenizer_sha256(tokenizer)
    tokenizer("hello world", truncation=True, max_length=1)
    assert tokenizer_sha256(tokenizer) == sha
    tokenizer.pad_token = EOS
    tokenizer.padding_side = "left"
    tokenizer(["hello", "hello world"], padding=True)
    assert tokenizer_sha256(tokenizer) == sha
    tokenizer.model_max_length = 5
    assert tokenizer_sha256(tokenizer) == sha


def test_changes_are_seen() -> None:
    def with_change(change: Callable[[Any], Any]) -> str:
        tokenizer = wrapped()
        change(tokenizer)
        return tokenizer_sha256(tokenizer)

    def backend_with(change: Callable[[Any], Any]) -> str:
        backend = small()
        change(backend)
        return tokenizer_sha256(backend)

    shas = [
        tokenizer_sha256(small()),
        tokenizer_sha256(small({"[UNK]": 0, "hello": 2, "world": 1, EOS: 3})),
        tokenizer_sha256(small({"[UNK]": 0, "hello": 1})),
        backend_with(lambda backend: backend.add_tokens(["new"])),
        backend_with(lambda backend: setattr(backend, "pre_tokenizer", pre_tokenizers.ByteLevel())),
        backend_with(lambda backend: setattr(backend, "encode_special_tokens", True)),
        with_change(lambda tokenizer: setattr(tokenizer, "truncation_side", "left")),
    ]
    assert len(set(shas)) == len(shas)
    assert (
        len({*shas, tokenizer_sha256(wrapped()), tokenizer_sha256(wrapped(split_special_tokens=True))})
        == len(shas) + 2
    )


def test_a_plain_wrapper_is_its_backend() -> None:
    backend = small()
    assert tokenizer_sha256(
        transformers.PreTrainedTokenizerFast(tokenizer_object=backend)
    ) == tokenizer_sha256(backend)
    backend.encode_special_tokens = True
    split = transformers.PreTrainedTokenizerFast(tokenizer_object=small(), split_special_tokens=True)
    assert tokenizer_sha256(split) == tokenizer_sha256(backend)
    backend = small()
    backend.post_processor = processors.TemplateProcessing(single="hello $A", special_tokens=[("hello", 1)])
    assert tokenizer_sha256(backend) != tokenizer_sha256(small())


def test_what_changes_no_id_of_a_text_does_not_count() -> None:
    plain = wrapped()
    sha = tokenizer_sha256(plain)
    for name, value in (
        ("chat_template", CHAT_TEMPLATE),
        ("chat_template", {"default": CHAT_TEMPLATE}),
        ("eos_token", "world"),
        ("bos_token", "hello"),
        ("pad_token", EOS),
    ):
        setattr(plain, name, value)
        assert tokenizer_sha256(plain) == sha
        assert plain("hello world")["input_ids"] == wrapped()("hello world")["input_ids"]


def test_no_state_is_left_over() -> None:
    """The identity is worked out anew each time, so a change in place cannot be missed."""
    backend = small()
    sha = tokenizer_sha256(backend)
    backend.add_special_tokens(["<new>"])
    assert tokenizer_sha256(backend) != sha


class Upper:
    def pre_tokenize(self, text: Any) -> None: ...


def with_python_part() -> Any:
    backend = small()
    backend.pre_tokenizer = pre_tokenizers.PreTokenizer.custom(Upper())
    return backend


class Serializes:
    def __init__(self, text: Any) -> None:
        self.text = text

    def to_str(self) -> Any:
        return self.text


@pytest.mark.parametrize(
    "tokenizer",
    [
        None,
        "deepseek",
        str.split,
        models.WordLevel({"a": 0}),
        with_python_part(),
        Serializes("no JSON"),
        Serializes("[]"),
        Serializes("{}"),
        Serializes('{"model": {}}'),
        Serializes('{"model": {"vocab": 3}}'),
        Serializes(None),
    ],
    ids=lambda value: type(value).__name__,
)
def test_refuses_what_cannot_be_identified(tokenizer: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=r"cannot be identified.*; pass a"):
        tokenizer_sha256(tokenizer)


def test_refuses_a_tokenizer_written_in_python(tmp_path: Any) -> None:
    class Letters(transformers.PreTrainedTokenizerBase):
        def __len__(self) -> int:
            return 26

    with pytest.raises(TypeError, match=r"Letters cannot be identified.*fast tokenizer"):
        tokenizer_sha256(Letters())
