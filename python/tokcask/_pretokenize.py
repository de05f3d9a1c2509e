"""Rows of text or messages into rows of token ids, each tokenized once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, SupportsIndex, overload

import numpy as np

from tokcask._adapters import adapted
from tokcask._core import CachedTokens, CacheKey, Dataset, TokenizedCache
from tokcask._encoding import Recipe
from tokcask._progress import Progress
from tokcask._rows import (
    Filler,
    RowMaker,
    RowReader,
    TokenizationStats,
    length_of,
    read_in_parts,
    sections_of,
)


class _Keyed:
    """The keys of rows, made of their section ids when they are asked for: each takes 350 bytes."""

    def __init__(self, sections: list[str | None], tokenizer_sha: str | None, length: int) -> None:
        self._sections = sections
        self._tokenizer_sha = tokenizer_sha
        self._length = length

    def key(self, place: int) -> CacheKey | None:
        section = self._sections[place]
        if section is None or self._tokenizer_sha is None:
            return None
        return CacheKey(section, self._tokenizer_sha, self._length)

    def all(self) -> list[CacheKey | None]:
        return [self.key(place) for place in range(len(self._sections))]


class TokenizedRows(list[dict[str, Any]]):
    """The list that pretokenize_rows() returns."""

    _keyed = _Keyed([], None, 1)

    @property
    def keys(self) -> list[CacheKey | None]:
        """The key of each row, in the order in which they were returned, for TokenizedCache.get() or TokenDataset. None for a
        row of preferences, and for all rows without a cache. A new list for each call."""
        return self._keyed.all()


class LazyRows(Sequence[dict[str, Any]]):
    """What pretokenize_rows(lazy=True) returns: rows that read their tokens from the store when they are asked for.

    rows[i] is a new dict, whose arrays lie in the store's memory map: hold a batch, not an epoch. A row that the store
    has no entry for, or not any more, is tokenized again. Picklable if the rows and the tokenizer are. Any thread.
    """

    def __init__(self, rows: list[Any], keyed: _Keyed, cache: TokenizedCache, maker: RowMaker) -> None:
        self._rows = rows
        self._keyed = keyed
        self._maker = maker
        keys = [(place, key) for place, key in enumerate(keyed.all()) if key is not None]
        maker.places = np.array([place for place, _ in keys], np.int64)
        self._native = Dataset(cache.root, (key for _, key in keys), missing="keep")

    @property
    def keys(self) -> list[CacheKey | None]:
        """The key of each row; None for a row of preferences."""
        return self._keyed.all()

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: SupportsIndex) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        place = range(len(self))[index]
        item = int(np.searchsorted(self._maker.places, place))
        if item == len(self._maker.places) or self._maker.places[item] != place:
            return dict(self._rows[place])
        tokens = self._native.item(item)
        if tokens is None:
            tokens = self._maker.of_key(item, self._native.key(item))
        return _with_tokens(self._rows[place], tokens)

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self._rows, self._keyed, self._native.root, self._native.packed_keys(), self._maker)


def _reopen(rows: list[Any], keyed: _Keyed, root: str, packed: bytes, maker: RowMaker) -> LazyRows:
    made = LazyRows.__new__(LazyRows)
    made._rows, made._keyed, made._maker = rows, keyed, maker
    made._native = Dataset(root, packed=packed, missing="keep")
    return made


@overload
def pretokenize_rows(
    rows: Iterable[Mapping[str, Any]],
    *,
    tokenizer: Any,
    sequence_len: int,
    cache: TokenizedCache | None = None,
    text_field: str = "text",
    section_field: str | None = None,
    lazy: Literal[False] = False,
    progress: Progress = None,
) -> tuple[TokenizedRows, TokenizationStats]: ...


@overload
def pretokenize_rows(
    rows: Iterable[Mapping[str, Any]],
    *,
    tokenizer: Any,
    sequence_len: int,
    cache: TokenizedCache,
    text_field: str = "text",
    section_field: str | None = None,
    lazy: Literal[True],
    progress: Progress = None,
) -> tuple[LazyRows, TokenizationStats]: ...


def pretokenize_rows(
    rows: Iterable[Mapping[str, Any]],
    *,
    tokenizer: Any,
    sequence_len: int,
    cache: TokenizedCache | None = None,
    text_field: str = "text",
    section_field: str | None = None,
    lazy: bool = False,
    progress: Progress = None,
) -> tuple[TokenizedRows | LazyRows, TokenizationStats]:
    """Tokenizes rows, or takes their tokens from the cache; new ones are put into it.

    A row with `messages` goes through the tokenizer's chat template, together with the row's `tools` and
    `chat_template_kwargs` if it has any. Of any other, `text` is tokenized, with the tokenizer's eos_token appended
    unless the text ends with it. A row with `prompt`, `chosen` and `rejected` (none of them None) comes back unchanged
    and is not counted.

    Returns the rows in their order, as new dicts with all their fields and in addition `input_ids` and
    `attention_mask`: 1-D read-only int32 arrays of NumPy, cut to sequence_len. They are a TokenizedRows, a list whose
    arrays are copies in memory, 4 bytes a token; or with lazy=True LazyRows, which read each row from the store when it is
    asked for. Both have the `keys` of the rows. datasets.Dataset.from_list takes such rows; a trainer takes "input_ids" as
    a sign that there is nothing left to tokenize. Nothing here masks a loss: for SFTTrainer's assistant_only_loss use
    tokcask.trl.sft_dataset().

    The tokens are what the tokenizer returns when it is called. The key's section id is made of what is tokenized: of the
    text with its end, or of the text that the chat template renders (see key_for()). Rows of equal keys are tokenized
    once. Rows are read as a stream, and looked up and tokenized in parts of at most 10,000. At the end the cache is
    flushed. The tokenizer is not changed, and other threads may use it meanwhile.

    Processes that call this on one store at the same time, as the ranks of a launcher, share the work: each section
    is tokenized by one of them, and by another if that one dies.

    tokenizer      a fast tokenizer of transformers; one of sentencepiece, tiktoken or mistral-common; or a
                   BatchTokenizer. What only behaves like one of transformers is called once per text
    sequence_len   1 to 2**31 - 1, which cuts nothing
    cache          an open TokenizedCache; may be read-only, and then gets nothing new
    text_field     the field of a row that has its text
    section_field  a field that has the section id itself, for all rows. It must change whenever what is tokenized does:
                   the text or its end token; the messages, tools, template and its options. Else old tokens are served
    lazy           see above; needs a cache
    progress       None: a bar if standard error is a terminal and tqdm is installed. True, False, or a function, which is
                   called with the number of rows that are done and of all, or None

    Raises ValueError or TypeError, which name the row, for a row that is none of these kinds, and for a
    tokenizer whose content cannot be identified, unless cache is None. What was stored before stays.
    """
    tokenizer = adapted(tokenizer)
    recipe = Recipe(length_of(sequence_len))
    _check_cache(cache, lazy)
    reader = RowReader(tokenizer, recipe, text_field=text_field, section_field=section_field)
    filler = Filler(tokenizer, recipe, cache)
    result = TokenizedRows()
    originals: list[Any] = []
    sections: list[str | None] = []
    made_here: set[str] = set()
    misses = 0
    for part in read_in_parts(rows, reader, progress, others=True):
        tokens: dict[str, CachedTokens] = {}

        def took(
            given: Mapping[str, CachedTokens], here: bool, tokens: dict[str, CachedTokens] = tokens
        ) -> None:
            if here:
                made_here.update(given)
            if not lazy:
                tokens.update(given if here else {section: _copy(found) for section, found in given.items()})

        filler.run(sections_of(part), took)
        for row, section in part:
            sections.append(None if section is None else section.id)
            misses += section is not None and section.id in made_here
            if lazy:
                originals.append(row)
            else:
                result.append(row if section is None else _with_tokens(row, tokens[section.id]))
    total = sum(section is not None for section in sections)
    stats = TokenizationStats(
        total_sections=total,
        cache_hits=total - misses,
        cache_misses=misses,
        total_tokenize_seconds=filler.seconds,
        cache_bytes_after=filler.finish(),
    )
    keyed = _Keyed(sections, None if filler.store is None else filler.store.tokenizer_sha, recipe.length)
    if lazy:
        assert cache is not None
        return LazyRows(originals, keyed, cache, RowMaker(originals, tokenizer, recipe, reader)), stats
    result._keyed = keyed
    return result, stats


def _check_cache(cache: Any, lazy: bool) -> None:
    if cache is None:
        if lazy:
            raise ValueError("lazy=True reads rows from the store, so it needs a cache")
    elif not hasattr(cache, "get_many"):
        raise TypeError(
            f"cache must be an open TokenizedCache, not a {type(cache).__name__}; open it: "
            "tokcask.TokenizedCache.open(directory)"
        )


def _copy(tokens: CachedTokens) -> CachedTokens:
    """In memory of its own, so that the store's pages are free."""
    input_ids, mask = tokens.input_ids.copy(), tokens.attention_mask
    input_ids.flags.writeable = False
    if mask.all():
        return CachedTokens(input_ids)
    mask = mask.copy()
    mask.flags.writeable = False
    return CachedTokens(input_ids, mask)


def _with_tokens(row: Mapping[str, Any], tokens: CachedTokens) -> dict[str, Any]:
    return {**row, "input_ids": tokens.input_ids, "attention_mask": tokens.attention_mask}
