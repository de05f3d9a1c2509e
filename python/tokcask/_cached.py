"""A tokenizer that answers from a store: for programs whose calls of the tokenizer we do not control.

A fast tokenizer of transformers asks its backend, a tokenizers.Tokenizer, for encodings, whatever was called. Here an
object stands in the backend's place which takes the encodings from the store, and all else stays as it is: so a call
returns what it returned before, in each of its forms.
"""

from __future__ import annotations

import copy
import os
import threading
import time
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokcask._code import is_of_transformers
from tokcask._core import CachedTokens, CacheKey, TokenizedCache, section_id
from tokcask._encoding import NO_LENGTH
from tokcask._identity import identity_of, identity_with, truncation_traits

# What a commit waits for in a process that puts one text at a time, in seconds: what a killed worker loses.
_BATCH_AGE = 0.05
# Settings of a backend that stand in no entry, and are applied to what is read.
_SETTINGS = frozenset({"truncation", "padding"})
_SETTERS = frozenset({"enable_truncation", "no_truncation", "enable_padding", "no_padding"})
# Objects that change the backend when they are changed, and calls that change it.
_COMPONENTS = ("normalizer", "pre_tokenizer", "post_processor", "model")
_CHANGING = frozenset({"add_tokens", "add_special_tokens", "train", "train_from_iterator"})
_OF_MODELS = (
    "dropout",
    "unk_token",
    "continuing_subword_prefix",
    "end_of_word_suffix",
    "fuse_unk",
    "byte_fallback",
    "ignore_merges",
    "max_input_chars_per_word",
    "alpha",
    "nbest_size",
)
# Asked for by whoever copies or pickles, before an object has its attributes.
_PROTOCOLS = ("__", "_tokcask")


def cached(tokenizer: Any, root: str | os.PathLike[str], *, max_bytes: int | None = None) -> Any:
    """The tokenizer, answering from the store in `root`, which gets what it lacks.

        tokenizer = tokcask.cached(AutoTokenizer.from_pretrained("..."), "tokens")
        trainer = DPOTrainer(model, args, train_dataset=rows, processing_class=tokenizer)

    A copy of a fast tokenizer of transformers, of the same class, whose calls return the very same values in each of
    their forms: __call__, encode, apply_chat_template and the like, of one text or of many, with truncation, padding,
    tensors, offsets, masks. A text is looked up whole and cut when it is read, so another max_length finds it too. Pairs,
    texts that are split into words, and what overflows are not looked up: the tokenizer makes these each time.

    May be pickled, also into workers that are forked or spawned, copied, and saved: what save_pretrained() writes is the
    plain tokenizer. The library datasets gives it one fingerprint, whatever was called before. It notices when it is
    changed, as by add_tokens() or a new normalizer: then its texts are looked up as another tokenizer's.

    tokenizer  stays as it is
    root       the directory of the store. Each process opens the store at its first call and keeps it open. What a call
               of several texts has made is stored when the call returns, and of single texts what is older than 50 ms
    max_bytes  of the store; see TokenizedCache.open()

    Raises TypeError for a tokenizer of another kind. Errors of the store are those of TokenizedCache.open(), out of the
    first call.
    """
    backend = getattr(tokenizer, "_tokenizer", None)
    if not is_of_transformers(tokenizer) or not hasattr(backend, "encode_batch"):
        raise TypeError(
            f"cached() takes a fast tokenizer of transformers, not a {type(tokenizer).__name__}; "
            "use pretokenize_rows() with this one"
        )
    made = copy.deepcopy(tokenizer)
    real = made._tokenizer
    if isinstance(real, CachedBackend):
        real = real._tokcask_real
    directory = os.path.abspath(os.path.expanduser(os.fspath(root)))
    made._tokenizer = CachedBackend(real, directory, max_bytes)
    return made


_stores: dict[tuple[str, int | None], TokenizedCache] = {}
_opening = threading.Lock()
os.register_at_fork(after_in_child=lambda: globals().update(_opening=threading.Lock()))


def _store_in(root: str, max_bytes: int | None) -> TokenizedCache:
    """Of this process: one handle for all tokenizers of a store, which a forked child opens again by itself."""
    with _opening:
        cache = _stores.get((root, max_bytes))
        if cache is None:
            cache = TokenizedCache.open(root, max_bytes=max_bytes, batch_age=_BATCH_AGE)
            _stores[root, max_bytes] = cache
        return cache


class _Text:
    """What is known of one text: all of its tokens, or those that the tokenizer's own cut leaves."""

    __slots__ = ("encoding", "ids", "key", "offsets", "type_ids")

    def __init__(self, key: CacheKey, tokens: CachedTokens | None, encoding: Any = None) -> None:
        self.key = key
        self.encoding = encoding
        """The library's own, if it was made here."""
        self.offsets: NDArray[Any] | None = None
        if tokens is None:
            self.ids: list[int] = encoding.ids
            self.type_ids: list[int] = encoding.type_ids
            return
        self.ids = tokens.input_ids.tolist()
        arrays = tokens.arrays
        types = arrays.get("type_ids")
        self.type_ids = [0] * len(self.ids) if types is None else types.tolist()
        packed = arrays.get("offsets")
        if packed is not None:
            self.offsets = _unpacked(packed)

    def tokens(self) -> CachedTokens:
        arrays: dict[str, Any] = {}
        if any(self.type_ids):
            arrays["type_ids"] = np.array(self.type_ids, np.uint8 if max(self.type_ids) < 256 else np.int32)
        if self.offsets is not None:
            arrays["offsets"] = _packed(self.offsets)
        return CachedTokens(np.array(self.ids, np.int32), arrays=arrays or None)


def _packed(offsets: NDArray[Any]) -> NDArray[Any]:
    """Offsets [tokens, 2] as how far each token begins behind the one before and how long it is, in few bytes."""
    steps = np.empty_like(offsets)
    steps[:, 0] = np.diff(offsets[:, 0], prepend=0)
    steps[:, 1] = offsets[:, 1] - offsets[:, 0]
    most = int(np.abs(steps).max(initial=0))
    return steps.reshape(-1).astype(np.int8 if most < 128 else np.int16 if most < 32768 else np.int32)


def _unpacked(packed: NDArray[Any]) -> NDArray[Any]:
    steps = packed.astype(np.int64).reshape(-1, 2)
    begins = np.cumsum(steps[:, 0])
    return np.stack([begins, begins + steps[:, 1]], axis=1)


class CachedEncoding:
    """Stands for a tokenizers.Encoding of one text: its ids, types, attention mask and offsets come from the store, and
    anything else from an encoding that is made when it is asked for."""

    def __init__(
        self,
        backend: CachedBackend,
        text: str,
        known: _Text,
        special: bool,
        truncation: Any,
        first: int,
        last: int,
    ) -> None:
        self._backend = backend
        self._text = text
        self._known = known
        self._special = special
        self._truncation = truncation
        self._first, self._last = first, last
        self._padding: dict[str, Any] | None = None
        self._left = self._right = 0
        self._real: Any = None

    def pad(self, padding: dict[str, Any], length: int) -> None:
        missing = length - (self._last - self._first)
        if missing <= 0:
            return
        self._padding = {**padding, "length": length, "pad_to_multiple_of": None}
        if padding["direction"] == "left":
            self._left = missing
        else:
            self._right = missing

    def _with_padding(self, values: list[Any], pad: Any) -> list[Any]:
        values = values[self._first : self._last]
        if self._padding is None:
            return values
        return [pad] * self._left + values + [pad] * self._right

    def __len__(self) -> int:
        return self._left + self._last - self._first + self._right

    @property
    def ids(self) -> list[int]:
        return self._with_padding(self._known.ids, self._padding and self._padding["pad_id"])

    @property
    def type_ids(self) -> list[int]:
        return self._with_padding(self._known.type_ids, self._padding and self._padding["pad_type_id"])

    @property
    def attention_mask(self) -> list[int]:
        return [0] * self._left + [1] * (self._last - self._first) + [0] * self._right

    @property
    def n_sequences(self) -> int:
        return 1

    @property
    def offsets(self) -> list[tuple[int, int]]:
        known = self._backend._offsets(self._text, self._known, self._special, self._truncation)
        return self._with_padding([(begin, end) for begin, end in known.tolist()], (0, 0))

    def char_to_token(self, char_pos: int, sequence_index: int = 0) -> int | None:
        if sequence_index != 0:
            return None
        # As the library: the first token that holds the character. Special tokens are of no sequence.
        offsets = self._backend._offsets(self._text, self._known, self._special, self._truncation)[
            self._first : self._last
        ]
        holding = np.flatnonzero((offsets[:, 0] <= char_pos) & (char_pos < offsets[:, 1]))
        return int(holding[0]) + self._left if len(holding) else None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if self._real is None:
            (self._real,) = self._backend._encode(
                [self._text], self._special, self._truncation, self._padding
            )
        return getattr(self._real, name)

    def __repr__(self) -> str:
        return f"CachedEncoding(num_tokens={len(self)})"

    def __reduce__(self) -> Any:
        self.tokens  # noqa: B018  # makes the encoding
        return _itself, (self._real,)


def _itself(value: Any) -> Any:
    return value


class CachedBackend:
    """Stands for a tokenizers.Tokenizer, whose encodings of single texts it takes from a store."""

    _tokcask_real: Any

    def __init__(self, real: Any, root: str, max_bytes: int | None) -> None:
        """real  a tokenizers.Tokenizer that nobody else uses"""
        import tokenizers

        # Truncation and padding are set by each call of a tokenizer. They stay out of what is keyed, and a tokenizer
        # without content checks and keeps them.
        settings = tokenizers.Tokenizer(tokenizers.models.BPE())
        _set(settings, real.truncation, real.padding)
        _set(real, None, None)
        self.__dict__.update(
            _tokcask_real=real,
            _tokcask_settings=settings,
            _tokcask_root=root,
            _tokcask_max_bytes=max_bytes,
            _tokcask_lock=threading.RLock(),
            _tokcask_seen=None,  # state of the components, once these were handed out
        )
        self._tokcask_changed()

    def _tokcask_changed(self) -> None:
        self.__dict__.update(
            _tokcask_shas={},  # by whether special tokens in a text are split
            _tokcask_traits=None,
            _tokcask_typed=False,
            _tokcask_with_settings=None,  # a copy that has truncation and padding
        )

    def __getattr__(self, name: str) -> Any:
        if name.startswith(_PROTOCOLS):
            raise AttributeError(name)
        if name in _SETTINGS or name in _SETTERS:
            return getattr(self._tokcask_settings, name)
        if name in ("to_str", "save"):
            made = copy.deepcopy(self._tokcask_real)
            _set(made, self.truncation, self.padding)
            return getattr(made, name)
        if name in _CHANGING:
            self._tokcask_changed()
        elif name in _COMPONENTS and self._tokcask_seen is None:
            self.__dict__.update(_tokcask_seen=self._state())
        return getattr(self._tokcask_real, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name != "encode_special_tokens" and name != "decoder":
            self._tokcask_changed()
        setattr(self._tokcask_real, name, value)

    def __reduce__(self) -> Any:
        return _restored, (
            self._tokcask_real,
            self._tokcask_root,
            self._tokcask_max_bytes,
        )

    def __deepcopy__(self, memory: Any) -> CachedBackend:
        made = CachedBackend(
            copy.deepcopy(self._tokcask_real, memory), self._tokcask_root, self._tokcask_max_bytes
        )
        _set(made._tokcask_settings, self.truncation, self.padding)
        return made

    def __repr__(self) -> str:
        return f"<tokcask.CachedBackend of {self._tokcask_root!r}>"

    # ---- What a backend is asked for ----

    def encode(
        self, sequence: Any, pair: Any = None, is_pretokenized: bool = False, add_special_tokens: bool = True
    ) -> Any:
        given = sequence if pair is None else (sequence, pair)
        return self.encode_batch([given], add_special_tokens, is_pretokenized)[0]

    def encode_batch(
        self, input: Sequence[Any], add_special_tokens: bool = True, is_pretokenized: bool = False
    ) -> list[Any]:
        truncation, padding = self.truncation, self.padding
        texts = list(input)
        lookup = (
            self._key_of(truncation, add_special_tokens)
            if not is_pretokenized and _are_texts(texts, truncation)
            else None
        )
        if lookup is None:
            return self._encode(texts, add_special_tokens, truncation, padding, is_pretokenized)
        kind, sha, length = lookup
        known = self._known(texts, kind, sha, length, add_special_tokens, truncation)
        made = []
        for text in texts:
            one = known[text]
            first, last = 0, len(one.ids)
            if truncation is not None and last > truncation["max_length"]:
                if truncation["direction"] == "left":
                    first = last - truncation["max_length"]
                else:
                    last = truncation["max_length"]
            made.append(CachedEncoding(self, text, one, add_special_tokens, truncation, first, last))
        if padding is not None:
            longest = (
                max((len(one) for one in made), default=0) if padding["length"] is None else padding["length"]
            )
            multiple = padding["pad_to_multiple_of"] or 1
            for one_made in made:
                one_made.pad(padding, -(-longest // multiple) * multiple)
        return made

    encode_batch_fast = encode_batch

    # ---- How texts are found ----

    def _key_of(self, truncation: Any, special: bool) -> tuple[str, str, int] | None:
        """Kind of section, tokenizer and length of the keys; None where the tokenizer cannot be identified."""
        if self._tokcask_seen is not None and (state := self._state()) != self._tokcask_seen:
            self._tokcask_changed()
            self.__dict__.update(_tokcask_seen=state)
        real = self._tokcask_real
        split = bool(real.encode_special_tokens)
        sha = self._tokcask_shas.get(split)
        if sha is None:
            try:
                sha = identity_of(real, self._cache())
            except (TypeError, ValueError):
                return None
            with self._tokcask_lock:
                if self._tokcask_traits is None:
                    # Nobody encodes with the real one before this is known.
                    typed = any(real.encode("a").type_ids)
                    traits = truncation_traits(real, "right")
                    self.__dict__.update(_tokcask_traits=traits, _tokcask_typed=typed)
            self._tokcask_shas[split] = sha
        kind = "text" if special else "chat"
        if special and self._tokcask_typed:
            kind = "text-typed"
        if (
            truncation is None
            or not special
            or (self._tokcask_traits[1] and truncation["direction"] == "right")
        ):
            return kind, sha, NO_LENGTH
        # The tokenizer keeps what it adds, so a cut text is no part of the whole.
        if truncation["direction"] == "left":
            sha = identity_with(real, {"truncation_side": "left"}, self._cache())
        return kind, sha, truncation["max_length"]

    def _known(
        self, texts: list[str], kind: str, sha: str, length: int, special: bool, truncation: Any
    ) -> dict[str, _Text]:
        cache = self._cache()
        keys = {text: CacheKey(section_id(text, kind), sha, length) for text in dict.fromkeys(texts)}
        known = {
            text: _Text(key, tokens)
            for (text, key), tokens in zip(keys.items(), cache.get_many(list(keys.values())), strict=True)
            if tokens is not None
        }
        missing = [text for text in keys if text not in known]
        if not missing:
            return known
        began = time.perf_counter()
        if length == NO_LENGTH:
            made = self._tokcask_real.encode_batch(missing, add_special_tokens=special)
        else:
            made = self._encode(missing, special, truncation, None)
        cache.add_tokenize_seconds(time.perf_counter() - began)
        for text, encoding in zip(missing, made, strict=True):
            known[text] = _Text(keys[text], None, encoding)
        if not cache.read_only:
            cache.put_many([(keys[text], known[text].tokens()) for text in missing])
            if len(texts) > 1:
                cache.flush()  # a pool of workers may be ended as soon as the last call has returned
        return known

    def _offsets(self, text: str, known: _Text, special: bool, truncation: Any) -> NDArray[Any]:
        """Where each token of all that is known lies in the text. Stored once they were asked for."""
        if known.offsets is None:
            if known.encoding is None:
                whole = known.key.sequence_len == NO_LENGTH
                (known.encoding,) = self._encode([text], special, None if whole else truncation, None)
            known.offsets = np.array(known.encoding.offsets, np.int64).reshape(-1, 2)
            cache = self._cache()
            if not cache.read_only:
                cache.put(known.key, known.tokens())
        return known.offsets

    def _encode(
        self, texts: list[Any], special: bool, truncation: Any, padding: Any, is_pretokenized: bool = False
    ) -> list[Any]:
        """The library's own encodings under these settings."""
        with self._tokcask_lock:
            made = self._tokcask_with_settings
            if made is None:
                made = copy.deepcopy(self._tokcask_real)
                self.__dict__["_tokcask_with_settings"] = made
            made.encode_special_tokens = self._tokcask_real.encode_special_tokens
            _set(made, truncation, padding)
            return list(made.encode_batch(texts, add_special_tokens=special, is_pretokenized=is_pretokenized))

    def _state(self) -> list[Any]:
        """What tells cheaply whether somebody changed a component."""
        real = self._tokcask_real
        parts = [getattr(real, name) for name in _COMPONENTS[:-1]]
        states: list[Any] = [None if part is None else part.__getstate__() for part in parts]
        states += [getattr(real.model, name, None) for name in _OF_MODELS]
        return [*states, type(real.model).__name__]

    def _cache(self) -> TokenizedCache:
        return _store_in(self._tokcask_root, self._tokcask_max_bytes)


def _restored(real: Any, root: str, max_bytes: int | None) -> CachedBackend:
    return CachedBackend(real, root, max_bytes)


def _are_texts(texts: Iterable[Any], truncation: Any) -> bool:
    if truncation is not None and (truncation["stride"] or truncation["max_length"] < 1):
        return False
    return all(type(text) is str for text in texts)


def _set(backend: Any, truncation: Any, padding: Any) -> None:
    backend.no_truncation()
    if truncation is not None:
        backend.enable_truncation(**truncation)
    backend.no_padding()
    if padding is not None:
        backend.enable_padding(**padding)
