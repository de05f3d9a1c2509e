"""A row gives exactly the ids that its tokenizer gives when it is called, or an error.

Each test is a way in which a store gave, or could give, other ones. docs/wrong-tokens.md lists them.
"""

from __future__ import annotations

import functools
import json
import pathlib
import pickle
import re
import shutil
import threading
import warnings
from collections.abc import Iterator
from random import Random
from typing import Any

import datasets
import numpy as np
import pytest
import tokcask
import tokenizers
import transformers
from tokcask import CacheKey, TokenizedCache, key_for, pretokenize_rows, section_id, tokenizer_sha256
from tokcask.torch import Collator, TokenDataLoader, TokenDataset
from tokcask.trl import sft_dataset, trainer_args
from tokenizers import models

from conftest import CHAT_TEMPLATE, EOS, texts_of

MARKED = (
    "{% for message in messages %}<{{ message['role'] }}>"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] }}{{ eos_token }}"
    "{% endgeneration %}{% else %}{{ message['content'] }}{% endif %}{% endfor %}"
)


def text_rows(count: int, seed: int = 1) -> list[dict[str, Any]]:
    return [{"text": f"{number} {text}"} for number, text in enumerate(texts_of(Random(seed), count))]


def chat_rows(count: int, seed: int = 2) -> list[dict[str, Any]]:
    return [
        {
            "messages": [
                {"role": "user", "content": row["text"][:60]},
                {"role": "assistant", "content": row["text"]},
            ]
        }
        for row in text_rows(count, seed)
    ]


def plain(tokenizer: Any, row: dict[str, Any], length: int | None, **options: Any) -> list[int]:
    """What the tokenizer gives for a row when it is called, which leaves its truncation set."""
    cut: dict[str, Any] = {} if length is None else {"truncation": True, "max_length": length}
    if "messages" in row:
        made = tokenizer.apply_chat_template(
            row["messages"], tokenize=True, return_dict=True, **cut, **options
        )
    else:
        text = row["text"]
        made = tokenizer(text if text.endswith(tokenizer.eos_token) else text + tokenizer.eos_token, **cut)
    return list(made["input_ids"])


def stored(
    store: pathlib.Path, tokenizer: Any, rows: Any, length: int = 64, **options: Any
) -> list[list[int]]:
    with TokenizedCache.open(store) as cache:
        made, _ = pretokenize_rows(rows, tokenizer=tokenizer, sequence_len=length, cache=cache, **options)
        return [row["input_ids"].tolist() for row in made]


def of_sft(dataset: Any) -> list[tuple[list[int], list[int]]]:
    return [(row["input_ids"].tolist(), row["labels"].tolist()) for row in dataset]


# Cuts.


@pytest.mark.parametrize("lengths", [(None, 32), (64, 32), (256, 64), (32, None, 16)])
@pytest.mark.parametrize("form", ["text", "messages"])
def test_keep_end_at_another_length(
    tmp_path: pathlib.Path, tokenizer: Any, lengths: tuple[int | None, ...], form: str
) -> None:
    rows = text_rows(20) if form == "text" else chat_rows(20)
    whole = [plain(tokenizer, row, None) for row in rows]
    stored(tmp_path / "s", tokenizer, rows, 500)  # an ordinary run, which says how this tokenizer cuts
    for length in lengths:
        made = sft_dataset(
            tmp_path / "s", rows, tokenizer=tokenizer, max_length=length, truncation_mode="keep_end"
        )
        expected = whole if length is None else [ids[-length:] for ids in whole]
        assert [ids for ids, _ in of_sft(made)] == expected


def test_masks_at_another_length(tmp_path: pathlib.Path, tokenizer: Any) -> None:
    tokenizer.chat_template = MARKED
    rows = chat_rows(20)
    stored(tmp_path / "s", tokenizer, rows, 500)
    for mode in ("keep_start", "keep_end"):
        for length in (500, 64, 32, 90):
            options: dict[str, Any] = {
                "tokenizer": tokenizer,
                "max_length": length,
                "truncation_mode": mode,
                "assistant_only_loss": True,
            }
            made = of_sft(sft_dataset(tmp_path / "s", rows, **options))
            fresh = of_sft(sft_dataset(tmp_path / f"{mode}{length}", rows, **options))
            assert made == fresh
            assert any(-100 in labels for _, labels in made)


def test_put_refuses_more_ids_than_the_length(cache: TokenizedCache) -> None:
    with pytest.raises(ValueError, match="3.*2"):
        cache.put(CacheKey("a", "b", 2), tokcask.CachedTokens([1, 2, 3]))
    assert cache.get(CacheKey("a", "b", 2)) is None


# The caller's tokenizer.


def test_a_fill_heeds_no_truncation_that_others_set(tmp_path: pathlib.Path, tokenizer: Any) -> None:
    rows = text_rows(1500) + chat_rows(1500)
    expected = [plain(tokenizer, row, 64) for row in rows[::10]]

    def trimming() -> Iterator[dict[str, Any]]:
        """Rows whose source uses the same tokenizer, as a transform of a Dataset may."""
        for row in rows:
            tokenizer("a text that is cut", truncation=True, max_length=3)
            yield row

    stop = threading.Event()

    def use() -> None:
        while not stop.is_set():
            tokenizer(["one two three four five"] * 3, truncation=True, max_length=2)

    other = threading.Thread(target=use)
    other.start()
    try:
        made = stored(tmp_path / "s", tokenizer, trimming())
    finally:
        stop.set()
        other.join()
    assert made[::10] == expected
    assert stored(tmp_path / "s", tokenizer, rows)[::10] == expected


def test_a_tokenizer_may_be_shared_by_fills(tmp_path: pathlib.Path, tokenizer: Any) -> None:
    rows = text_rows(800)
    expected = {length: [plain(tokenizer, row, length) for row in rows[::8]] for length in (20, 200)}
    made: dict[int, Any] = {}

    def fill(length: int) -> None:
        made[length] = stored(tmp_path / str(length), tokenizer, rows, length)[::8]

    threads = [threading.Thread(target=fill, args=(length,)) for length in expected]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == expected


class Shouting(transformers.PreTrainedTokenizerFast):
    """A fast tokenizer whose calls are not those of its backend."""

    def __call__(self, text: Any = None, **options: Any) -> Any:
        texts = text.upper() if isinstance(text, str) else [one.upper() for one in text]
        return super().__call__(texts, **options)


class Renaming(transformers.PreTrainedTokenizerFast):
    def apply_chat_template(self, conversation: Any, **options: Any) -> Any:
        renamed = [{**message, "role": message["role"].upper()} for message in conversation]
        return super().apply_chat_template(renamed, **options)


class Wrapper:
    """What only behaves like a tokenizer, with the backend of one."""

    def __init__(self, tokenizer: Any) -> None:
        self.inner = tokenizer

    @property
    def backend_tokenizer(self) -> Any:
        return self.inner.backend_tokenizer

    @property
    def eos_token(self) -> Any:
        return self.inner.eos_token

    def __call__(self, text: Any, **options: Any) -> Any:
        return self.inner(text.upper(), **options)

    def apply_chat_template(self, messages: Any, **options: Any) -> Any:
        return self.inner.apply_chat_template(messages[-1:], **options)


def subclassed(kind: type[Any], tokenizer: Any) -> Any:
    return kind(
        tokenizer_object=tokenizer.backend_tokenizer, eos_token=EOS, chat_template=tokenizer.chat_template
    )


@pytest.mark.parametrize("kind", ["plain", "masks", "subclass", "template", "wrapper", "partial"])
def test_a_fill_leaves_the_tokenizer_as_it_was(tmp_path: pathlib.Path, tokenizer: Any, kind: str) -> None:
    tokenizer.chat_template = MARKED
    used = tokenizer
    if kind in ("subclass", "template"):
        used = subclassed({"subclass": Shouting, "template": Renaming}[kind], tokenizer)
    if kind == "wrapper":
        used = Wrapper(tokenizer)
    if kind == "partial":
        used.apply_chat_template = functools.partial(used.apply_chat_template, mood="good")
    backend = used.backend_tokenizer
    for state in (None, {"max_length": 7, "direction": "left"}):
        if state is not None:
            backend.enable_truncation(**state)
            backend.enable_padding(length=9)
        before = backend.to_str()
        if kind == "masks":
            sft_dataset(tmp_path / str(state is None), chat_rows(3), tokenizer=used, assistant_only_loss=True)
        else:
            stored(tmp_path / str(state is None), used, text_rows(3) + chat_rows(3))
        assert backend.to_str() == before
    if kind == "plain":
        backend.no_truncation()
        stored(tmp_path / "again", used, text_rows(3, seed=9))
        used.save_pretrained(tmp_path / "saved")
        assert json.loads((tmp_path / "saved" / "tokenizer.json").read_text())["truncation"] is None


# Identity.


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("kind", ["call", "template", "wrapper", "partial", "override"])
def test_python_code_is_part_of_a_tokenizer(
    tmp_path: pathlib.Path, tokenizer: Any, kind: str, first: int
) -> None:
    tokenizer.chat_template = "{{ mood }}" + CHAT_TEMPLATE
    other: Any
    if kind == "wrapper":
        other = Wrapper(tokenizer)
    elif kind in ("call", "template"):
        other = subclassed({"call": Shouting, "template": Renaming}[kind], tokenizer)
    else:
        other = pickle.loads(pickle.dumps(tokenizer))
        if kind == "partial":
            other.apply_chat_template = functools.partial(other.apply_chat_template, mood="good")
        else:
            original = other._encode_plus
            other._encode_plus = lambda text, **options: original(text[::-1], **options)
    rows = chat_rows(10) if kind in ("template", "partial") else text_rows(10) + chat_rows(10)
    both = [tokenizer, other] if first == 0 else [other, tokenizer]
    expected = [[plain(used, row, 64) for row in rows] for used in both]
    assert expected[0] != expected[1]
    for used, ids in zip(both * 2, expected * 2, strict=True):
        assert stored(tmp_path / "s", used, rows) == ids


def test_a_plain_tokenizer_is_known_as_one(tokenizer: Any) -> None:
    """Or each row would be tokenized by itself, which is right, but slow."""
    from tokcask._code import calls_only_its_backend, renders_plainly

    assert calls_only_its_backend(tokenizer)
    assert renders_plainly(tokenizer)
    assert renders_plainly(pickle.loads(pickle.dumps(tokenizer)))
    assert not calls_only_its_backend(subclassed(Shouting, tokenizer))
    assert not renders_plainly(subclassed(Renaming, tokenizer))
    assert not calls_only_its_backend(Wrapper(tokenizer))


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_class_of_transformers_that_somebody_patched(
    tmp_path: pathlib.Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch, wrapped: bool
) -> None:
    rows = text_rows(10)
    before = stored(tmp_path / "s", tokenizer, rows)
    original = transformers.PreTrainedTokenizerBase.__call__

    def patched(self: Any, text: Any = None, **options: Any) -> Any:
        return original(self, text.upper(), **options)

    if wrapped:
        patched = functools.wraps(original)(patched)
    monkeypatch.setattr(transformers.PreTrainedTokenizerBase, "__call__", patched)
    expected = [plain(tokenizer, row, 64) for row in rows]
    assert expected != before
    assert stored(tmp_path / "s", tokenizer, rows) == expected


class Prefixing(transformers.PreTrainedTokenizerFast):
    prefix = "a "
    pattern = re.compile("o")

    def __call__(self, text: Any = None, **options: Any) -> Any:
        return super().__call__(self.prefix + self.pattern.sub("u", text), **options)


class Delegating:
    """Which has all other attributes of what it wraps, is_fast among them, and thinks of one text."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.calls = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["inner"], name)

    def __call__(self, text: Any, **options: Any) -> Any:
        self.calls += 1
        return self.inner(text[::-1], **options)


def test_the_configuration_of_python_code_is_seen(tmp_path: pathlib.Path, tokenizer: Any) -> None:
    def prefixing(**attributes: Any) -> Any:
        made = subclassed(Prefixing, tokenizer)
        for name, value in attributes.items():
            setattr(made, name, value)
        return made

    def closing(pattern: str) -> Any:
        made = subclassed(Prefixing, tokenizer)
        compiled, original = re.compile(pattern), type(made).__call__
        made.__class__ = type(
            "Prefixing",
            (Prefixing,),
            {"__call__": lambda self, text, **o: original(self, compiled.sub("", text), **o)},
        )
        return made

    rows = text_rows(5)
    kinds = [
        prefixing(),
        prefixing(prefix="b "),
        prefixing(pattern=re.compile("e")),
        closing("q"),
        closing("f"),
        Delegating(tokenizer),
        Delegating(prefixing()),
    ]
    assert len({tokenizer_sha256(kind) for kind in kinds}) == len(kinds)
    for kind in kinds * 2:
        assert stored(tmp_path / "s", kind, rows) == [plain(kind, row, 64) for row in rows]
    counting = Delegating(tokenizer)
    sha = tokenizer_sha256(counting)
    counting("a text")
    assert tokenizer_sha256(counting) == sha  # a counter is no configuration


class Bytes:
    sha256 = "0b" * 32

    def encode_batch(self, texts: Any, max_length: int) -> Any:
        return [list(text.encode())[:max_length] for text in texts]


def test_the_end_of_what_a_tokenizer_cuts_by_itself(tmp_path: pathlib.Path) -> None:
    rows = [{"text": "abcdefgh"}]
    for length in (3, 5, 2):
        made = sft_dataset(
            tmp_path / "s", rows, tokenizer=Bytes(), max_length=length, truncation_mode="keep_end"
        )
        assert bytes(made[0]["input_ids"].tolist()) == b"abcdefgh"[-length:]


def test_labels_are_not_the_ids_themselves(tmp_path: pathlib.Path) -> None:
    row = sft_dataset(tmp_path / "s", [{"text": "abc"}], tokenizer=Bytes())[0]
    row["labels"][:2] = -100
    assert bytes(row["input_ids"].tolist()) == b"abc"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"text": "a", "labels": [1]}], "row 0: it has labels"),
        ([{"text": "a", "input_ids": [1]}], "row 0: it has input_ids"),
        ([{"text": "a", "assistant_masks": [1]}], "row 0: it has assistant_masks"),
        ([{"text": "a", "images": ["x"]}], "row 0: it has images"),
        ([{"text": "a"}, {"messages": [{"role": "user", "content": "a"}]}], "row 1: texts and conversations"),
        (
            [{"messages": [{"from": "user", "value": "a"}]}],
            "row 0: each of its messages must be a dict with a role",
        ),
        (
            [{"messages": [{"role": "user", "content": "a"}], "tools": "["}],
            "row 0: tools is a str that is no JSON",
        ),
    ],
)
def test_refuses_rows_that_trl_would_take_otherwise(
    tmp_path: pathlib.Path, tokenizer: Any, rows: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        sft_dataset(tmp_path / "s", rows, tokenizer=tokenizer)


def test_none_in_a_message_is_what_the_template_makes_of_it(tmp_path: pathlib.Path, tokenizer: Any) -> None:
    """A list of dicts and the Dataset made of it, which has None where a field is absent."""
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.role }}{{ m.content }}{% if m.calls is defined %}[{{ m.calls }}]{% endif %}"
        "{% endfor %}"
    )
    filled = chat_rows(10)
    filled[0]["messages"][0]["calls"] = "x"
    for row in filled[1:]:
        for message in row["messages"]:
            message["calls"] = None
    absent = [
        {"messages": [{k: v for k, v in m.items() if v is not None} for m in row["messages"]]}
        for row in filled
    ]
    for rows in (absent, filled, absent):
        assert stored(tmp_path / "s", tokenizer, rows) == [plain(tokenizer, row, 64) for row in rows]


def test_options_of_a_row_reach_its_template(tmp_path: pathlib.Path, tokenizer: Any) -> None:
    tokenizer.chat_template = "{{ mood }}" + CHAT_TEMPLATE
    rows = [
        {**chat_rows(1)[0], "chat_template_kwargs": given} for given in ({"mood": "a"}, {"mood": "b"}, None)
    ]
    expected = [plain(tokenizer, row, 64, **(row["chat_template_kwargs"] or {})) for row in rows]
    assert stored(tmp_path / "s", tokenizer, rows) == expected
    assert len({tuple(ids) for ids in expected}) == 3
    bad = [{**chat_rows(1)[0], "chat_template_kwargs": {"max_length": 3}}]
    with pytest.raises(ValueError, match="row 0: chat_template_kwargs has max_length"):
        stored(tmp_path / "s", tokenizer, bad)


def test_a_template_that_changes(tmp_path: pathlib.Path, tokenizer: Any) -> None:
    rows = text_rows(5) + chat_rows(5)
    stored(tmp_path / "s", tokenizer, rows)
    tokenizer.chat_template = "{{ bos_token }}" + CHAT_TEMPLATE.replace("<", "[")
    with TokenizedCache.open(tmp_path / "s") as cache:
        made, stats = pretokenize_rows(rows, tokenizer=tokenizer, sequence_len=64, cache=cache)
    assert [row["input_ids"].tolist() for row in made] == [plain(tokenizer, row, 64) for row in rows]
    assert (stats.cache_hits, stats.cache_misses) == (5, 5)  # no template touches a text


def test_a_column_that_is_called_section_id(tmp_path: pathlib.Path, tokenizer: Any) -> None:
    rows = [{**row, "section_id": number % 3} for number, row in enumerate(text_rows(30))]
    assert stored(tmp_path / "s", tokenizer, rows) == [plain(tokenizer, row, 64) for row in rows]


def test_a_tokenizer_that_draws_at_random_is_refused(tmp_path: pathlib.Path) -> None:
    dropping = tokenizers.Tokenizer(models.BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")], dropout=0.5))
    sampling = tokenizers.Tokenizer(
        models.Unigram([("<unk>", 0), ("a", -1), ("b", -1), ("ab", -1)], unk_id=0)
    )
    sha = tokenizer_sha256(sampling)
    sampling.model.alpha = 0.5  # which the library does not serialize
    for backend, why in ((dropping, r"it has a dropout of 0\.5"), (sampling, r"alpha of its model is 0\.5")):
        assert len({tuple(backend.encode("ababababab").ids) for _ in range(50)}) > 1
        for used in (backend, transformers.PreTrainedTokenizerFast(tokenizer_object=dropping)):
            with pytest.raises(ValueError, match=rf"cannot be identified: ({why}|it has).*; pass a"):
                tokenizer_sha256(used)
    sampling.model.alpha = None
    assert tokenizer_sha256(sampling) == sha


def test_the_identity_is_computed_once_per_content(
    tmp_path: pathlib.Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tokcask import _identity

    parsed: list[int] = []
    original = _identity._content
    monkeypatch.setattr(_identity, "_content", lambda *given: parsed.append(1) or original(*given))
    monkeypatch.setattr(_identity, "_known", type(_identity._known)())
    sha = tokenizer_sha256(tokenizer)
    assert tokenizer_sha256(tokenizer) == sha
    assert len(parsed) == 1
    rows = text_rows(3)
    for changed in (False, True):
        if changed:  # in place
            tokenizer.backend_tokenizer.normalizer = tokenizers.normalizers.Lowercase()
        parsed.clear()
        for _ in range(2):
            _identity._known.clear()  # as in another process
            assert stored(tmp_path / "s", tokenizer, rows) == [plain(tokenizer, row, 64) for row in rows]
        assert len(parsed) == 1
    assert tokenizer_sha256(tokenizer) != sha


def test_a_tokenizer_that_is_changed_by_what_makes_the_rows(tmp_path: pathlib.Path, tokenizer: Any) -> None:
    def growing() -> Iterator[dict[str, Any]]:
        for row in text_rows(10):
            tokenizer.backend_tokenizer.add_tokens([row["text"][:5]])
            yield row

    with pytest.raises(ValueError, match="the tokenizer was changed while rows were looked up"):
        stored(tmp_path / "s", tokenizer, growing())
    rows = text_rows(10)
    assert stored(tmp_path / "s", tokenizer, rows) == [plain(tokenizer, row, 64) for row in rows]


@pytest.mark.parametrize("called", [False, True])
def test_one_dict_that_is_filled_again(tmp_path: pathlib.Path, tokenizer: Any, called: bool) -> None:
    if called:
        tokenizer = subclassed(Renaming, tokenizer)
    rows = text_rows(5) + chat_rows(5)
    messages: list[Any] = []

    def stream() -> Iterator[dict[str, Any]]:
        row: dict[str, Any] = {}
        for given in rows:
            row.clear()
            row.update(given)
            if "messages" in given:
                messages[:] = given["messages"]
                row["messages"] = messages
            yield row

    expected = [plain(tokenizer, row, 64) for row in rows]
    assert stored(tmp_path / "s", tokenizer, stream()) == expected
    made = TokenDataset.from_rows(tmp_path / "s", stream(), tokenizer=tokenizer, max_length=64)
    assert [item.input_ids.tolist() for item in made] == expected
    chats = sft_dataset(tmp_path / "s", (row for row in stream() if "messages" in row), tokenizer=tokenizer)
    assert [ids for ids, _ in of_sft(chats)] == [
        plain(tokenizer, row, 1024) for row in rows if "messages" in row
    ]


# The data set.


def test_a_data_set_of_rows_has_their_tokens_and_no_others(tmp_path: pathlib.Path, tokenizer: Any) -> None:
    rows = [*text_rows(20), *chat_rows(5), *text_rows(3)]  # three texts are there twice
    stored(tmp_path / "s", tokenizer, text_rows(20, seed=77))  # another corpus
    old = rows[4]
    for edit in (old, {"text": "edited: " + old["text"]}):
        rows[4] = edit
        dataset = TokenDataset.from_rows(tmp_path / "s", rows, tokenizer=tokenizer, max_length=48)
        assert [item.input_ids.tolist() for item in dataset] == [plain(tokenizer, row, 48) for row in rows]
    assert dataset.stats is not None
    assert (dataset.stats.cache_hits, dataset.stats.cache_misses) == (len(rows) - 1, 1)
    assert plain(tokenizer, old, 48) not in [item.input_ids.tolist() for item in dataset]
    whole = TokenDataset.from_rows(tmp_path / "s", rows, tokenizer=tokenizer)
    assert [item.input_ids.tolist() for item in whole] == [plain(tokenizer, row, None) for row in rows]


def test_the_keys_of_rows(tmp_path: pathlib.Path, tokenizer: Any) -> None:
    rows = [*text_rows(5), {"prompt": "p", "chosen": "c", "rejected": "r"}, *chat_rows(5)]
    with TokenizedCache.open(tmp_path / "s") as cache:
        made, _ = pretokenize_rows(rows, tokenizer=tokenizer, sequence_len=64, cache=cache)
        assert made.keys[5] is None
        for row, key in zip(made, made.keys, strict=True):
            if key is not None:
                assert key == key_for(row, tokenizer=tokenizer, sequence_len=64)
                found = cache.get(key)
                assert found is not None
                assert found.input_ids.tolist() == row["input_ids"].tolist()
        assert made.keys[0].section_id == section_id(rows[0]["text"] + EOS)
    dataset = TokenDataset(tmp_path / "s", [key for key in made.keys if key is not None])
    assert [item.input_ids.tolist() for item in dataset] == [
        row["input_ids"].tolist() for row in made if "input_ids" in row
    ]


def test_a_data_set_without_items_is_an_error(tmp_path: pathlib.Path, tokenizer: Any) -> None:
    """A store in which entries of one length serve all look-ups at another has no entry of that length."""
    stored(tmp_path / "s", tokenizer, text_rows(5), 500)
    stored(tmp_path / "s", tokenizer, text_rows(5), 20)
    with TokenizedCache.open(tmp_path / "s", read_only=True) as cache:
        keys = cache.keys(tokenizer_sha=tokenizer_sha256(tokenizer), sequence_len=20)
    with pytest.raises(ValueError, match=r"a data set without items.*from_rows.*allow_empty"):
        TokenDataset(tmp_path / "s", keys)
    with pytest.raises(ValueError, match="because no key has an entry"):
        TokenDataset(tmp_path / "s", [CacheKey("a", "b", 1)], missing="drop")
    assert len(TokenDataset(tmp_path / "s", [], allow_empty=True)) == 0
    with pytest.raises(ValueError, match="without items"):
        sft_dataset(tmp_path / "s", [], tokenizer=tokenizer)
    assert len(TokenDataset.from_rows(tmp_path / "s", text_rows(5), tokenizer=tokenizer, max_length=20)) == 5


def test_an_entry_with_a_loss_mask_is_no_row_of_a_bare_data_set(
    tmp_path: pathlib.Path, tokenizer: Any
) -> None:
    tokenizer.chat_template = MARKED
    rows = chat_rows(8)
    masked = sft_dataset(tmp_path / "s", rows, tokenizer=tokenizer, assistant_only_loss=True)
    keys = [masked.key(number) for number in range(len(masked))]
    with pytest.raises(ValueError, match=r"only the assistant.*sft_dataset"):
        TokenDataset(tmp_path / "s", keys)
    with TokenizedCache.open(tmp_path / "s") as cache:  # and an inventory of the tokenizer does not have them
        assert cache.keys(tokenizer_sha=tokenizer_sha256(tokenizer)) == []
    again = pickle.loads(pickle.dumps(masked))
    assert of_sft(again) == of_sft(masked)


def test_what_cannot_be_made_again_is_an_error(tmp_path: pathlib.Path, tokenizer: Any) -> None:
    rows = text_rows(6)
    dataset = TokenDataset.from_rows(tmp_path / "s", rows, tokenizer=tokenizer)
    with TokenizedCache.open(tmp_path / "s") as cache:
        cache.clear()
    assert dataset[2].input_ids.tolist() == plain(tokenizer, rows[2], None)
    rows[3]["text"] = "another text"
    with pytest.raises(tokcask.MissingEntryError, match="the row has changed since"):
        dataset[3]
    dataset = TokenDataset.from_rows(tmp_path / "s", rows, tokenizer=tokenizer)
    with TokenizedCache.open(tmp_path / "s") as cache:
        cache.clear()
    tokenizer.backend_tokenizer.normalizer = tokenizers.normalizers.Lowercase()
    with pytest.raises(tokcask.MissingEntryError, match="the tokenizer has changed since"):
        dataset[1]


def test_packs_have_what_is_made(tmp_path: pathlib.Path, tokenizer: Any) -> None:
    rows = text_rows(40)
    dataset = TokenDataset.from_rows(tmp_path / "s", rows, tokenizer=tokenizer, max_length=64)
    with TokenizedCache.open(tmp_path / "s") as cache:
        cache.clear()
    gone = pickle.loads(pickle.dumps(dataset))
    packed = gone.pack(256)
    assert sorted(len(row.input_ids) for pack in packed for row in pack) == sorted(
        len(plain(tokenizer, row, 64)) for row in rows
    )
    batch = Collator(max_length=256)(packed[0])
    assert batch["input_ids"].shape[1] == 256


def test_a_state_goes_on_with_its_own_data_only(tmp_path: pathlib.Path, tokenizer: Any) -> None:
    def loader(rows: Any, **options: Any) -> Any:
        dataset = TokenDataset.from_rows(tmp_path / "s", rows, tokenizer=tokenizer)
        return TokenDataLoader(dataset, **options)

    rows = text_rows(20)
    state = loader(rows, batch_size=4).state_dict()
    loader(rows, batch_size=2).load_state_dict(state)
    for others in (text_rows(20, seed=5), rows[::-1]):
        with pytest.raises(ValueError, match="data is .* in the state"):
            loader(others, batch_size=4).load_state_dict(state)
    batches = [[1, 2], [3, 4], [5, 6]]
    state = loader(rows, batch_sampler=batches).state_dict()
    with pytest.raises(ValueError, match="data is"):
        loader(text_rows(20, seed=5), batch_sampler=batches).load_state_dict(state)
    with pytest.raises(ValueError, match="batches is 3 in the state and 2 here"):
        loader(rows, batch_sampler=batches[:2]).load_state_dict(state)


# Rows that come back.


def test_rows_pin_no_pages(tmp_path: pathlib.Path, tokenizer: Any) -> None:
    """One hit among new rows must not keep the pages that the run frees from being used again."""
    sizes = []
    for hits in (0, 1):
        store = tmp_path / str(hits)
        if hits:
            stored(store, tokenizer, text_rows(1), 500)
        with TokenizedCache.open(store) as cache:
            rows = [*text_rows(1), *text_rows(6000, seed=3)]
            made, stats = pretokenize_rows(rows, tokenizer=tokenizer, sequence_len=500, cache=cache)
            assert stats.cache_hits == hits
            assert cache.stats()["run"]["declined"] == 0
            sizes.append(cache.file_bytes)
            assert made[0]["input_ids"].tolist() == plain(tokenizer, rows[0], 500)
            assert not made[0]["input_ids"].flags.writeable
    assert sizes[1] < 1.3 * sizes[0]


def test_lazy_rows(tmp_path: pathlib.Path, tokenizer: Any) -> None:
    rows = [*text_rows(20), {"prompt": "p", "chosen": "c", "rejected": "r"}, *chat_rows(5)]
    with TokenizedCache.open(tmp_path / "s") as cache:
        made, stats = pretokenize_rows(rows, tokenizer=tokenizer, sequence_len=64, cache=cache, lazy=True)
        eager, _ = pretokenize_rows(rows, tokenizer=tokenizer, sequence_len=64, cache=cache)
        assert made.keys == eager.keys

    def check(given: Any) -> None:
        assert len(given) == len(rows)
        for row, lazy, copied in zip(rows, given, eager, strict=True):
            assert {**lazy, "input_ids": None, "attention_mask": None} == {
                **row,
                "input_ids": None,
                "attention_mask": None,
            }
            if "prompt" not in row:
                assert lazy["input_ids"].tolist() == copied["input_ids"].tolist()

    check(made)  # the cache is closed, and the rows have a view of their own
    check(pickle.loads(pickle.dumps(made)))
    assert datasets.Dataset.from_list(made[:20])[3]["input_ids"] == eager[3]["input_ids"].tolist()
    with TokenizedCache.open(tmp_path / "s") as cache:
        cache.clear()
    check(made)  # made again
    assert stats.total_sections == 25
    with pytest.raises(ValueError, match="lazy=True .* needs a cache"):
        pretokenize_rows(rows, tokenizer=tokenizer, sequence_len=64, lazy=True)


def test_rows_are_read_as_a_stream(
    tmp_path: pathlib.Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tokcask._rows._AT_ONCE", 100)
    rows = text_rows(1000) + text_rows(50)
    seen = []

    def stream() -> Iterator[dict[str, Any]]:
        with TokenizedCache.open(tmp_path / "s", read_only=True) as reader:
            for row in rows:
                seen.append(reader.entry_count)
                yield row

    progress: list[tuple[int, int | None]] = []
    with TokenizedCache.open(tmp_path / "s") as cache:
        made, stats = pretokenize_rows(
            stream(),
            tokenizer=tokenizer,
            sequence_len=64,
            cache=cache,
            progress=lambda done, total: progress.append((done, total)),
        )
    assert [row["input_ids"].tolist() for row in made[::7]] == [
        plain(tokenizer, row, 64) for row in rows[::7]
    ]
    assert max(seen) >= 900  # what came first was stored before the last was asked for
    assert progress[-1] == (1050, None)
    assert len(progress) == 11
    assert (stats.cache_hits, stats.cache_misses) == (0, 1050)  # of equal rows, each is a miss


# TRL's settings.


def sft_config(tmp_path: pathlib.Path, **options: Any) -> Any:
    from trl import SFTConfig

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return SFTConfig(
            output_dir=str(tmp_path / "out"),
            report_to=[],
            use_cpu=True,
            bf16=False,
            **{"dataset_kwargs": {"skip_prepare_dataset": True}, **options},
        )


def test_settings_are_the_trainers(tmp_path: pathlib.Path, tokenizer: Any) -> None:
    rows = [{"content": row["text"]} for row in text_rows(10)]
    config = sft_config(
        tmp_path, max_length=16, truncation_mode="keep_end", dataset_text_field="content", max_steps=1
    )
    by_config = sft_dataset(tmp_path / "s", rows, tokenizer=tokenizer, args=config)
    by_hand = sft_dataset(
        tmp_path / "t",
        rows,
        tokenizer=tokenizer,
        max_length=16,
        truncation_mode="keep_end",
        text_field="content",
    )
    assert of_sft(by_config) == of_sft(by_hand)
    assert max(len(ids) for ids, _ in of_sft(by_config)) == 16
    masked = sft_config(tmp_path, assistant_only_loss=True)
    assert trainer_args(masked).assistant_only_loss is False
    assert masked.assistant_only_loss is True


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"packing": True}, "packing is not prepared here"),
        ({"shuffle_dataset": True}, "shuffle_dataset is not prepared here"),
        ({"eos_token": "<other>"}, "eos_token is '<other>' in args"),
        ({"chat_template_path": "template.jinja"}, "chat_template_path is not prepared here"),
        ({"dataset_kwargs": None}, "skip_prepare_dataset"),
        ({"max_length": 99}, "max_length is 64 here and 99 in args"),
    ],
)
def test_refuses_settings_that_it_would_ignore(
    tmp_path: pathlib.Path, tokenizer: Any, options: dict[str, Any], message: str
) -> None:
    given = {"max_length": 64} if "max_length" in options else {}
    with pytest.raises(ValueError, match=message):
        sft_dataset(
            tmp_path / "s",
            text_rows(3),
            tokenizer=tokenizer,
            args=sft_config(tmp_path, **options),
            **given,
        )


def test_assistant_only_loss_needs_conversations(tmp_path: pathlib.Path, tokenizer: Any) -> None:
    tokenizer.chat_template = MARKED
    with pytest.raises(ValueError, match="row 0: it is a text"):
        sft_dataset(tmp_path / "s", text_rows(3), tokenizer=tokenizer, assistant_only_loss=True)
    tokenizer.chat_template = None
    with pytest.raises(ValueError, match="needs a tokenizer with a chat template"):
        sft_dataset(tmp_path / "s", chat_rows(3), tokenizer=tokenizer, assistant_only_loss=True)


def test_a_formatting_function_makes_the_text(tmp_path: pathlib.Path, tokenizer: Any) -> None:
    rows = [{"a": row["text"], "b": number} for number, row in enumerate(text_rows(5))]
    made = sft_dataset(
        tmp_path / "s", rows, tokenizer=tokenizer, formatting_func=lambda row: f"{row['b']}: {row['a']}"
    )
    expected = [plain(tokenizer, {"text": f"{row['b']}: {row['a']}"}, 1024) for row in rows]
    assert [ids for ids, _ in of_sft(made)] == expected


def test_an_iterable_data_set_is_read(tmp_path: pathlib.Path, tokenizer: Any) -> None:
    rows = text_rows(30)
    stream = datasets.Dataset.from_list(rows).to_iterable_dataset()
    expected = [plain(tokenizer, row, 1024) for row in rows]
    assert [ids for ids, _ in of_sft(sft_dataset(tmp_path / "s", stream, tokenizer=tokenizer))] == expected
    assert [
        item.input_ids.tolist()
        for item in TokenDataset.from_rows(tmp_path / "s", stream, tokenizer=tokenizer)
    ] == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cache": "tokens"}, r"cache must be an open TokenizedCache, not a str.*TokenizedCache\.open"),
        ({"tokenizer": "gpt2"}, r"tokenizer is the name 'gpt2'.*AutoTokenizer\.from_pretrained\('gpt2'\)"),
        ({"rows": datasets.DatasetDict(train=datasets.Dataset.from_list([{"text": "a"}]))}, r"\['train'\]"),
        ({"rows": "a text"}, "rows is a str"),
    ],
)
def test_mistakes_are_named(
    cache: TokenizedCache, tokenizer: Any, change: dict[str, Any], message: str
) -> None:
    given = {"rows": text_rows(2), "tokenizer": tokenizer, "cache": cache, **change}
    with pytest.raises(TypeError, match=message):
        pretokenize_rows(given.pop("rows"), sequence_len=8, **given)


def test_a_data_frame_is_named(cache: TokenizedCache, tokenizer: Any) -> None:
    pandas = pytest.importorskip("pandas")
    with pytest.raises(TypeError, match=r"DataFrame; pass rows\.to_dict\('records'\)"):
        pretokenize_rows(pandas.DataFrame(text_rows(2)), tokenizer=tokenizer, sequence_len=8, cache=cache)


def test_memory_of_rows_is_their_own(tmp_path: pathlib.Path, tokenizer: Any) -> None:
    store = tmp_path / "s"
    stored(store, tokenizer, text_rows(5))
    with TokenizedCache.open(store) as cache:
        made, _ = pretokenize_rows(text_rows(5), tokenizer=tokenizer, sequence_len=64, cache=cache)
    shutil.rmtree(store)
    expected = [plain(tokenizer, row, 64) for row in text_rows(5)]
    assert [np.array(row["input_ids"]).tolist() for row in made] == expected
