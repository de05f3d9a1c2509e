"""For TRL's SFTTrainer: the data set it would make of your rows, out of a store, without tokenizing twice.

    from tokcask.trl import sft_dataset

    train = sft_dataset("tokens", rows, tokenizer=tokenizer, max_length=1024)
    config = SFTConfig(..., max_length=1024, dataset_kwargs={"skip_prepare_dataset": True})
    trainer = SFTTrainer(model, args=config, train_dataset=train.to_hf(), processing_class=tokenizer)

An SFTDataset is a torch dataset, which transformers' Trainer and any loop take as it is. SFTTrainer insists on
a datasets.Dataset: to_hf() is one that reads the same rows from the store, and to_arrow() one with a file of its
own. Needs torch, and these two the package datasets. TRL itself is needed for assistant_only_loss alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, SupportsIndex

import numpy as np
from numpy.typing import NDArray

from tokcask._adapters import adapted, digest
from tokcask._core import CachedTokens, CacheKey, TokenizedCache, section_id
from tokcask._encoding import Encoder, Recipe, Section
from tokcask._filling import Store, chunks
from tokcask._identity import tokenizer_sha256, traits_of
from tokcask.torch._dataset import TokenDataset

__all__ = ["SFTDataset", "sft_dataset"]

_NO_LENGTH = 2**31 - 1
_LOOKUP = 10_000
_ROWS_PER_WRITE = 1000


def sft_dataset(
    root: str | os.PathLike[str],
    rows: Iterable[Mapping[str, Any]],
    *,
    tokenizer: Any,
    max_length: int | None = 1024,
    truncation_mode: Literal["keep_start", "keep_end"] = "keep_start",
    assistant_only_loss: bool = False,
    text_field: str = "text",
    max_bytes: int | None = None,
) -> SFTDataset:
    """The rows as SFTTrainer would tokenize them, from the store in root, which gets what it lacks.

    The ids and labels are those of TRL's own preparation, to the bit; so are the rows that it leaves out because
    nothing of them would be learned. Give max_length and truncation_mode as you would in SFTConfig, and
    {"skip_prepare_dataset": True} as its dataset_kwargs; assistant_only_loss only here, because the labels then say
    it, and SFTConfig would ask for conversations. Packing is not prepared: use
    TokenDataset.pack() and tokcask.torch.Collator for that.

    rows       a list, a Dataset of the library datasets, or any iterable of rows, with `messages` (and perhaps
               `tools` and `chat_template_kwargs`) or text. They are read once, and again where tokens are missing
    tokenizer  what SFTTrainer gets as its processing_class, with the eos_token that it shall have
    max_bytes  of the store; see TokenizedCache.open()

    Of all tokens no copy is made: an item is read out of the store when it is asked for. One that the store has no
    room for is tokenized when it is asked for. Processes that do the same at the same time, as the ranks of a
    launcher, share the work as in pretokenize_rows().

    Raises ValueError or TypeError, which name the row, for a row of another kind, and for a conversation without
    tokens of the assistant if only these count.
    """
    if truncation_mode not in ("keep_start", "keep_end"):
        raise ValueError(f"truncation_mode must be 'keep_start' or 'keep_end', not {truncation_mode!r}")
    if not isinstance(rows, Sequence) and not hasattr(rows, "__getitem__"):
        rows = list(rows)
    tokenizer = adapted(tokenizer)
    length = _NO_LENGTH if max_length is None else CacheKey("-", "-", max_length).sequence_len
    maker = _Maker(
        rows, tokenizer, _recipe(tokenizer, length, truncation_mode, assistant_only_loss), text_field
    )
    with TokenizedCache.open(root, max_bytes=max_bytes) as cache:
        sha = tokenizer_sha256(tokenizer)
        store = Store(cache, sha, length)
        if not assistant_only_loss:
            store.declare(traits_of(tokenizer))
        ids, learned = _fill(store, maker)
        kept = [place for place, section in enumerate(ids) if max_length is None or learned[section]]
        maker.places = np.array(kept, np.int64)
        # While the cache is open, so that nothing is evicted in between.
        dataset = SFTDataset(root, (store.key(ids[place]) for place in kept), missing=maker)
    dataset._masked = assistant_only_loss
    return dataset


def _recipe(
    tokenizer: Any, length: int, truncation_mode: Literal["keep_start", "keep_end"], assistant: bool
) -> Recipe:
    if assistant:
        return Recipe(length, truncation_mode, True, _training_template(tokenizer))
    # Where the tokenizer's own cut is the same, entries are shared with pretokenize_rows().
    _, to_prefix = traits_of(tokenizer)
    return Recipe(length, "tokenizer" if to_prefix and truncation_mode == "keep_start" else truncation_mode)


def _training_template(tokenizer: Any) -> str | None:
    """The template that TRL puts in the place of one that does not mark what the assistant says."""
    try:
        from trl.chat_template_utils import get_training_chat_template, has_generation_markers
    except ImportError as error:
        raise ImportError("assistant_only_loss needs the package trl: pip install trl") from error
    if has_generation_markers(tokenizer.chat_template):
        return None
    template: str | None = get_training_chat_template(tokenizer)
    return template


class _Maker:
    """Tokens of the rows, for filling the store and for what the store has no room for. Picklable as its parts."""

    def __init__(self, rows: Any, tokenizer: Any, recipe: Recipe, text_field: str) -> None:
        self.rows = rows
        self.tokenizer = tokenizer
        self.recipe = recipe
        self.text_field = text_field
        self.places: NDArray[np.int64] = np.zeros(0, np.int64)
        self._kind = ""
        if recipe.cut != "tokenizer":
            # Other ids than the tokenizer's own cut, or another mask, are other sections.
            self._kind = f"trl-{digest([recipe.cut, recipe.assistant_mask, recipe.chat_template])[:16]}-"

    def encoder(self) -> Encoder:
        return Encoder(self.tokenizer, self.recipe)

    def section(self, place: int, row: Any) -> Section:
        if not isinstance(row, Mapping):
            raise TypeError(f"row {place} is a {type(row).__name__}, not a dict")
        try:
            return self._section(row)
        except UnicodeError as error:
            raise ValueError(f"row {place}: {error}") from error
        except (TypeError, ValueError) as error:
            raise type(error)(f"row {place}: {error}") from error

    def _section(self, row: Mapping[str, Any]) -> Section:
        if row.get("prompt") is not None:
            raise ValueError("it has a prompt; leave rows of prompt and completion to SFTTrainer")
        messages = row.get("messages")
        if messages is None:
            return self._text(row)
        if not isinstance(messages, Sequence) or isinstance(messages, str) or not messages:
            raise ValueError("messages must be a list with at least one message")
        tools = row.get("tools")
        tools = json.loads(tools) if isinstance(tools, str) else tools
        options = row.get("chat_template_kwargs") or {}
        parts = [messages, tools, options] if options else [messages, tools]
        try:
            content = json.dumps(parts, ensure_ascii=False, separators=(",", ":"))
        except TypeError as error:
            raise TypeError(f"messages and tools must be of what JSON has: {error}") from error
        identity = section_id(content, self._kind + "messages")
        return Section(identity, messages=messages, tools=tools, template_options=options)

    def _text(self, row: Mapping[str, Any]) -> Section:
        text = row.get(self.text_field)
        if not isinstance(text, str):
            raise ValueError(f"it has neither messages nor {self.text_field}; its fields are {sorted(row)}")
        eos_token = getattr(self.tokenizer, "eos_token", None)
        if eos_token and not text.endswith(eos_token):
            text += eos_token
        return Section(section_id(text, self._kind + "text"), text=text)

    def make(self, places: list[int], encoder: Encoder) -> dict[str, CachedTokens]:
        return encoder.make([self.section(place, self.rows[place]) for place in places])

    def __call__(self, index: int) -> CachedTokens:
        """The tokens of an item that the store does not have."""
        place = int(self.places[index])
        (made,) = self.make([place], self.encoder()).values()
        return made


def _fill(store: Store, maker: _Maker) -> tuple[list[str], dict[str, bool]]:
    """Has the store filled. The section id of each row, and which sections have something to learn."""
    ids: list[str] = []
    learned: dict[str, bool] = {}
    missing: dict[str, int] = {}
    masked = maker.recipe.assistant_mask

    def took(made: Mapping[str, CachedTokens], _: bool = True) -> None:
        for section, tokens in made.items():
            learned[section] = bool(tokens.attention_mask.any()) if masked else len(tokens.input_ids) > 0

    for part in chunks(enumerate(maker.rows), _LOOKUP):
        sections = [maker.section(place, row).id for place, row in part]
        new = [section for section in dict.fromkeys(sections) if section not in learned]
        took(store.find(new))
        for (place, _), section in zip(part, sections, strict=True):
            if section not in learned:
                missing.setdefault(section, place)
        ids += sections
    if missing:
        encoder = maker.encoder()
        threads = 0 if masked else encoder.in_flight
        seconds = store.fill(
            missing, lambda places: maker.make(places, encoder), in_flight=threads, took=took
        )
        store.finish(seconds)
    return ids, learned


class SFTDataset(TokenDataset):
    """What sft_dataset() returns: a TokenDataset whose items are a trainer's rows.

    dataset[i] is a dict of input_ids and labels, int64 arrays of NumPy made for this call. Labels are the ids, or
    -100 where they are not to be learned. For the collators of TRL and transformers, which pad by themselves.
    """

    column_names = ("input_ids", "labels")  # what TRL looks at
    _masked = False

    def __getitem__(self, index: SupportsIndex) -> Any:
        return self._row(super().__getitem__(index))

    def __getitems__(self, indices: Iterable[SupportsIndex]) -> list[Any]:
        """The items at these indices, from one snapshot."""
        return [self._row(tokens) for tokens in super().__getitems__(indices)]

    def _row(self, tokens: CachedTokens) -> dict[str, NDArray[np.int64]]:
        input_ids = tokens.input_ids.astype(np.int64)
        labels = np.where(tokens.attention_mask, input_ids, -100) if self._masked else input_ids
        return {"input_ids": input_ids, "labels": labels}

    def to_hf(self) -> Any:
        """The same rows as a datasets.Dataset that reads them from the store when they are asked for.

        It holds 8 bytes for each row. select(), shuffle() and the like work; map() and filter() would write all tokens
        to a file of their own, so SFTTrainer needs dataset_kwargs={"skip_prepare_dataset": True}.
        """
        import datasets

        # The trainer keeps a column of this name; what is in it is the row's place here.
        made = datasets.Dataset.from_dict({"input_ids": np.arange(len(self))})
        rows = _Rows(hashlib.sha256(self._native.packed_keys() + bytes([self._masked])).hexdigest())
        made.set_transform(rows)
        rows.dataset = self  # only now: what is set is pickled in order to be hashed
        return made

    def to_arrow(self, directory: str | os.PathLike[str] | None = None) -> Any:
        """A copy of the rows as a datasets.Dataset, with columns input_ids (int32) and labels (int64).

        They are written to an Arrow file, a thousand at a time, and mapped from there: in directory, which must
        exist and keeps it, or in a temporary one that is removed together with the Dataset.
        """
        import datasets

        if directory is not None:
            file = pathlib.Path(directory) / "tokcask.arrow"
            self._write_arrow(file)
            return datasets.Dataset.from_file(str(file))
        temporary = tempfile.mkdtemp(prefix="tokcask-")
        try:
            file = pathlib.Path(temporary) / "tokcask.arrow"
            self._write_arrow(file)
            made = datasets.Dataset.from_file(str(file))
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        weakref.finalize(made, _remove, temporary, os.getpid())
        return made

    def _write_arrow(self, file: pathlib.Path) -> None:
        import datasets
        import pyarrow as pa

        features = datasets.Features(
            input_ids=datasets.List(datasets.Value("int32")), labels=datasets.List(datasets.Value("int64"))
        )
        unfinished = file.with_suffix(".unfinished")
        with pa.OSFile(str(unfinished), "wb") as sink:
            with pa.ipc.new_stream(sink, features.arrow_schema) as writer:
                for part in chunks(range(len(self)), _ROWS_PER_WRITE):
                    rows = self.__getitems__(part)
                    columns = [
                        _list_array([row[name] for row in rows], kind)
                        for name, kind in (("input_ids", np.int32), ("labels", np.int64))
                    ]
                    writer.write_batch(pa.record_batch(columns, schema=features.arrow_schema))
        unfinished.replace(file)

    def __repr__(self) -> str:
        return f"<tokcask.trl.SFTDataset {self.root!r}: {len(self)} items>"

    def __reduce__(self) -> tuple[Any, ...]:
        rebuild, arguments = super().__reduce__()
        return _reopen_sft, (self._masked, rebuild, arguments)


def _reopen_sft(
    masked: bool, rebuild: Callable[..., TokenDataset], arguments: tuple[Any, ...]
) -> TokenDataset:
    dataset = rebuild(*arguments)
    assert isinstance(dataset, SFTDataset)
    dataset._masked = masked
    return dataset


class _Rows:
    """What makes rows of places, for datasets.Dataset.set_transform()."""

    def __init__(self, identity: str) -> None:
        self.identity = identity  # for the Dataset's fingerprint
        self.dataset: SFTDataset | None = None

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[NDArray[np.int64]]]:
        assert self.dataset is not None
        rows = self.dataset.__getitems__(batch["input_ids"])
        return {name: [row[name] for row in rows] for name in ("input_ids", "labels")}

    def __deepcopy__(self, _: Any) -> _Rows:
        # A Dataset copies itself, format and all, for each of its methods.
        return self


def _list_array(rows: list[NDArray[Any]], kind: Any) -> Any:
    import pyarrow as pa

    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int32)
    values = np.concatenate(rows).astype(kind) if rows else np.zeros(0, kind)
    return pa.ListArray.from_arrays(offsets, values)


def _remove(directory: str, process: int) -> None:
    # A forked worker ends with its parent's objects, whose files are not its own to remove.
    if os.getpid() == process:
        shutil.rmtree(directory, ignore_errors=True)
