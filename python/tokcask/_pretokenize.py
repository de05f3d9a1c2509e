"""Rows of text or messages into rows of token ids, each tokenized once."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from tokcask._arrays import as_int32
from tokcask._core import CachedTokens, CacheKey, TokenizedCache, section_id
from tokcask._identity import tokenizer_sha256, truncation_traits

# Sections that are tokenized, and then stored, at a time: what a crash can cost.
_BATCH = 1000


@dataclass(frozen=True)
class TokenizationStats:
    """What pretokenize_rows() did. cache_hits + cache_misses == total_sections."""

    total_sections: int
    """Rows that were to be tokenized; preference rows are not."""
    cache_hits: int
    """Rows whose tokens were in the cache."""
    cache_misses: int
    """All others, also without a cache. Rows of the same content are tokenized once, but each is a miss."""
    total_tokenize_seconds: float
    """Seconds spent in the tokenizer."""
    cache_bytes_after: int
    """cache.total_bytes at the end; 0 without a cache."""


@dataclass(frozen=True)
class _Section:
    """A row's text or messages, and its identity."""

    id: str
    text: str | None = None
    messages: Sequence[Any] | None = None
    tools: Any = None


def pretokenize_rows(
    rows: Iterable[Mapping[str, Any]],
    *,
    tokenizer: Any,
    sequence_len: int,
    cache: TokenizedCache | None = None,
) -> tuple[list[dict[str, Any]], TokenizationStats]:
    """Tokenizes rows, or takes their tokens from the cache; new ones are put into it.

    A row with `messages` goes through the tokenizer's chat template, together with the row's `tools` if it
    has any. Of any other, `text` is tokenized, with the tokenizer's eos_token appended unless the text ends
    with it. A row with `prompt`, `chosen` and `rejected` (none of them None) comes back unchanged and is not
    counted.

    Returns the rows in their order, as new dicts with all their fields and in addition `input_ids` and
    `attention_mask`: 1-D read-only int32 arrays of NumPy, cut to sequence_len. Those from the cache lie in
    the store's memory map (see CachedTokens). datasets.Dataset.from_list takes such rows; a trainer takes
    "input_ids" as a sign that there is nothing left to tokenize.

    A row with a `_dlm_section_id` or `section_id` has that as its key's section id: it must change whenever
    the content does, as a hash of it. Any other row's is made of its content: of the text with its end, or
    of messages and tools. (What a chat template takes from elsewhere, e.g. the date, is not seen.) Rows of
    equal keys are tokenized once. All keys are looked up in one batch; then the misses are
    tokenized and stored, a thousand at a time. At the end the cache is flushed.

    tokenizer     a fast tokenizer of transformers; what only behaves like one is called once per text
    sequence_len  1 to 2**31 - 1
    cache         may be read-only, and then gets nothing new

    Raises ValueError or TypeError, which name the row, for a row that is none of these kinds, and for a
    tokenizer whose content cannot be identified, unless cache is None.
    """
    if not callable(tokenizer):
        raise TypeError(
            f"a {type(tokenizer).__name__} cannot be called with a text; wrap it: "
            "transformers.PreTrainedTokenizerFast(tokenizer_object=...)"
        )
    length = CacheKey("-", "-", sequence_len).sequence_len  # the rules for a length are those of a key
    eos_token = getattr(tokenizer, "eos_token", None)
    originals = list(rows)
    sections = {
        index: _section(index, row, eos_token)
        for index, row in enumerate(originals)
        if not _is_preference(row)
    }
    tokens: dict[str, CachedTokens] = {}
    store = None if cache is None else _Store(cache, tokenizer_sha256(tokenizer), length)
    if store is not None:
        store.declare(tokenizer)
        tokens.update(store.find([section.id for section in sections.values()]))
    hits = sum(section.id in tokens for section in sections.values())

    missing = {section.id: section for section in sections.values() if section.id not in tokens}
    seconds = 0.0
    for batch in _batches(missing.values()):
        start = time.perf_counter()
        made = _tokenize(batch, tokenizer, length)
        seconds += time.perf_counter() - start
        if store is not None:
            store.add(made)
        tokens.update(made)

    result = [
        _with_tokens(row, tokens[sections[index].id]) if index in sections else dict(row)
        for index, row in enumerate(originals)
    ]
    stats = TokenizationStats(
        total_sections=len(sections),
        cache_hits=hits,
        cache_misses=len(sections) - hits,
        total_tokenize_seconds=seconds,
        cache_bytes_after=0 if store is None else store.finish(seconds),
    )
    return result, stats


class _Store:
    """The cache under the keys of one tokenizer and length."""

    def __init__(self, cache: TokenizedCache, tokenizer_sha: str, sequence_len: int) -> None:
        self._cache = cache
        self._tokenizer_sha = tokenizer_sha
        self._sequence_len = sequence_len

    def _key(self, section: str) -> CacheKey:
        return CacheKey(section, self._tokenizer_sha, self._sequence_len)

    def declare(self, tokenizer: Any) -> None:
        """Lets entries of other lengths serve, as far as it is known how the tokenizer cuts."""
        at_length, to_prefix = truncation_traits(
            getattr(tokenizer, "backend_tokenizer", None), getattr(tokenizer, "truncation_side", "right")
        )
        if at_length or to_prefix:
            self._cache.declare_tokenizer(
                self._tokenizer_sha, cuts_at_length=at_length, cuts_to_prefix=to_prefix
            )

    def find(self, sections: list[str]) -> dict[str, CachedTokens]:
        found = self._cache.get_many([self._key(section) for section in sections])
        return {
            section: tokens for section, tokens in zip(sections, found, strict=True) if tokens is not None
        }

    def add(self, made: dict[str, CachedTokens]) -> None:
        if not self._cache.read_only:
            self._cache.put_many([(self._key(section), tokens) for section, tokens in made.items()])

    def finish(self, tokenize_seconds: float) -> int:
        self._cache.add_tokenize_seconds(tokenize_seconds)
        if not self._cache.read_only:
            self._cache.flush()
        return self._cache.total_bytes


def _is_preference(row: Mapping[str, Any]) -> bool:
    return isinstance(row, Mapping) and all(
        row.get(name) is not None for name in ("prompt", "chosen", "rejected")
    )


def _section(index: int, row: Mapping[str, Any], eos_token: str | None) -> _Section:
    if not isinstance(row, Mapping):
        raise TypeError(f"row {index} is a {type(row).__name__}, not a dict")
    try:
        if row.get("messages") is not None:
            return _messages_section(row)
        return _text_section(row, eos_token)
    except UnicodeError as error:
        raise ValueError(f"row {index}: {error}") from error
    except (TypeError, ValueError) as error:
        raise type(error)(f"row {index}: {error}") from error


def _text_section(row: Mapping[str, Any], eos_token: str | None) -> _Section:
    text = row.get("text")
    if text is None:
        raise ValueError(f"it has neither messages nor text; its fields are {sorted(row)}")
    if not isinstance(text, str):
        raise TypeError(f"text must be a str, not {type(text).__name__}")
    if eos_token and not text.endswith(eos_token):
        text += eos_token
    return _Section(_explicit_id(row) or section_id(text, "text"), text=text)


def _messages_section(row: Mapping[str, Any]) -> _Section:
    messages, tools = row["messages"], row.get("tools")
    if not isinstance(messages, Sequence) or isinstance(messages, str) or not messages:
        raise ValueError("messages must be a list with at least one message")
    # Not sorted: a template may show the fields of a message in their order.
    try:
        content = json.dumps([messages, tools], ensure_ascii=False, separators=(",", ":"))
    except TypeError as error:
        raise TypeError(f"messages and tools must be of what JSON has: {error}") from error
    return _Section(_explicit_id(row) or section_id(content, "messages"), messages=messages, tools=tools)


def _explicit_id(row: Mapping[str, Any]) -> str | None:
    for field in ("_dlm_section_id", "section_id"):
        if row.get(field) is not None:
            return CacheKey(str(row[field]), "-", 1).section_id  # checks it
    return None


def _batches(sections: Iterable[_Section]) -> Iterator[list[_Section]]:
    iterator = iter(sections)
    while batch := list(islice(iterator, _BATCH)):
        yield batch


def _tokenize(sections: list[_Section], tokenizer: Any, length: int) -> dict[str, CachedTokens]:
    options = {"truncation": True, "max_length": length}
    made: dict[str, CachedTokens] = {}
    texts = [section for section in sections if section.text is not None]
    if texts and getattr(tokenizer, "is_fast", False):
        batch = tokenizer(text=[section.text for section in texts], padding=False, **options)
        masks = batch.get("attention_mask") or [None] * len(texts)
        for section, ids, mask in zip(texts, batch["input_ids"], masks, strict=True):
            made[section.id] = _cut(ids, mask, length)
    else:
        for section in texts:
            single = tokenizer(text=section.text, padding=False, **options)
            made[section.id] = _cut(single["input_ids"], single.get("attention_mask"), length)
    for section in sections:
        if section.messages is None:
            continue
        tools = {} if section.tools is None else {"tools": section.tools}
        single = tokenizer.apply_chat_template(
            section.messages, tokenize=True, return_dict=True, add_generation_prompt=False, **options, **tools
        )
        made[section.id] = _cut(single["input_ids"], single.get("attention_mask"), length)
    return made


def _cut(input_ids: Any, attention_mask: Any, length: int) -> CachedTokens:
    def array(values: Any, name: str) -> Any:
        values = np.asarray(values)
        if values.ndim == 2 and len(values) == 1:  # a batch of one
            values = values[0]
        result = as_int32(values[:length], name).copy()
        result.flags.writeable = False
        return result

    mask = None if attention_mask is None else array(attention_mask, "attention_mask")
    return CachedTokens(array(input_ids, "input_ids"), mask)


def _with_tokens(row: Mapping[str, Any], tokens: CachedTokens) -> dict[str, Any]:
    return {**row, "input_ids": tokens.input_ids, "attention_mask": tokens.attention_mask}
