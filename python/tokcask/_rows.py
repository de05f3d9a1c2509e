"""Rows of text or messages: what is tokenized of each, under which key, and how it is found or made."""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokcask._adapters import adapted, digest
from tokcask._code import code_of_template, renders_plainly
from tokcask._core import CachedTokens, CacheKey, TokenizedCache, section_id
from tokcask._encoding import Chat, Encoder, Recipe, Section
from tokcask._errors import MissingEntryError
from tokcask._filling import Store, Tokenizing, chunks
from tokcask._identity import identity_of, tokenizer_sha256
from tokcask._progress import Progress, shown

# Rows whose keys are looked up at once, and of which the misses are tokenized before the next.
_AT_ONCE = 10_000
_CHARACTERS_AT_ONCE = 1 << 26
_as_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
# Libraries that render conversations and find masks.
_RENDERERS = ("transformers", "mistral_common", "jinja2")
# Arguments of apply_chat_template() that do not reach the template.
_NOT_FOR_TEMPLATES = frozenset(
    {
        "tokenize",
        "padding",
        "truncation",
        "max_length",
        "return_tensors",
        "return_dict",
        "return_assistant_tokens_mask",
        "tokenizer_kwargs",
        "sanitize_control_tokens",
        "conversation",
    }
)


def length_of(sequence_len: Any) -> int:
    """A sequence length that a key may have; its errors otherwise."""
    return CacheKey("-", "-", sequence_len).sequence_len


class RowReader:
    """What is tokenized of a row, and its identity: of a text the text with its end, of a conversation what the template
    makes of it. Picklable if the tokenizer is."""

    def __init__(
        self,
        tokenizer: Any,
        recipe: Recipe,
        *,
        text_field: str = "text",
        section_field: str | None = None,
        chat_template: str | None = None,
        refused: Mapping[str, str] | None = None,
    ) -> None:
        """refused  fields that a row must not have, and what to do with such a row. Given, rows are also of one kind, and
        messages have roles, as in TRL"""
        self._tokenizer = tokenizer
        self._refused = dict(refused or {})
        self._of_one_kind = bool(refused)
        self._is_chat: bool | None = None
        self._masked = recipe.assistant_mask
        self._text_field = text_field
        self._section_field = section_field
        self._chat_template = chat_template
        self._eos_token: str | None = getattr(tokenizer, "eos_token", None)
        self.look_again()

    def look_again(self) -> None:
        """Finds out how the tokenizer renders: somebody may have put another function on it since."""
        self._plainly = renders_plainly(self._tokenizer)

    def section(self, place: int, row: Any) -> Section:
        """Of the row at this place, by which errors name it."""
        if not isinstance(row, Mapping):
            raise TypeError(f"row {place} is a {type(row).__name__}, not a dict")
        try:
            for field, remedy in self._refused.items():
                if row.get(field) is not None:
                    raise ValueError(f"it has {field}; {remedy}")
            is_chat = row.get("messages") is not None
            section = self._conversation(row) if is_chat else self._text(row)
            if self._of_one_kind:
                if self._is_chat not in (None, is_chat):
                    raise ValueError("texts and conversations are mixed; make a data set of each")
                self._is_chat = is_chat
            return section
        except (TypeError, ValueError) as error:
            kind = TypeError if isinstance(error, TypeError) else ValueError
            raise kind(f"row {place}: {error}") from error

    def _text(self, row: Mapping[str, Any]) -> Section:
        text = row.get(self._text_field)
        if text is None:
            empty = f" ({self._text_field} is None)" if self._text_field in row else ""
            raise ValueError(
                f"it has neither messages nor {self._text_field}; its fields are {sorted(row)}{empty}"
            )
        if not isinstance(text, str):
            raise TypeError(f"{self._text_field} must be a str, not {type(text).__name__}")
        if self._masked:
            raise ValueError(
                "it is a text; the loss of the assistant's tokens alone needs rows with messages"
            )
        if self._eos_token and not text.endswith(self._eos_token):
            text += self._eos_token
        return Section(self._given_id(row) or section_id(text, "text"), text)

    def _conversation(self, row: Mapping[str, Any]) -> Section:
        messages, tools = row["messages"], row.get("tools")
        if not isinstance(messages, Sequence) or isinstance(messages, str) or not messages:
            raise ValueError("messages must be a list with at least one message")
        if self._of_one_kind and not all(isinstance(one, Mapping) and "role" in one for one in messages):
            raise ValueError("each of its messages must be a dict with a role")
        template = getattr(self._tokenizer, "apply_chat_template", None)
        if template is None:
            raise TypeError(
                f"{type(self._tokenizer).__name__} has no apply_chat_template(), which rows with messages need; "
                "use the tokenizer of transformers for them"
            )
        if isinstance(tools, str):
            try:
                tools = json.loads(tools)
            except ValueError as error:
                raise ValueError(f"tools is a str that is no JSON: {error}") from error
        given = row.get("chat_template_kwargs") or {}
        if refused := sorted(_NOT_FOR_TEMPLATES.intersection(given)):
            raise ValueError(
                f"chat_template_kwargs has {', '.join(refused)}, which is not for a template; leave it out"
            )
        options: dict[str, Any] = {}
        if tools is not None:
            options["tools"] = tools
        if self._chat_template is not None:
            options["chat_template"] = self._chat_template
        options.update(given)
        try:
            content = _as_json([messages, options])
        except TypeError as error:
            raise TypeError(f"messages and tools must be of what JSON has: {error}") from error
        try:
            rendered = template(messages, **options, tokenize=False)
        except Exception as error:  # jinja2's errors are of many kinds
            raise ValueError(f"its messages do not go through the chat template: {error}") from error
        if not isinstance(rendered, str):
            raise TypeError(
                f"apply_chat_template(tokenize=False) returned a {type(rendered).__name__}, not a str"
            )
        given_id = self._given_id(row)
        if self._plainly and not self._masked:
            return Section(given_id or section_id(rendered, "chat"), rendered, special_tokens=False)
        # Ids or masks may depend on more than the rendered text.
        # A stream may have filled them for another row by the time they are tokenized.
        messages, options = copy.deepcopy((messages, options))
        how = [self._how_rendered(options), content, rendered]
        return Section(
            given_id or section_id(digest(how), "chat-called"), rendered, chat=Chat(messages, options)
        )

    def _how_rendered(self, options: Mapping[str, Any]) -> Any:
        template = options.get("chat_template") or getattr(self._tokenizer, "chat_template", None)
        versions = [str(getattr(sys.modules.get(name), "__version__", "")) for name in _RENDERERS]
        return [versions, template, code_of_template(self._tokenizer)]

    def _given_id(self, row: Mapping[str, Any]) -> str | None:
        if self._section_field is None:
            return None
        given = row.get(self._section_field)
        if given is None:
            raise ValueError(f"it has no {self._section_field}, which was named as section_field")
        return CacheKey(str(given), "-", 1).section_id  # checks it


@dataclass(frozen=True)
class TokenizationStats:
    """What was made of rows. cache_hits + cache_misses == total_sections."""

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


class Filler:
    """Has sections found in a store or made. Without a cache, all are made."""

    def __init__(self, tokenizer: Any, recipe: Recipe, cache: TokenizedCache | None) -> None:
        self.seconds = 0.0
        """Spent in the tokenizer."""
        self._tokenizer = tokenizer
        self._recipe = recipe
        self._encoder: Encoder | None = None
        self.store = (
            None
            if cache is None
            else Store(cache, recipe.identity(identity_of(tokenizer, cache)), recipe.length)
        )

    def key(self, section: str) -> CacheKey:
        assert self.store is not None
        return self.store.key(section)

    def run(
        self, sections: Mapping[str, Section], took: Callable[[Mapping[str, CachedTokens], bool], None]
    ) -> None:
        """Calls took() with the tokens of all sections, in parts, and whether they were made here.

        What was not made here lies in the store's map: took() must not keep it, or its pages stay occupied while the
        rest is stored.
        """
        missing = dict(sections)
        if self.store is not None:
            self.store.watch()
            found = self.store.find(list(missing))
            took(found, False)
            for section in found:
                del missing[section]
            del found
        if not missing:
            return
        encoder = self._prepared()
        if self.store is not None:
            self.seconds += self.store.fill(missing, encoder.make, in_flight=encoder.in_flight, took=took)
            return
        with Tokenizing(encoder.make, encoder.in_flight) as tokenizing:
            for _, made in tokenizing.run((None, part) for part in chunks(missing.values())):
                took(made, True)
            self.seconds += tokenizing.seconds

    def finish(self) -> int:
        """Commits all; the bytes that the store has then."""
        return 0 if self.store is None else self.store.finish(self.seconds)

    def _prepared(self) -> Encoder:
        """Copying a tokenizer takes a second if it is large, and is not needed where nothing is missing."""
        if self._encoder is None:
            self._encoder = Encoder(self._tokenizer, self._recipe)
            if self.store is not None:
                if self._recipe.identity(tokenizer_sha256(self._tokenizer)) != self.store.tokenizer_sha:
                    raise ValueError(
                        "the tokenizer was changed while rows were looked up (by another thread, or by what makes the "
                        "rows), so it is not the one of the keys any more; change it before"
                    )
                self.store.declare(self._encoder.traits)
        return self._encoder


def read_in_parts(
    rows: Iterable[Any], reader: RowReader, progress: Progress, *, others: bool = False
) -> Iterator[list[tuple[Any, Section | None]]]:
    """The rows with their sections, as many at a time as are looked up at once. With others, rows of preferences have
    none; otherwise they are an error like any other row."""
    total = len(rows) if isinstance(rows, Sized) else None
    with shown(progress, total, "tokcask") as report:
        part: list[tuple[Any, Section | None]] = []
        characters = 0
        for place, row in enumerate(_checked(rows)):
            section = None if others and is_preference(row) else reader.section(place, row)
            # A copy, because a stream may fill one dict again and again.
            part.append((dict(row), section))
            characters += 0 if section is None else len(section.text)
            if len(part) >= _AT_ONCE or characters >= _CHARACTERS_AT_ONCE:
                yield part
                report(len(part))
                part, characters = [], 0
                reader.look_again()
        if part:
            yield part
            report(len(part))


def filled(
    filler: Filler,
    rows: Iterable[Any],
    reader: RowReader,
    progress: Progress,
    took: Callable[[Mapping[str, CachedTokens]], None] = lambda given: None,
) -> tuple[list[str], TokenizationStats]:
    """Has the store filled with the tokens of rows. The section id of each row, and what was done.

    took() gets the tokens of each section once, in parts; it must not keep them.
    """
    ids: list[str] = []
    seen: set[str] = set()
    made_here: set[str] = set()

    def take(given: Mapping[str, CachedTokens], here: bool) -> None:
        seen.update(given)
        if here:
            made_here.update(given)
        took(given)

    for part in read_in_parts(rows, reader, progress):
        sections = sections_of(part)
        filler.run({name: section for name, section in sections.items() if name not in seen}, take)
        ids += [section.id for _, section in part if section is not None]
    misses = sum(section in made_here for section in ids)
    return ids, TokenizationStats(len(ids), len(ids) - misses, misses, filler.seconds, filler.finish())


def sections_of(part: list[tuple[Any, Section | None]]) -> dict[str, Section]:
    return {section.id: section for _, section in part if section is not None}


def is_preference(row: Any) -> bool:
    return isinstance(row, Mapping) and all(
        row.get(name) is not None for name in ("prompt", "chosen", "rejected")
    )


def _checked(rows: Any) -> Iterable[Any]:
    if isinstance(rows, Mapping):
        raise TypeError(
            f"rows is a {type(rows).__name__} with {sorted(map(str, rows))}, not rows; pass one of its values, or a list of "
            "dicts"
        )
    if hasattr(rows, "iloc"):
        raise TypeError(
            f"rows is a {type(rows).__name__}; pass rows.to_dict('records') or datasets.Dataset.from_pandas(rows)"
        )
    if isinstance(rows, str) or not hasattr(rows, "__iter__"):
        raise TypeError(f"rows is a {type(rows).__name__}; pass a list of dicts, e.g. [{{'text': ...}}]")
    return rows  # type: ignore[no-any-return]


def indexable(rows: Iterable[Any]) -> Any:
    """The rows as something with a length and items; a stream is read into a list."""
    _checked(rows)
    if hasattr(rows, "__len__") and hasattr(rows, "__getitem__"):
        return rows
    return [copy.deepcopy(row) for row in rows]  # a stream may fill one dict again and again


class RowMaker:
    """Makes the tokens of rows again: of those that a store has no room for, or not any more.

    Called with the index of an item. Picklable as its parts.
    """

    def __init__(self, rows: Any, tokenizer: Any, recipe: Recipe, reader: RowReader) -> None:
        self.rows = rows
        self.places: NDArray[np.int64] = np.zeros(0, np.int64)
        """The row of each item."""
        self._tokenizer = tokenizer
        self._recipe = recipe
        self._reader = reader
        self._encoder: Encoder | None = None
        self._sha = ""

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_encoder": None}

    def __call__(self, index: int) -> CachedTokens:
        return self.of_key(index, None)

    def of_key(self, index: int, key: CacheKey | None) -> CachedTokens:
        """The tokens of an item. MissingEntryError if they would not be those of its key any more."""
        place = int(self.places[index])
        self._reader.look_again()
        section = self._reader.section(place, self.rows[place])
        if self._encoder is None:
            self._sha = self._recipe.identity(tokenizer_sha256(self._tokenizer))
            self._encoder = Encoder(self._tokenizer, self._recipe)
        if key is not None and (section.id, self._sha) != (key.section_id, key.tokenizer_sha):
            changed = "the row has" if self._sha == key.tokenizer_sha else "the tokenizer has"
            raise MissingEntryError(
                f"item {index} ({key}) is not in the store, and {changed} changed since the data set was made, so its "
                "tokens cannot be made again; make the data set again"
            )
        (made,) = self._encoder.make([section]).values()
        return made


def key_for(
    row: Mapping[str, Any],
    *,
    tokenizer: Any,
    sequence_len: int,
    text_field: str = "text",
    section_field: str | None = None,
) -> CacheKey:
    """The key under which pretokenize_rows() and TokenDataset.from_rows() keep the tokens of a row.

    The section id of a text is that of the text with the tokenizer's eos_token at its end. That of a conversation is
    made of the text that the chat template renders, so that another template, date or version of a library is another
    key. Arguments and errors are those of pretokenize_rows().
    """
    tokenizer = adapted(tokenizer)
    reader = RowReader(
        tokenizer, Recipe(length_of(sequence_len)), text_field=text_field, section_field=section_field
    )
    return CacheKey(reader.section(0, row).id, tokenizer_sha256(tokenizer), sequence_len)
