"""Tokenizers of other libraries as BatchTokenizer: tiktoken, sentencepiece, mistral-common.

None of these libraries is imported here: who has such a tokenizer has imported it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Sequence
from typing import Any

from tokcask._code import is_a

_THREADS = os.cpu_count() or 1


def digest(content: Any) -> str:
    """SHA-256 of content's canonical JSON."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def is_batch_tokenizer(candidate: Any) -> bool:
    """Whether it is a BatchTokenizer, which Tokenizer of the library tokenizers is not."""
    return isinstance(getattr(candidate, "sha256", None), str) and callable(
        getattr(candidate, "encode_batch", None)
    )


def _is_sentencepiece(thing: Any) -> bool:
    return is_a(thing, "sentencepiece.SentencePieceProcessor")


def _is_mistral(thing: Any) -> bool:
    return any(
        is_a(thing, f"mistral_common.tokens.tokenizers.{name}")
        for name in ("mistral.MistralTokenizer", "tekken.Tekkenizer", "sentencepiece.SentencePieceTokenizer")
    )


def adapted(tokenizer: Any) -> Any:
    """What pretokenize_rows() can use: the tokenizer itself, or an adapter. TypeError for anything else."""
    if is_batch_tokenizer(tokenizer):
        return tokenizer
    if is_a(tokenizer, "tiktoken.core.Encoding"):
        return Tiktoken(tokenizer)
    if _is_sentencepiece(tokenizer):
        return SentencePiece(tokenizer)
    if _is_mistral(tokenizer):
        return Mistral(tokenizer)
    if callable(tokenizer):
        return tokenizer
    if isinstance(tokenizer, (str, os.PathLike)):
        raise TypeError(
            f"tokenizer is the name {os.fspath(tokenizer)!r}; pass the tokenizer itself: "
            f"transformers.AutoTokenizer.from_pretrained({os.fspath(tokenizer)!r})"
        )
    raise TypeError(
        f"a {type(tokenizer).__name__} cannot be called with a text; wrap it: "
        "transformers.PreTrainedTokenizerFast(tokenizer_object=...) if it is of the library tokenizers, "
        "else a class that is a tokcask.BatchTokenizer"
    )


class _Adapter:
    # Each cuts a text's ids by itself.
    traits = (True, True)

    def __init__(self, content: Any) -> None:
        self.sha256 = digest(content)


class Tiktoken(_Adapter):
    """A tiktoken.Encoding. Text that looks like a special token is text (encode_ordinary)."""

    def __init__(self, encoding: Any) -> None:
        super().__init__(tiktoken_content(encoding))
        self._encoding = encoding

    def encode_batch(self, texts: Sequence[str], max_length: int) -> list[Any]:
        batch = self._encoding.encode_ordinary_batch(list(texts), num_threads=_THREADS)
        return [ids[:max_length] for ids in batch]


class SentencePiece(_Adapter):
    """A SentencePieceProcessor with the options it was made with."""

    def __init__(self, processor: Any) -> None:
        super().__init__(sentencepiece_content(processor))
        self._processor = processor

    def encode_batch(self, texts: Sequence[str], max_length: int) -> list[Any]:
        return [ids[:max_length] for ids in self._processor.encode(list(texts), out_type=int)]


class Mistral(_Adapter):
    """A tokenizer of mistral-common, as transformers uses it for text: its bos before, and no eos."""

    def __init__(self, tokenizer: Any) -> None:
        super().__init__(mistral_content(tokenizer))
        self._inner = _mistral_inner(tokenizer)

    def encode_batch(self, texts: Sequence[str], max_length: int) -> list[Any]:
        return [self._inner.encode(text, bos=True, eos=False)[:max_length] for text in texts]


def tiktoken_content(encoding: Any) -> dict[str, Any]:
    """What decides which ids a tiktoken.Encoding returns; its name does not."""
    return {
        "kind": "tiktoken",
        "pattern": encoding._pat_str,
        "ranks": _digest_ranks(encoding._mergeable_ranks),
        "special_tokens": encoding._special_tokens,
    }


def sentencepiece_content(processor: Any) -> dict[str, Any]:
    """The same of a SentencePieceProcessor. ValueError for one that samples."""
    if getattr(processor, "_enable_sampling", False):
        raise ValueError(
            "the content of this SentencePieceProcessor cannot be identified: it samples, so one text has many "
            "tokenizations; pass a processor without enable_sampling"
        )
    options = {
        name: True for name in ("add_bos", "add_eos", "reverse") if getattr(processor, f"_{name}", False)
    }
    return {
        "kind": "sentencepiece",
        "model": hashlib.sha256(processor.serialized_model_proto()).hexdigest(),
        **options,
    }


def mistral_content(tokenizer: Any) -> dict[str, Any]:
    """The same of what mistral-common has: MistralTokenizer, Tekkenizer or SentencePieceTokenizer."""
    inner = _mistral_inner(tokenizer)
    content = {"kind": "mistral-common", "version": str(inner.version.value)}
    if is_a(inner, "mistral_common.tokens.tokenizers.tekken.Tekkenizer"):
        return {
            **content,
            "model": tiktoken_content(inner._model),
            "special_tokens": [[token["rank"], token["token_str"]] for token in inner._all_special_tokens],
        }
    return {**content, "model": sentencepiece_content(inner._model)}


def _mistral_inner(tokenizer: Any) -> Any:
    instruct = getattr(tokenizer, "instruct_tokenizer", None)
    return tokenizer if instruct is None else instruct.tokenizer


def _digest_ranks(ranks: dict[bytes, int]) -> str:
    """As a .tiktoken file has them, by rank."""
    hashed = hashlib.sha256()
    for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
        hashed.update(base64.b64encode(token) + b" " + str(rank).encode() + b"\n")
    return hashed.hexdigest()


def content_of_python_tokenizer(tokenizer: Any) -> dict[str, Any] | None:
    """The content of a transformers tokenizer without a backend of the library tokenizers; None if it cannot
    be told. Its class counts by name: what code of another class does is not seen otherwise."""
    name = f"{type(tokenizer).__module__}.{type(tokenizer).__qualname__}"
    if is_a(tokenizer, "transformers.tokenization_mistral_common.MistralCommonBackend"):
        content = mistral_content(tokenizer.tokenizer)
        return {**content, "class": name, "mode": tokenizer.mode.value}
    processor = getattr(tokenizer, "sp_model", None)
    if not _is_sentencepiece(processor) or not isinstance(getattr(tokenizer, "init_kwargs", None), dict):
        return None
    return {
        "kind": "transformers-sentencepiece",
        "class": name,
        "model": sentencepiece_content(processor),
        "added_tokens": {
            str(place): [str(token), *(bool(getattr(token, flag, False)) for flag in _TOKEN_FLAGS)]
            for place, token in getattr(tokenizer, "added_tokens_decoder", {}).items()
        },
        "options": _options_of(tokenizer),
    }


_TOKEN_FLAGS = ("special", "lstrip", "rstrip", "single_word", "normalized")
# What says where a tokenizer came from, how it pads and what it has in the recipe anyway. All other options
# count: one too many costs a tokenization, one too few gives wrong tokens.
_NO_OPTIONS = {
    "added_tokens_decoder",
    "backend",
    "chat_template",
    "files_loaded",
    "is_local",
    "local_files_only",
    "max_length",
    "merges_file",
    "model_input_names",
    "model_max_length",
    "name_or_path",
    "pad_to_multiple_of",
    "padding_side",
    "special_tokens_map_file",
    "tokenizer_class",
    "tokenizer_file",
    "truncation_side",
    "vocab_file",
}


def _options_of(tokenizer: Any) -> dict[str, str]:
    options = {name: str(value) for name, value in tokenizer.init_kwargs.items() if name not in _NO_OPTIONS}
    for name in ("legacy", "add_prefix_space", "do_lower_case", "keep_accents", "unk_token"):
        if hasattr(tokenizer, name):
            options[name] = str(getattr(tokenizer, name))
    return options
