"""From sections to their tokens, by whatever tokenizer there is, and without changing it."""

from __future__ import annotations

import contextlib
import copy
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from tokcask._adapters import digest, is_batch_tokenizer
from tokcask._arrays import as_int32
from tokcask._code import calls_only_its_backend, is_of_transformers
from tokcask._core import CachedTokens
from tokcask._identity import truncation_traits

NO_LENGTH = 2**31 - 1
"""The sequence length under which whole sequences are stored."""
LOSS_MASK = ":tokcask-loss-mask"
"""How the tokenizer part of a key ends whose entry says what is learned of it."""


@runtime_checkable
class BatchTokenizer(Protocol):
    """What a tokenizer of any other make needs in order to be used: the place to plug a faster one in.

        class Mine:
            sha256 = hashlib.sha256(model_bytes + b"rules 1").hexdigest()

            def encode_batch(self, texts, max_length):
                return [ids[:max_length] for ids in mine.encode(texts, threads=8)]

        rows, stats = pretokenize_rows(rows, tokenizer=Mine(), sequence_len=2048, cache=cache)

    An eos_token, if it has one, is appended to texts as for other tokenizers. Rows with messages need
    apply_chat_template() too, as transformers has it; tokenizers without it refuse them.
    """

    @property
    def sha256(self) -> str:
        """Its identity, 64 lower-case hexadecimal digits. Whatever may change an id must change it: vocabulary,
        rules, options, and the version of a program that decides."""

    def encode_batch(self, texts: Sequence[str], max_length: int) -> Sequence[Any]:
        """The ids of each text, at most max_length, in the order given: 1-D arrays or lists of integers, or
        objects that have these as `ids`. Called by one thread at a time, on as many cores as it likes."""


@dataclass(frozen=True)
class Chat:
    """A conversation, and what goes to its template with it."""

    messages: Sequence[Any]
    options: Mapping[str, Any]
    """Arguments of apply_chat_template()."""


@dataclass(frozen=True)
class Section:
    """What is tokenized of a row, and its identity."""

    id: str
    text: str
    """A row's text, or what the template makes of its messages."""
    special_tokens: bool = True
    """Whether the tokenizer adds its own, as it does to a text; a template has them all."""
    chat: Chat | None = None
    """Where the ids may be others than those of the rendered text, or a mask is wanted too."""


@dataclass(frozen=True)
class Recipe:
    """What is made of a section besides what its tokenizer does."""

    length: int
    """What the tokenizer cuts a section to; with NO_LENGTH it is whole."""
    assistant_mask: bool = False
    """Spans "assistant" hold which tokens are the assistant's."""

    def identity(self, tokenizer_sha: str) -> str:
        """The tokenizer part of the keys. Entries that the tokenizer alone would not make have one of their own."""
        return digest([tokenizer_sha, "tokenizer"]) + LOSS_MASK if self.assistant_mask else tokenizer_sha


class Encoder:
    """A tokenizer under one recipe. The caller's object is not changed, and may be used by other threads.

    in_flight   how many threads may call make() at once to keep all cores busy; 0 for none but the caller's
    traits      what is known of how the tokenizer cuts; see truncation_traits()
    """

    def __init__(self, tokenizer: Any, recipe: Recipe) -> None:
        self._tokenizer = tokenizer
        self._recipe = recipe
        self._plugged = is_batch_tokenizer(tokenizer)
        self._backend: Any = None
        self._options: dict[str, Any] = {"truncation": True, "max_length": recipe.length}
        self.in_flight = 0
        self.traits = (False, False)
        if self._plugged:
            at_length, to_prefix = getattr(tokenizer, "traits", self.traits)
            self.traits = (bool(at_length), bool(to_prefix))
        elif calls_only_its_backend(tokenizer):
            self._use_backend()
            self.in_flight = 2
        self._called: Any = None
        self._turn = threading.Lock()

    def _use_backend(self) -> None:
        """Takes a copy of the backend, and sets what a call of the tokenizer would set."""
        original, side = self._tokenizer.backend_tokenizer, self._tokenizer.truncation_side
        backend = self._backend = _copied(original)
        self.traits = truncation_traits(backend, side)
        backend.no_padding()
        backend.enable_truncation(self._recipe.length, direction=side)
        backend.encode_special_tokens = self._tokenizer.split_special_tokens
        # Without offsets, which nobody asks for here.
        self._encode = getattr(backend, "encode_batch_fast", backend.encode_batch)

    def make(self, sections: list[Section]) -> dict[str, CachedTokens]:
        """The tokens of each section, by its id."""
        made = {section.id: self._conversation(section) for section in sections if section.chat is not None}
        for special_tokens in (True, False):
            texts = [
                section
                for section in sections
                if section.chat is None and section.special_tokens == special_tokens
            ]
            if texts:
                made.update(self._texts(texts, special_tokens))
        return made

    def _texts(self, sections: list[Section], special_tokens: bool) -> dict[str, CachedTokens]:
        texts = [section.text for section in sections]
        made: list[tuple[Any, Any]]
        if self._backend is not None:
            return {
                section.id: CachedTokens(_read_only(np.array(encoding.ids[: self._recipe.length], np.int32)))
                for section, encoding in zip(
                    sections, self._encode(texts, add_special_tokens=special_tokens), strict=True
                )
            }
        if self._plugged:
            results = self._tokenizer.encode_batch(texts, self._recipe.length)
            if len(results) != len(texts):
                raise ValueError(f"encode_batch() returned {len(results)} results for {len(texts)} texts")
            made = [(getattr(result, "ids", result), None) for result in results]
        else:
            made = self._call(texts)
        return {section.id: self._cut(ids, mask) for section, (ids, mask) in zip(sections, made, strict=True)}

    def _call(self, texts: list[str]) -> list[tuple[Any, Any]]:
        with self._callable() as tokenizer:
            # One by one: Python code of somebody's own may do another thing with a list than with a text.
            results = [tokenizer(text=text, padding=False, **self._options) for text in texts]
        return [(result["input_ids"], result.get("attention_mask")) for result in results]

    def _conversation(self, section: Section) -> CachedTokens:
        assert section.chat is not None
        masked = self._recipe.assistant_mask
        options = {
            **section.chat.options,
            **({"return_assistant_tokens_mask": True} if masked else self._options),
        }
        with self._callable() as tokenizer:
            made = tokenizer.apply_chat_template(
                section.chat.messages, **options, tokenize=True, return_dict=True
            )
        if not masked:
            return self._cut(made["input_ids"], made.get("attention_mask"))
        mask = made.get("assistant_masks")
        if mask is None or 1 not in mask:
            raise ValueError(
                "a conversation has no tokens of the assistant; the chat template may lack {% generation %}: "
                f"{section.text[:200]!r}"
            )
        ids = as_int32(np.asarray(made["input_ids"]).reshape(-1), "input_ids").copy()
        return CachedTokens(_read_only(ids), spans={"assistant": _spans_of(mask)})

    @contextlib.contextmanager
    def _callable(self) -> Iterator[Any]:
        """A tokenizer to be called: a copy of one of transformers, whose calls set truncation and padding for all who
        use it. What only behaves like one is called as it is, and its backend gets them back."""
        with self._turn, _left_as_it_was(self._tokenizer):
            if self._called is None:
                fast = is_of_transformers(self._tokenizer) and getattr(self._tokenizer, "is_fast", False)
                self._called = _copied(self._tokenizer) if fast else self._tokenizer
            yield self._called

    def _cut(self, input_ids: Any, attention_mask: Any) -> CachedTokens:
        def array(values: Any, name: str) -> Any:
            values = np.asarray(values)
            if values.ndim == 2 and len(values) == 1:  # a batch of one
                values = values[0]
            return _read_only(as_int32(values[: self._recipe.length], name).copy())

        mask = None if attention_mask is None else array(attention_mask, "attention_mask")
        return CachedTokens(array(input_ids, "input_ids"), mask)


def _spans_of(mask: Any) -> Any:
    """Where a mask is not 0, as pairs [spans, 2]."""
    learned = np.asarray(mask).reshape(-1) != 0
    edges = np.flatnonzero(np.diff(np.concatenate([[False], learned, [False]]).astype(np.int8)))
    return edges.reshape(-1, 2)


def _copied(tokenizer: Any) -> Any:
    """A copy, because a call of a fast tokenizer sets truncation and padding for all who use it."""
    try:
        return copy.deepcopy(tokenizer)
    except Exception as error:  # the library raises Exception itself, for parts written in Python
        raise ValueError(
            f"this {type(tokenizer).__name__} cannot be copied ({error}), and calling it would change its truncation "
            "for all who use it; pass a tokenizer without parts written in Python, or a tokcask.BatchTokenizer"
        ) from error


@contextlib.contextmanager
def _left_as_it_was(tokenizer: Any) -> Iterator[None]:
    """Gives the backend of what only behaves like a tokenizer its truncation and padding back after a call."""
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    if not hasattr(backend, "no_truncation"):
        yield
        return
    truncation, padding = backend.truncation, backend.padding
    try:
        yield
    finally:
        if backend.truncation != truncation:
            backend.no_truncation() if truncation is None else backend.enable_truncation(**truncation)
        if backend.padding != padding:
            backend.no_padding() if padding is None else backend.enable_padding(**padding)


def _read_only(array: Any) -> Any:
    array.flags.writeable = False
    return array
