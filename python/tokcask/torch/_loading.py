"""The order in which items reach a training loop, and how to go on in the middle of it.

An order is a function of (seed, epoch) that can be asked for any position, so a place in it is two numbers.
What this file counts are items that were handed out, never those that workers have been asked for.
"""

from __future__ import annotations

import hashlib
import itertools
import operator
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, IterableDataset, Sampler, get_worker_info

_STATE_VERSION = 1
# Positions whose indices are computed at a time: their arrays stay in the processor's second-level cache.
_CHUNK = 4096
# Items that the iterable form reads at a time.
_READ = 64
# The network's least: smaller halves mix badly.
_LEAST_BITS = 12
_NOTHING = object()
_MULTIPLIERS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))  # of splitmix64's finalizer


class _Permutation:
    """A permutation of range(length) that is computed, not stored: O(1) memory, and O(1) time per position.

    A Feistel network permutes the numbers of as few bits as hold length - 1, but 12 at least. What it maps
    beyond the range goes through it again until it is inside (cycle walking), once more at most on average.
    Its eight keys are the BLAKE2b hash of seed and epoch. Up to 4,096 items are in the order that is left of
    all 12-bit numbers. Not for secrets.
    """

    def __init__(self, length: int, seed: int, epoch: int) -> None:
        bits = max(_LEAST_BITS, (length - 1).bit_length())
        self._length = np.uint64(length)
        self._low_bits = bits // 2
        self._high_bits = bits - self._low_bits
        text = f"{seed} {epoch}".encode()
        digest = hashlib.blake2b(text, digest_size=64, person=b"tokcask order 1").digest()
        self._keys = np.frombuffer(digest, "<u8").astype(np.uint64)
        self._small: npt.NDArray[np.uint64] | None = None
        if bits == _LEAST_BITS:
            numbers = self._network(np.arange(2**bits, dtype=np.uint64))
            self._small = numbers[numbers < self._length]

    def __call__(self, positions: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
        """What stands at these positions, each below length. A new array of the same shape, 1-D."""
        if self._small is not None:
            return self._small[positions]
        result = self._network(positions)
        outside = np.flatnonzero(result >= self._length)
        while outside.size > 0:
            again = self._network(result[outside])
            result[outside] = again
            outside = outside[again >= self._length]
        return result

    def _network(self, numbers: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
        low_bits, high_bits = np.uint64(self._low_bits), np.uint64(self._high_bits)
        high = numbers >> low_bits
        low = numbers & ((np.uint64(1) << low_bits) - np.uint64(1))
        for first, second in zip(self._keys[::2], self._keys[1::2], strict=True):
            high ^= _mixed(low, first, self._high_bits)
            low ^= _mixed(high, second, self._low_bits)
        return (high << low_bits) | low


def _mixed(half: npt.NDArray[np.uint64], key: np.uint64, bits: int) -> npt.NDArray[np.uint64]:
    """`bits` bits that depend on all bits of half and key."""
    mixed = half ^ key
    mixed *= _MULTIPLIERS[0]
    mixed ^= mixed >> np.uint64(32)
    mixed *= _MULTIPLIERS[1]
    mixed >>= np.uint64(64 - bits)
    return mixed


class _Order:
    """Which index stands at which position of an epoch, for one of several replicas. Immutable."""

    def __init__(
        self,
        length_or_dataset: int | Sized,
        *,
        shuffle: bool,
        seed: int,
        num_replicas: int,
        rank: int,
        drop_last: bool,
    ) -> None:
        length = len(length_or_dataset) if isinstance(length_or_dataset, Sized) else length_or_dataset
        self.length = operator.index(length)
        self.data = _data(length_or_dataset)
        self.shuffle = bool(shuffle)
        self.seed = operator.index(seed)
        self.num_replicas = operator.index(num_replicas)
        self.rank = operator.index(rank)
        self.drop_last = bool(drop_last)
        if not 0 <= self.length < 2**62:
            raise ValueError(f"the length must be from 0 to 2**62 - 1, not {self.length}")
        if self.num_replicas < 1:
            raise ValueError(f"num_replicas must be at least 1, not {self.num_replicas}")
        if not 0 <= self.rank < self.num_replicas:
            raise ValueError(f"rank must be from 0 to num_replicas - 1 = {self.num_replicas - 1}, not {rank}")
        whole, rest = divmod(self.length, self.num_replicas)
        self.count = whole + (1 if rest and not self.drop_last else 0)
        """Positions of each replica."""

    def indices(self, epoch: int, positions: range) -> Iterator[int]:
        """The indices at this replica's positions, computed in chunks."""
        permutation = _Permutation(self.length, self.seed, epoch) if self.shuffle else None
        for start in range(0, len(positions), _CHUNK):
            chunk = positions[start : start + _CHUNK]
            places = np.arange(chunk.start, chunk.stop, chunk.step, dtype=np.uint64)
            places *= np.uint64(self.num_replicas)
            places += np.uint64(self.rank)
            # Past the end comes the beginning: the padding.
            places %= np.uint64(self.length)
            yield from (places if permutation is None else permutation(places)).tolist()

    def identity(self) -> dict[str, Any]:
        """What two orders must share for a position in one to mean the same in the other.

        Not the rank: all replicas are at the same position, so one state serves them all.
        """
        return {
            "length": self.length,
            **self.data,
            "shuffle": self.shuffle,
            "seed": self.seed,
            "num_replicas": self.num_replicas,
            "drop_last": self.drop_last,
        }


class _Progress:
    """An epoch, a position in it, and the one pass that moves them: the one begun last."""

    def __init__(self) -> None:
        self.epoch = 0
        self.position = 0
        self._sought = False
        self._owner: object = None

    def begin(self) -> object:
        """Begins a pass, at the position sought since the last one, else at the start of the epoch. Returns
        its owner, which is to be passed to move() and end()."""
        if not self._sought:
            self.position = 0
        self._sought = False
        self._owner = object()
        return self._owner

    def move(self, owner: object, position: int) -> None:
        if owner is self._owner:
            self.position = position

    def end(self, owner: object) -> None:
        """The pass is complete: what comes next is of the next epoch."""
        if owner is self._owner:
            self.epoch, self.position, self._owner = self.epoch + 1, 0, None

    def seek(self, epoch: int, position: int) -> None:
        self.epoch, self.position, self._sought, self._owner = epoch, position, True, None

    def set_epoch(self, epoch: int) -> None:
        # Trainers also say which epoch it is after a position in that epoch was restored.
        if epoch != self.epoch:
            self.seek(_whole_number(epoch, "epoch"), 0)

    def state(self) -> dict[str, int]:
        return {"version": _STATE_VERSION, "epoch": self.epoch, "position": self.position}


def _whole_number(value: Any, name: str) -> int:
    number = operator.index(value)
    if number < 0:
        raise ValueError(f"{name} must not be negative; it is {number}")
    return number


def _data(dataset: Any) -> dict[str, str]:
    """What tells a data set from another one of as many items; nothing if it has no fingerprint."""
    fingerprint = getattr(dataset, "fingerprint", None)
    return {} if fingerprint is None else {"data": str(fingerprint)}


def _checked(state: Mapping[str, Any], expected: Mapping[str, Any], end: int | None) -> tuple[int, int]:
    """Epoch and position of a state.

    ValueError if it is of another version, lacks something, differs from what is expected, or lies beyond
    `end`.
    """
    missing = [name for name in ("version", "epoch", "position", *expected) if name not in state]
    if missing:
        raise ValueError(f"this is no state for this object: it lacks {', '.join(missing)}")
    if state["version"] != _STATE_VERSION:
        raise ValueError(f"the state's version is {state['version']!r}; known is {_STATE_VERSION}")
    differences = [
        f"{name} is {state[name]!r} in the state and {value!r} here"
        for name, value in expected.items()
        if state[name] != value
    ]
    if differences:
        raise ValueError(f"the state is that of another order: {'; '.join(differences)}")
    epoch, position = _whole_number(state["epoch"], "epoch"), _whole_number(state["position"], "position")
    if end is not None and position > end:
        raise ValueError(f"the state's position {position} lies beyond the end, {end}")
    return epoch, position


class ResumableSampler(Sampler[int]):
    """The indices of a data set, in an order that is a function of seed and epoch, from any position on.

    With shuffle, each epoch is another permutation, which is computed where it is asked for: no memory, and
    going on at position 40 million takes as long as at 0. It is the same on every machine and with every
    number of workers.

    iter() begins a pass: at the position that load_state_dict() restored, or else at the start of the epoch.
    The last index of a pass advances the epoch. A pass that is given up before does not, so the next has the
    same order; call set_epoch() for another.

    state_dict() counts the indices that the pass begun last has handed out. A DataLoader with workers takes
    them ahead of the training loop: TokenDataLoader and torchdata's StatefulDataLoader know by how many, a
    plain DataLoader does not.

    Not for use by several threads at a time. Pickles with its state.
    """

    def __init__(
        self,
        length_or_dataset: int | Sized,
        *,
        shuffle: bool = True,
        seed: int = 0,
        num_replicas: int = 1,
        rank: int = 0,
        drop_last: bool = False,
    ) -> None:
        """length_or_dataset  the number of items, or what has that as its len(); it is taken once, here
        shuffle            False for 0, 1, 2, ...
        seed               any int; the same on all replicas
        num_replicas, rank  this replica gets every num_replicas-th position, from position `rank` on
        drop_last          True leaves out the items that do not fill all replicas; otherwise the first ones
                           of an epoch come once more at its end, so that all replicas have as many

        ValueError or TypeError for numbers that make no sense.
        """
        self._order = _Order(
            length_or_dataset,
            shuffle=shuffle,
            seed=seed,
            num_replicas=num_replicas,
            rank=rank,
            drop_last=drop_last,
        )
        self._progress = _Progress()

    @property
    def epoch(self) -> int:
        """The epoch of what comes next: after the last index of one, the next."""
        return self._progress.epoch

    def set_epoch(self, epoch: int) -> None:
        """Makes the next pass that of `epoch`, from its start. Nothing happens if that is the epoch already,
        so that a restored position is kept."""
        self._progress.set_epoch(epoch)

    def state_dict(self) -> dict[str, Any]:
        """Where the pass is, in ints and bools. After its last index, that is the start of the next epoch."""
        return {**self._progress.state(), **self._order.identity()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The next iter() goes on where the state was taken; one that is under way goes on uncounted.

        The state may be that of another rank. ValueError, which says what differs, for a state of another
        length, shuffle, seed, num_replicas or drop_last; nothing is changed then.
        """
        self._progress.seek(*_checked(state, self._order.identity(), self._order.count))

    def __len__(self) -> int:
        """Indices of this replica in a whole epoch."""
        return self._order.count

    def __iter__(self) -> Iterator[int]:
        # A generator: the pass begins with the first index. DataLoader makes iterators that it never uses.
        progress = self._progress
        owner = progress.begin()
        position = progress.position
        for index in self._from(progress.epoch, position):
            position += 1
            if position < self._order.count:
                progress.move(owner, position)
            else:
                progress.end(owner)
            yield index
        progress.end(owner)  # of a pass that had no index

    def _from(self, epoch: int, position: int) -> Iterator[int]:
        return self._order.indices(epoch, range(position, self._order.count))


def _prefetched(
    batches: Iterable[Sequence[int]], prefetch: Callable[[list[int]], object] | None, distance: int
) -> Iterator[Sequence[int]]:
    """The batches; prefetch() gets each `distance` batches before it is handed out, the first ones at
    once."""
    if prefetch is None:
        yield from batches
        return
    ahead: deque[Sequence[int]] = deque()
    for batch in batches:
        prefetch(list(batch))
        ahead.append(batch)
        if len(ahead) > distance:
            yield ahead.popleft()
    yield from ahead


class _Source:
    """What a TokenDataLoader, which counts itself what it hands out, iterates over.

    In the hands of another loader, as accelerate makes one around it, begin() is not called.
    """

    _progress: _Progress
    _start: tuple[int, int] | None = None

    def begin(self) -> object:
        """Begins a pass and returns its owner. The next iteration starts at its place, and counts nothing."""
        owner = self._progress.begin()
        self._start = (self._progress.epoch, self._progress.position)
        return owner

    def end(self, owner: object) -> None:
        self._progress.end(owner)

    def _taken_start(self) -> tuple[int, int] | None:
        start, self._start = self._start, None
        return start


class _LoaderSampler(_Source, ResumableSampler):
    """The sampler of a TokenDataLoader. A position is a number of items."""

    def __init__(
        self,
        dataset: Sized,
        batch_size: int,
        prefetch: Callable[[list[int]], object] | None,
        distance: int,
        **arguments: Any,
    ) -> None:
        super().__init__(dataset, **arguments)
        self._batch_size = batch_size
        self._prefetch = prefetch
        self._distance = distance

    def count(self, owner: object, batches: int) -> None:
        position = self._progress.position + batches * self._batch_size
        if len(self) - position >= (self._batch_size if self._order.drop_last else 1):
            self._progress.move(owner, position)
        else:
            self._progress.end(owner)

    def __iter__(self) -> Iterator[int]:
        start = self._taken_start()
        return super().__iter__() if start is None else self._from(*start)

    def _from(self, epoch: int, position: int) -> Iterator[int]:
        indices = super()._from(epoch, position)
        if self._prefetch is None:
            return indices
        batches = iter(lambda: list(itertools.islice(indices, self._batch_size)), [])
        return itertools.chain.from_iterable(_prefetched(batches, self._prefetch, self._distance))


class _LoaderBatches(_Source, Sampler[Sequence[int]]):
    """The batch sampler of somebody else in a TokenDataLoader. A position is a number of batches."""

    def __init__(
        self,
        batches: Iterable[Sequence[int]],
        dataset: Sized,
        prefetch: Callable[[list[int]], object] | None,
        distance: int,
    ) -> None:
        self._batches = batches
        self._length = len(dataset)
        self._data = _data(dataset)
        self._prefetch = prefetch
        self._distance = distance
        self._progress = _Progress()
        # What accelerate asks for.
        self.batch_size: int | None = getattr(batches, "batch_size", None)
        self.drop_last: bool = getattr(batches, "drop_last", False)

    @property
    def epoch(self) -> int:
        return self._progress.epoch

    def set_epoch(self, epoch: int) -> None:
        self._progress.set_epoch(epoch)

    def count(self, owner: object, batches: int) -> None:
        self._progress.move(owner, self._progress.position + batches)

    def state_dict(self) -> dict[str, Any]:
        return {**self._progress.state(), **self._identity()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._progress.seek(*_checked(state, self._identity(), None))

    def _identity(self) -> dict[str, Any]:
        # Another number of replicas, or another batch size, is another number of batches.
        count = len(self._batches) if isinstance(self._batches, Sized) else None
        return {"length": self._length, **self._data, "unit": "batches", "batches": count}

    def __len__(self) -> int:
        return len(cast(Sized, self._batches))  # TypeError if it has none, as in any DataLoader

    def __iter__(self) -> Iterator[Sequence[int]]:
        epoch, position = self._taken_start() or (self._progress.epoch, 0)
        told: Any
        for told in (self._batches, getattr(self._batches, "sampler", None)):
            if hasattr(told, "set_epoch"):
                told.set_epoch(epoch)
        batches = itertools.islice(self._batches, position, None)
        yield from _prefetched(batches, self._prefetch, self._distance)


class TokenDataLoader(DataLoader[Any]):
    """A DataLoader that goes on, after a restart, with the very batch that would have come next.

    state_dict() counts the batches that were handed to the training loop, not those that workers are ahead
    by. So it may be called between any two batches, and what it returns does not depend on num_workers,
    prefetch_factor, persistent_workers or the start method, all of which may differ after load_state_dict().
    Going on reads nothing that has been and skips nothing: it takes as long as starting.

    iter() begins a pass: at the position that load_state_dict() restored, or else at the start of the epoch.
    The last batch of a pass advances the epoch. A pass that is given up before does not, so the next has the
    same order; call set_epoch() for another. Of several iterators, the one made last is counted. A state
    taken after a batch raised an error goes on with that batch, unless the loop went on without it.

    Used by one thread at a time, as any DataLoader.
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int = 1,
        *,
        shuffle: bool = False,
        seed: int = 0,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        num_workers: int = 0,
        drop_last: bool = False,
        num_replicas: int = 1,
        rank: int = 0,
        prefetch_pages: int = 0,
        batch_sampler: Iterable[Sequence[int]] | None = None,
        **arguments: Any,
    ) -> None:
        """dataset         map-style, as TokenDataset: len(), and __getitems__() or __getitem__()
        batch_size      items of a batch, per replica
        shuffle, seed, num_replicas, rank  the order: see ResumableSampler
        collate_fn      makes a batch of a list of items; tokcask.torch.collate by default
        drop_last       True leaves out the last batch of an epoch if it is not full, and the items that do
                        not fill all replicas
        prefetch_pages  dataset.prefetch(indices) is called in this process for each batch, so many batches
                        before a worker gets it, to have its pages in the page cache by then; 0 for never
        batch_sampler   lists of indices, in place of all that decides the order here. They must be the same
                        in each pass, or depend on nothing but the epoch told to its set_epoch() or to its
                        sampler's. To go on in the middle, the lists that have been are asked for again and
                        skipped.
        arguments       of torch.utils.data.DataLoader: pin_memory, persistent_workers, prefetch_factor, ...

        ValueError or TypeError for arguments that exclude each other, and for `sampler`, in_order=False and
        datasets of the iterable kind, which cannot be resumed here.
        """
        if isinstance(dataset, IterableDataset):
            raise TypeError(
                f"TokenDataLoader cannot resume a {type(dataset).__name__}: pass the map-style dataset with "
                "shuffle=, seed=, num_replicas= and rank=, or use torchdata's StatefulDataLoader"
            )
        if "sampler" in arguments:
            raise TypeError(
                "TokenDataLoader has a sampler of its own: pass shuffle=, seed=, num_replicas= and rank=, or "
                "batch_sampler=torch.utils.data.BatchSampler(sampler, batch_size, drop_last)"
            )
        if not arguments.get("in_order", True):
            raise ValueError("with in_order=False nobody can tell which batches have been: it must be True")
        prefetch = None
        if _whole_number(prefetch_pages, "prefetch_pages") > 0:
            prefetch = getattr(dataset, "prefetch", None)
            if prefetch is None:
                raise TypeError(
                    f"prefetch_pages needs a dataset with prefetch(): {type(dataset).__name__} has none"
                )
        if collate_fn is None:
            from tokcask.torch._collate import collate

            collate_fn = collate
        self._source: _LoaderSampler | _LoaderBatches
        if batch_sampler is None:
            if batch_size is None or operator.index(batch_size) < 1:
                raise ValueError(f"batch_size must be at least 1, not {batch_size}")
            self._source = _LoaderSampler(
                dataset,
                batch_size,
                prefetch,
                prefetch_pages,
                shuffle=shuffle,
                seed=seed,
                num_replicas=num_replicas,
                rank=rank,
                drop_last=drop_last,
            )
            arguments.update(batch_size=batch_size, sampler=self._source, drop_last=drop_last)
        else:
            if (batch_size, shuffle, seed, drop_last, num_replicas, rank) != (1, False, 0, False, 1, 0):
                raise ValueError(
                    "batch_sampler excludes batch_size, shuffle, seed, drop_last, num_replicas and rank: "
                    "it decides which items come"
                )
            self._source = _LoaderBatches(batch_sampler, dataset, prefetch, prefetch_pages)
            arguments.update(batch_sampler=self._source)
        super().__init__(dataset, collate_fn=collate_fn, num_workers=num_workers, **arguments)

    @property
    def epoch(self) -> int:
        """The epoch of what comes next: after the last batch of one, the next."""
        return self._source.epoch

    def set_epoch(self, epoch: int) -> None:
        """Makes the next pass that of `epoch`, from its start. Nothing happens if that is the epoch already,
        so that a restored position is kept."""
        self._source.set_epoch(epoch)

    def state_dict(self) -> dict[str, Any]:
        """Where the training loop is, in ints, strings and bools: for JSON as for torch.save.

        It counts items, so batch_size may differ where it is loaded; with batch_sampler, it counts batches.
        It is the same for all ranks. After the last batch of an epoch, it is the start of the next; with
        batch_sampler, when the loop has ended.
        """
        return self._source.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The next iter() goes on where the state was taken; one that is under way goes on uncounted.

        ValueError, which says what differs, for a state of other data, another length, shuffle, seed,
        num_replicas or drop_last; nothing is changed then.
        """
        self._source.load_state_dict(state)

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # DataLoader names its private iterators
        owner = self._source.begin()
        return _Pass(super().__iter__(), self._source, owner)


class _Pass(Iterator[Any]):
    """An iterator of a DataLoader whose batches are counted when they are handed out."""

    def __init__(
        self, batches: Iterator[Any], source: _LoaderSampler | _LoaderBatches, owner: object
    ) -> None:
        self._batches = batches
        self._source = source
        self._owner = owner
        self._failed = 0

    def __next__(self) -> Any:
        try:
            batch = next(self._batches)
        except StopIteration:
            self._source.end(self._owner)
            raise
        except Exception as error:
            # torch goes on behind a batch that failed, but waits again for one that was late.
            if not str(error).startswith("DataLoader timed out"):
                self._failed += 1
            raise
        self._source.count(self._owner, 1 + self._failed)
        self._failed = 0
        return batch


class _Items(Protocol):
    """What the iterable form needs of a map-style dataset."""

    def __len__(self) -> int: ...
    def __getitems__(self, indices: list[int], /) -> Sequence[Any]: ...


class TokenIterableDataset(IterableDataset[Any]):
    """The items of a map-style dataset as an iterable one, for loaders that want that form.

    In a DataLoader with w workers, worker k yields every w-th item of this replica's order, from the k-th on:
    all items, none twice. They are read 64 at a time, with one __getitems__ call.

    The order is that of ResumableSampler for the epoch that set_epoch() said last, 0 before. Call it before
    each pass: it reaches workers that persist, and a pass in worker processes leaves no trace in this one, so
    passes do not advance it.

    state_dict() and load_state_dict() are for torchdata's StatefulDataLoader, which calls them in each
    worker. They count the items that the pass begun last has yielded in that process.

    Pickles as its dataset does.
    """

    def __init__(
        self,
        dataset: _Items,
        *,
        shuffle: bool = False,
        seed: int = 0,
        num_replicas: int = 1,
        rank: int = 0,
        drop_last: bool = False,
    ) -> None:
        """dataset  map-style, with __getitems__(), as TokenDataset; the other arguments are
        ResumableSampler's"""
        self.dataset = dataset
        self._order = _Order(
            dataset,
            shuffle=shuffle,
            seed=seed,
            num_replicas=num_replicas,
            rank=rank,
            drop_last=drop_last,
        )
        # In shared memory, so that workers see what is set later. Workers only read it.
        self._epoch = _shared(torch.zeros((), dtype=torch.int64))
        self._pass: _ItemPass | None = None
        self._restored: Mapping[str, Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        # A copy's place is the start of a pass, and a pass does not pickle.
        return {**self.__dict__, "_pass": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._epoch = _shared(self._epoch)  # a pickle holds its value only

    def set_epoch(self, epoch: int) -> None:
        """Makes all passes that begin from now on, in workers too, those of `epoch`. One that
        load_state_dict() restored keeps the epoch of its state."""
        self._epoch.fill_(_whole_number(epoch, "epoch"))

    def __len__(self) -> int:
        """Items of this replica in a whole epoch, all workers together."""
        return self._order.count

    def state_dict(self) -> dict[str, Any]:
        """How far this worker's pass has come, in ints and bools: its end too is a place in it."""
        if self._restored is not None:
            return dict(self._restored)
        begun = self._pass
        epoch, position = (int(self._epoch), 0) if begun is None else (begun.epoch, begun.position)
        return {"version": _STATE_VERSION, "epoch": epoch, "position": position, **self._identity()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The next pass goes on where the state was taken, in the state's epoch.

        ValueError, which says what differs, for a state of another length, shuffle, seed, num_replicas or
        drop_last. Of another worker, or another number of workers: when the pass begins.
        """
        # The workers are compared where the pass begins, which may be another process.
        workers = {name: state.get(name) for name in ("worker", "num_workers")}
        expected = {**self._identity(), **workers}
        _checked(state, expected, self._order.count)
        self._restored = dict(state)

    def _identity(self) -> dict[str, Any]:
        worker, workers = _worker()
        return {**self._order.identity(), "worker": worker, "num_workers": workers}

    def __iter__(self) -> Iterator[Any]:
        epoch, position = int(self._epoch), 0
        if self._restored is not None:
            epoch, position = _checked(self._restored, self._identity(), self._order.count)
            self._restored = None
        worker, workers = _worker()
        positions = range(worker, self._order.count, workers)
        self._pass = _ItemPass(self.dataset, self._order, epoch, positions, position)
        return self._pass


class _ItemPass(Iterator[Any]):
    """The items at some positions of an order, and the number of them that have been yielded."""

    def __init__(self, dataset: _Items, order: _Order, epoch: int, positions: range, position: int) -> None:
        self.epoch = epoch
        self.position = position
        self._dataset = dataset
        self._indices = order.indices(epoch, positions[position:])
        self._items: Iterator[Any] = iter(())

    def __next__(self) -> Any:
        item = next(self._items, _NOTHING)
        if item is _NOTHING:
            chunk = list(itertools.islice(self._indices, _READ))
            if not chunk:
                raise StopIteration
            self._items = iter(self._dataset.__getitems__(chunk))
            item = next(self._items)
        self.position += 1
        return item


def _shared(tensor: Any) -> Any:
    """The tensor, moved to memory that processes made later share."""
    return tensor.share_memory_()


def _worker() -> tuple[int, int]:
    """This process's number among the workers of a DataLoader, and their number; (0, 1) where there are
    none."""
    info = get_worker_info()
    return (0, 1) if info is None else (info.id, info.num_workers)


for _class in (ResumableSampler, TokenDataLoader, TokenIterableDataset):
    _class.__module__ = "tokcask.torch"
