"""Rows of text or messages into rows of token ids, each tokenized once."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tokcask._adapters import adapted
from tokcask._core import CachedTokens, CacheKey, TokenizedCache, section_id
from tokcask._encoding import Encoder, Recipe, Section
from tokcask._filling import Store, Tokenizing, chunks
from tokcask._identity import tokenizer_sha256, traits_of


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

    Processes that call this on one store at the same time, as the ranks of a launcher, share the work: each section
    is tokenized by one of them, and by another if that one dies.

    tokenizer     a fast tokenizer of transformers; one of sentencepiece, tiktoken or mistral-common; or a
                  BatchTokenizer. What only behaves like one of transformers is called once per text
    sequence_len  1 to 2**31 - 1
    cache         may be read-only, and then gets nothing new

    Raises ValueError or TypeError, which name the row, for a row that is none of these kinds, and for a
    tokenizer whose content cannot be identified, unless cache is None.
    """
    tokenizer = adapted(tokenizer)
    length = CacheKey("-", "-", sequence_len).sequence_len  # the rules for a length are those of a key
    eos_token = getattr(tokenizer, "eos_token", None)
    originals = list(rows)
    sections = sections_of(originals, eos_token)
    tokens: dict[str, CachedTokens] = {}
    store = None if cache is None else Store(cache, tokenizer_sha256(tokenizer), length)
    if store is not None:
        store.declare(traits_of(tokenizer))
        tokens.update(store.find([section.id for section in sections.values()]))
    missing = {section.id: section for section in sections.values() if section.id not in tokens}
    made_here: set[str] = set()

    def took(made: dict[str, CachedTokens], here: bool) -> None:
        tokens.update(made)
        if here:
            made_here.update(made)

    encoder = Encoder(tokenizer, Recipe(length)) if missing else None
    seconds = 0.0
    if encoder is not None and store is not None:
        seconds = store.fill(missing, encoder.make, in_flight=encoder.in_flight, took=took)
    elif encoder is not None:
        with Tokenizing(encoder.make, encoder.in_flight) as tokenizing:
            for _, made in tokenizing.run((None, chunk) for chunk in chunks(missing.values())):
                took(made, True)
            seconds = tokenizing.seconds
    misses = sum(section.id in made_here for section in sections.values())

    result = [
        _with_tokens(row, tokens[sections[index].id]) if index in sections else dict(row)
        for index, row in enumerate(originals)
    ]
    stats = TokenizationStats(
        total_sections=len(sections),
        cache_hits=len(sections) - misses,
        cache_misses=misses,
        total_tokenize_seconds=seconds,
        cache_bytes_after=0 if store is None else store.finish(seconds),
    )
    return result, stats


def sections_of(rows: Iterable[Mapping[str, Any]], eos_token: str | None) -> dict[int, Section]:
    """What is to be tokenized of each row, by its index."""
    return {
        index: _section(index, row, eos_token) for index, row in enumerate(rows) if not _is_preference(row)
    }


def _is_preference(row: Mapping[str, Any]) -> bool:
    return isinstance(row, Mapping) and all(
        row.get(name) is not None for name in ("prompt", "chosen", "rejected")
    )


def _section(index: int, row: Mapping[str, Any], eos_token: str | None) -> Section:
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


def _text_section(row: Mapping[str, Any], eos_token: str | None) -> Section:
    text = row.get("text")
    if text is None:
        raise ValueError(f"it has neither messages nor text; its fields are {sorted(row)}")
    if not isinstance(text, str):
        raise TypeError(f"text must be a str, not {type(text).__name__}")
    if eos_token and not text.endswith(eos_token):
        text += eos_token
    return Section(_explicit_id(row) or section_id(text, "text"), text=text)


def _messages_section(row: Mapping[str, Any]) -> Section:
    messages, tools = row["messages"], row.get("tools")
    if not isinstance(messages, Sequence) or isinstance(messages, str) or not messages:
        raise ValueError("messages must be a list with at least one message")
    # Not sorted: a template may show the fields of a message in their order.
    try:
        content = json.dumps([messages, tools], ensure_ascii=False, separators=(",", ":"))
    except TypeError as error:
        raise TypeError(f"messages and tools must be of what JSON has: {error}") from error
    return Section(_explicit_id(row) or section_id(content, "messages"), messages=messages, tools=tools)


def _explicit_id(row: Mapping[str, Any]) -> str | None:
    for field in ("_dlm_section_id", "section_id"):
        if row.get(field) is not None:
            return CacheKey(str(row[field]), "-", 1).section_id  # checks it
    return None


def _with_tokens(row: Mapping[str, Any], tokens: CachedTokens) -> dict[str, Any]:
    return {**row, "input_ids": tokens.input_ids, "attention_mask": tokens.attention_mask}
