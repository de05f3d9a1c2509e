"""From sections to their tokens, by whatever tokenizer there is."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

from tokcask._adapters import is_batch_tokenizer
from tokcask._arrays import as_int32
from tokcask._core import CachedTokens


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
class Section:
    """A row's text or messages, and its identity."""

    id: str
    text: str | None = None
    messages: Sequence[Any] | None = None
    tools: Any = None
    template_options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Recipe:
    """What is made of a section besides what its tokenizer does."""

    length: int
    cut: Literal["tokenizer", "keep_start", "keep_end"] = "tokenizer"
    """By the tokenizer, which may keep a special token at the end; or all is tokenized first."""
    assistant_mask: bool = False
    """The attention mask holds which tokens are the assistant's, and of text all."""
    chat_template: str | None = None

    def shorten(self, values: Any) -> Any:
        return values[-self.length :] if self.cut == "keep_end" else values[: self.length]


class Encoder:
    """A tokenizer under one recipe.

    in_flight   how many threads may call make() at once to keep all cores busy; 0 for none but the caller's
    """

    def __init__(self, tokenizer: Any, recipe: Recipe) -> None:
        self._tokenizer = tokenizer
        self._recipe = recipe
        self._plugged = is_batch_tokenizer(tokenizer)
        self._backend = None if self._plugged else _backend_behind(tokenizer)
        self._options: dict[str, Any] = (
            {"truncation": True, "max_length": recipe.length} if recipe.cut == "tokenizer" else {}
        )
        self.in_flight = 0
        if self._backend is not None:
            self._prepare_backend()
            self.in_flight = 2

    def _prepare_backend(self) -> None:
        """Sets what each call of the tokenizer would set."""
        base: Any = importlib.import_module("transformers.tokenization_utils_base")
        cuts = self._recipe.cut == "tokenizer"
        self._tokenizer.set_truncation_and_padding(
            padding_strategy=base.PaddingStrategy.DO_NOT_PAD,
            truncation_strategy=base.TruncationStrategy.LONGEST_FIRST
            if cuts
            else base.TruncationStrategy.DO_NOT_TRUNCATE,
            max_length=self._recipe.length if cuts else None,
            stride=0,
            pad_to_multiple_of=None,
            padding_side=None,
        )
        backend: Any = self._backend
        backend.encode_special_tokens = self._tokenizer.split_special_tokens
        # Without offsets, which nobody asks for here.
        self._encode: Callable[..., list[Any]] = getattr(backend, "encode_batch_fast", backend.encode_batch)

    def make(self, sections: list[Section]) -> dict[str, CachedTokens]:
        """The tokens of each section, by its id."""
        texts = [section for section in sections if section.messages is None]
        chats = [section for section in sections if section.messages is not None]
        made = {}
        if texts:
            made.update(self._texts(texts))
        if chats and self._recipe.assistant_mask:
            made.update({section.id: self._assistant(section) for section in chats})
        elif chats and self._backend is not None:
            rendered = [self._chat(section, tokenize=False) for section in chats]
            made.update(self._by_backend(chats, rendered, add_special_tokens=False))
        else:
            for section in chats:
                made[section.id] = self._of(
                    self._chat(section, tokenize=True, return_dict=True, **self._options)
                )
        return made

    def _texts(self, sections: list[Section]) -> dict[str, CachedTokens]:
        texts = [section.text or "" for section in sections]
        if self._backend is not None:
            return self._by_backend(sections, texts, add_special_tokens=True)
        if self._plugged:
            results = self._tokenizer.encode_batch(texts, self._recipe.length)
            if len(results) != len(texts):
                raise ValueError(f"encode_batch() returned {len(results)} results for {len(texts)} texts")
            return {
                section.id: self._cut(getattr(result, "ids", result), None)
                for section, result in zip(sections, results, strict=True)
            }
        if getattr(self._tokenizer, "is_fast", False):
            batch = self._tokenizer(text=texts, padding=False, **self._options)
            masks = batch.get("attention_mask") or [None] * len(texts)
            return {
                section.id: self._cut(ids, mask)
                for section, ids, mask in zip(sections, batch["input_ids"], masks, strict=True)
            }
        return {
            section.id: self._of(self._tokenizer(text=text, padding=False, **self._options))
            for section, text in zip(sections, texts, strict=True)
        }

    def _by_backend(
        self, sections: list[Section], texts: list[str], *, add_special_tokens: bool
    ) -> dict[str, CachedTokens]:
        encodings = self._encode(texts, add_special_tokens=add_special_tokens)
        return {
            section.id: CachedTokens(_read_only(np.array(self._recipe.shorten(encoding.ids), np.int32)))
            for section, encoding in zip(sections, encodings, strict=True)
        }

    def _chat(self, section: Section, **how: Any) -> Any:
        if not hasattr(self._tokenizer, "apply_chat_template"):
            raise TypeError(
                f"{type(self._tokenizer).__name__} has no apply_chat_template(), which rows with messages need; "
                "use the tokenizer of transformers for them"
            )
        options: dict[str, Any] = {"add_generation_prompt": False, **section.template_options, **how}
        if section.tools is not None:
            options["tools"] = section.tools
        if self._recipe.chat_template is not None:
            options["chat_template"] = self._recipe.chat_template
        return self._tokenizer.apply_chat_template(section.messages, **options)

    def _assistant(self, section: Section) -> CachedTokens:
        made = self._chat(section, tokenize=True, return_dict=True, return_assistant_tokens_mask=True)
        mask = made.get("assistant_masks")
        if mask is None or 1 not in mask:
            raise ValueError(
                "a conversation has no tokens of the assistant; the chat template may lack {% generation %}: "
                f"{str(section.messages)[:200]}"
            )
        return self._cut(made["input_ids"], mask)

    def _of(self, made: Mapping[str, Any]) -> CachedTokens:
        return self._cut(made["input_ids"], made.get("attention_mask"))

    def _cut(self, input_ids: Any, attention_mask: Any) -> CachedTokens:
        def array(values: Any, name: str) -> Any:
            values = np.asarray(values)
            if values.ndim == 2 and len(values) == 1:  # a batch of one
                values = values[0]
            return _read_only(as_int32(self._recipe.shorten(values), name).copy())

        mask = None if attention_mask is None else array(attention_mask, "attention_mask")
        return CachedTokens(array(input_ids, "input_ids"), mask)


def _read_only(array: Any) -> Any:
    array.flags.writeable = False
    return array


def _backend_behind(tokenizer: Any) -> Any:
    """The tokenizers.Tokenizer that a call of this tokenizer does nothing but call, or None."""
    kind = type(tokenizer)
    for name in ("__call__", "_encode_plus", "set_truncation_and_padding"):
        home = getattr(getattr(kind, name, None), "__module__", "")
        if not home.startswith("transformers.tokenization_utils"):
            return None
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return backend if hasattr(backend, "encode_batch") and hasattr(backend, "to_str") else None
