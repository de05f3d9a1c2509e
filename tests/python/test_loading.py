"""The order of items, and going on in the middle of it: the sampler, the loader and the iterable form."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import pickle
import random
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from tokcask.torch import ResumableSampler, TokenDataLoader, TokenIterableDataset
from torch.utils.data import BatchSampler, DataLoader, DistributedSampler
from torchdata.stateful_dataloader import StatefulDataLoader

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")

LARGE = 1_000_003


class Items:
    """As TokenDataset, but in memory. Item i begins with token i. `log` says what was asked of it in this
    process."""

    def __init__(self, length: int, bad: tuple[int, ...] = ()) -> None:
        self.bad = bad
        self.lengths = np.arange(length) % 5 + 1
        self.log: list[tuple[str, list[int]]] = []

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: list[int]) -> list[dict[str, np.ndarray]]:
        self.log.append(("read", list(indices)))
        if set(self.bad) & set(indices):
            raise LookupError(f"bad item in {indices}")
        return [{"input_ids": np.arange(i, i + self.lengths[i], dtype=np.int32)} for i in indices]

    def prefetch(self, indices: list[int]) -> None:
        self.log.append(("prefetch", indices))

    def of(self, kind: str) -> list[list[int]]:
        return [indices for what, indices in self.log if what == kind]


def first_tokens(rows: list[dict[str, np.ndarray]]) -> torch.Tensor:
    return torch.tensor([int(row["input_ids"][0]) for row in rows])


def loader_of(items: Any, batch_size: int = 4, **arguments: Any) -> TokenDataLoader:
    return TokenDataLoader(items, batch_size, collate_fn=first_tokens, **{"seed": 3, **arguments})


def lists(batches: Any) -> list[list[int]]:
    return [batch.tolist() for batch in batches]


def stored(state: dict[str, Any]) -> dict[str, Any]:
    """The state after a way through JSON and torch.save."""
    file = io.BytesIO()
    torch.save(json.loads(json.dumps(state)), file)
    file.seek(0)
    loaded: dict[str, Any] = torch.load(file, weights_only=True)
    assert loaded == state
    return loaded


def walked(loader: Any, passes: int) -> Iterator[tuple[list[int], dict[str, Any]]]:
    """Each batch of some passes, with the state after it."""
    for _ in range(passes):
        for batch in loader:
            yield batch.tolist(), loader.state_dict()


# The order


def test_every_index_comes_once() -> None:
    for length in range(2001):
        seed = length % 7
        order = list(ResumableSampler(length, seed=seed))
        assert sorted(order) == list(range(length)), f"length {length}, seed {seed}"


@pytest.mark.parametrize("length", [LARGE, 2**20, 2**20 + 1])
def test_every_index_of_many_comes_once(length: int) -> None:
    order = np.fromiter(ResumableSampler(length, seed=11), np.int64, length)
    assert (np.bincount(order, minlength=length) == 1).all()


def test_the_order_never_changes() -> None:
    """Or else states that were stored would mean something else."""
    assert list(ResumableSampler(10)) == [9, 2, 4, 5, 7, 6, 3, 1, 0, 8]
    assert list(ResumableSampler(10, seed=-(2**70))) == [4, 8, 0, 9, 3, 1, 2, 5, 7, 6]
    sampler = ResumableSampler(10**15, seed=5, num_replicas=3, rank=1)
    sampler.load_state_dict({**sampler.state_dict(), "epoch": 7, "position": 40_000_000})
    assert next(iter(sampler)) == 557111960689751


def test_not_shuffled() -> None:
    sampler = ResumableSampler(5000, shuffle=False, seed=9)
    assert list(sampler) == list(sampler) == list(range(5000))


@pytest.mark.parametrize("length", [30, 1000])
def test_seeds_and_epochs_have_orders_of_their_own(length: int) -> None:
    orders = set()
    for seed in range(20):
        sampler = ResumableSampler(length, seed=seed)
        orders |= {tuple(sampler) for _ in range(20)}
        assert sampler.epoch == 20
    assert len(orders) == 400


def test_permutations_of_few_are_equally_likely() -> None:
    counts: dict[tuple[int, ...], int] = {}
    sampler = ResumableSampler(4)
    for _ in range(2400):
        order = tuple(sampler)
        counts[order] = counts.get(order, 0) + 1
    # 23 degrees of freedom: beyond 50 in one of a thousand.
    assert sum((count - 100) ** 2 / 100 for count in counts.values()) + (24 - len(counts)) * 100 < 50, counts


@pytest.mark.parametrize(("length", "epochs"), [(5, 2000), (100, 1500), (5000, 20)])
def test_items_are_equally_likely_at_each_position(length: int, epochs: int) -> None:
    counts = np.zeros((length, length))
    sampler = ResumableSampler(length, seed=length)
    for _ in range(epochs):
        counts[list(sampler), range(length)] += 1
    expected = epochs / length
    chi_square = ((counts - expected) ** 2 / expected).sum()
    freedom = (length - 1) ** 2
    assert abs(chi_square - freedom) < 5 * (2 * freedom) ** 0.5, f"chi-square {chi_square} with {freedom}"


@pytest.mark.parametrize("length", [1000, LARGE])
def test_neighbours_and_epochs_do_not_correlate(length: int) -> None:
    sampler = ResumableSampler(length, seed=2)
    one, two = (np.fromiter(sampler, np.float64, length) for _ in range(2))
    for first, second in ((one[1:], one[:-1]), (one, two), (one, np.arange(length))):
        assert abs(np.corrcoef(first, second)[0, 1]) < 5 / length**0.5


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("replicas", [1, 2, 3, 8])
def test_replicas_share_as_those_of_torch(replicas: int, drop_last: bool) -> None:
    for length in (0, 1, 2, 7, 8, 9, 100):
        samplers = [
            [
                ResumableSampler(
                    length, shuffle=shuffle, num_replicas=replicas, rank=rank, drop_last=drop_last
                )
                for rank in range(replicas)
            ]
            for shuffle in (False, True)
        ]
        plain, shuffled = ([list(sampler) for sampler in group] for group in samplers)
        assert [len(sampler) for sampler in samplers[1]] == [len(part) for part in shuffled]
        whole = list(ResumableSampler(length))
        assert [[whole[index] for index in part] for part in plain] == shuffled
        for rank, part in enumerate(plain if length > 0 else []):
            items: Any = range(length)
            peer: Any = DistributedSampler(items, replicas, rank, shuffle=False, drop_last=drop_last)
            assert part == list(peer), f"length {length}, rank {rank}"


# The sampler's state


def test_goes_on_from_every_position() -> None:
    sampler = ResumableSampler(50, seed=4, num_replicas=2, rank=1)
    order = [index for _ in range(3) for index in sampler]
    sampler.set_epoch(0)
    position = 0
    for _ in range(2):
        for _ in sampler:
            position += 1
            again = ResumableSampler(50, seed=4, num_replicas=2, rank=1)
            again.load_state_dict(stored(sampler.state_dict()))
            rest = list(again) + (list(again) if len(order) - position > 50 else [])
            assert rest == order[position : position + len(rest)]


def test_the_last_index_ends_the_epoch() -> None:
    """Also where nobody asks for one more."""
    sampler = ResumableSampler(10)
    order = iter(sampler)
    first = [next(order) for _ in range(10)]
    assert sampler.epoch == 1
    assert sampler.state_dict()["position"] == 0
    second = list(sampler)
    assert list(order) == []
    assert sorted(first) == sorted(second) != second != first
    assert sampler.epoch == 2


def test_going_on_far_away_costs_nothing() -> None:
    """It would take hours, or terabytes."""
    sampler = ResumableSampler(2**45)
    sampler.load_state_dict({**sampler.state_dict(), "position": 2**44})
    order = iter(sampler)
    assert len({next(order) for _ in range(5000)}) == 5000
    assert sampler.state_dict()["position"] == 2**44 + 5000


def test_a_pass_that_is_given_up_does_not_count() -> None:
    sampler = ResumableSampler(100)
    first = list(itertools.islice(sampler, 10))
    given_up = iter(sampler)
    next(given_up)
    order = list(sampler)
    assert order[:10] == first
    assert sampler.epoch == 1
    list(given_up)
    assert (sampler.epoch, sampler.state_dict()["position"]) == (1, 0)


def test_set_epoch_keeps_a_restored_position_of_that_epoch() -> None:
    sampler = ResumableSampler(100)
    sampler.set_epoch(3)
    order = list(sampler)
    sampler.load_state_dict({**sampler.state_dict(), "epoch": 3, "position": 60})
    sampler.set_epoch(3)
    assert list(sampler) == order[60:]
    sampler.load_state_dict({**sampler.state_dict(), "epoch": 3, "position": 60})
    sampler.set_epoch(2)
    assert len(list(sampler)) == 100
    assert list(sampler) == order
    with pytest.raises(ValueError, match="epoch must not be negative"):
        sampler.set_epoch(-1)


def test_a_state_serves_all_ranks() -> None:
    ranks = [ResumableSampler(20, num_replicas=2, rank=rank) for rank in range(2)]
    rest = [list(rank)[4:] for rank in ranks]
    for rank in ranks:
        rank.set_epoch(0)
    order = iter(ranks[0])
    for _ in range(4):
        next(order)
    state = ranks[0].state_dict()
    for rank in ranks:
        rank.load_state_dict(state)
    assert [list(rank) for rank in ranks] == rest


OTHERS: list[tuple[dict[str, Any], str]] = [
    ({"seed": 4}, "seed is 4 in the state and 3 here"),
    ({"length": 9}, "length is 9 in the state and 10 here"),
    ({"shuffle": False}, "shuffle is False in the state and True here"),
    ({"num_replicas": 2, "drop_last": True}, "num_replicas is 2 .* 1 here; drop_last is True"),
    ({"version": 2}, "version is 2; known is 1"),
    ({"position": 11}, "position 11 lies beyond the end, 10"),
    ({"position": -1}, "position must not be negative"),
    ({"epoch": None}, "lacks epoch"),
]


@pytest.mark.parametrize(("difference", "message"), OTHERS)
@pytest.mark.parametrize("kind", ["sampler", "loader", "iterable"])
def test_refuses_the_state_of_another_order(kind: str, difference: dict[str, Any], message: str) -> None:
    makers: dict[str, Any] = {
        "sampler": lambda: ResumableSampler(10, seed=3),
        "loader": lambda: loader_of(Items(10), 2, shuffle=True),
        "iterable": lambda: TokenIterableDataset(Items(10), shuffle=True, seed=3),
    }
    subject = makers[kind]()
    state = {**subject.state_dict(), **difference}
    state = {name: value for name, value in state.items() if value is not None}
    before = subject.state_dict()
    with pytest.raises(ValueError, match=message):
        subject.load_state_dict(state)
    assert subject.state_dict() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"length_or_dataset": -1}, "length must be from 0"),
        ({"length_or_dataset": 2**62}, "length must be from 0"),
        ({"num_replicas": 0}, "num_replicas must be at least 1, not 0"),
        ({"num_replicas": 2, "rank": 2}, "rank must be from 0 to num_replicas - 1 = 1, not 2"),
    ],
)
def test_refuses_numbers_that_make_no_sense(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ResumableSampler(**{"length_or_dataset": 10, **arguments})


def test_a_sampler_pickles_with_its_place() -> None:
    sampler = ResumableSampler(Items(30))
    rest = list(sampler)[12:]
    sampler.set_epoch(0)
    order = iter(sampler)
    for _ in range(12):
        next(order)
    copy = pickle.loads(pickle.dumps(sampler))
    copy.load_state_dict(copy.state_dict())
    assert list(copy) == rest


# The loader


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize(("length", "batch_size"), [(22, 4), (24, 4), (3, 4), (8, 1)])
def test_goes_on_after_every_batch(length: int, batch_size: int, drop_last: bool) -> None:
    def make() -> TokenDataLoader:
        return loader_of(Items(length), batch_size, shuffle=True, drop_last=drop_last)

    loader = make()
    state = loader.state_dict()
    history = list(walked(loader, 3))
    batches = [batch for batch, _ in history]
    assert len(batches) == 3 * len(make())
    for epoch in range(3 if batches else 0):
        end = history[(epoch + 1) * len(make()) - 1][1]
        assert (end["epoch"], end["position"]) == (epoch + 1, 0)
    for done, state in enumerate([state, *(state for _, state in history)]):
        again = make()
        again.load_state_dict(stored(state))
        assert again.state_dict() == state
        while again.epoch < 3 and len(again) > 0:
            for batch in again:
                assert batch.tolist() == batches[done], f"batch {done}"
                done += 1
                assert again.state_dict() == history[done - 1][1]
        assert done == len(batches)


@pytest.mark.parametrize(("before", "after"), [(0, 1), (1, 2), (2, 4), (4, 0)])
def test_goes_on_with_other_workers(before: int, after: int) -> None:
    reference = list(walked(loader_of(Items(42), shuffle=True), 3))
    batches = [batch for batch, _ in reference]
    loader = loader_of(Items(42), shuffle=True, num_workers=before, persistent_workers=before == 2)
    history = list(walked(loader, 2))
    assert history == reference[: len(history)]
    for done in (3, 11, 13):
        again = loader_of(
            Items(42), shuffle=True, num_workers=after, prefetch_factor=5 if after > 0 else None
        )
        again.load_state_dict(stored(history[done - 1][1]))
        rest = [lists(again) for _ in range(2)]
        assert [batch for group in rest for batch in group] == batches[done : done + sum(map(len, rest))]
        assert len(rest[0]) == 11 - done % 11


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_goes_on_with_every_start_method(method: str) -> None:
    reference = list(walked(loader_of(Items(42), shuffle=True), 3))
    loader = loader_of(
        Items(42), shuffle=True, num_workers=2, multiprocessing_context=method, persistent_workers=True
    )
    loader.load_state_dict(stored(reference[4][1]))
    assert list(walked(loader, 2)) == reference[5:22]
    # Once more with the same workers, which are ahead when the loop is left.
    assert list(itertools.islice(walked(loader, 1), 2)) == reference[22:24]
    loader.load_state_dict(reference[12][1])
    assert list(walked(loader, 1)) == reference[13:22]


def test_replicas_go_on_together() -> None:
    def make(rank: int) -> TokenDataLoader:
        return loader_of(Items(45), shuffle=True, num_replicas=2, rank=rank)

    references = [list(walked(make(rank), 2)) for rank in range(2)]
    for one, two in zip(*references, strict=True):
        assert one[1] == two[1]
    epoch = [index for reference in references for batch, _ in reference[:6] for index in batch]
    assert sorted(epoch)[:-1] == sorted(set(epoch)) or len(epoch) == 46
    assert set(epoch) == set(range(45))
    for rank, reference in enumerate(references):
        loader = make(rank)
        loader.load_state_dict(references[0][2][1])
        assert list(walked(loader, 2)) == reference[3:]


def test_a_loop_that_is_left_and_one_that_is_restored() -> None:
    loader = loader_of(Items(40), shuffle=True)
    order = lists(loader)
    loader.set_epoch(0)
    assert lists(itertools.islice(loader, 3)) == order[:3]
    state = loader.state_dict()
    assert (state["epoch"], state["position"]) == (0, 12)
    assert lists(loader) == order
    loader.load_state_dict(state)
    loader.set_epoch(0)
    assert lists(loader) == order[3:]
    assert loader.epoch == 1
    loader.load_state_dict(state)
    loader.set_epoch(5)
    assert loader.state_dict() == {**state, "epoch": 5, "position": 0}


def test_counts_the_iterator_made_last() -> None:
    loader = loader_of(Items(40))
    old, new = iter(loader), None
    next(old)
    new = iter(loader)
    next(old)
    next(old)
    assert loader.state_dict()["position"] == 0
    next(new)
    assert loader.state_dict()["position"] == 4
    assert len(list(old)) == 7
    assert (loader.epoch, loader.state_dict()["position"]) == (0, 4)


def test_another_batch_size_goes_on_with_the_same_items() -> None:
    order = [index for batch in loader_of(Items(40), shuffle=True) for index in batch.tolist()]
    loader = loader_of(Items(40), shuffle=True)
    next(batches := iter(loader))
    next(batches)
    again = loader_of(Items(40), 5, shuffle=True)
    again.load_state_dict(loader.state_dict())
    assert [index for batch in again for index in batch.tolist()] == order[8:]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_batch_that_fails(workers: int) -> None:
    """Not counted, unless the loop goes on without it."""
    loader = loader_of(Items(24, bad=(9,)), num_workers=workers)
    batches = iter(loader)
    assert [next(batches)[0], next(batches)[0]] == [0, 4]
    with pytest.raises(LookupError, match="bad item"):
        next(batches)
    assert loader.state_dict()["position"] == 8
    assert next(batches)[0] == 12
    assert loader.state_dict()["position"] == 16
    assert next(batches)[0] == 16
    assert loader.state_dict()["position"] == 20
    assert len(list(batches)) == 1
    assert loader.epoch == 1


class Slow(Items):
    def __getitems__(self, indices: list[int]) -> list[dict[str, np.ndarray]]:
        time.sleep(0.4)
        return super().__getitems__(indices)


def test_a_batch_that_is_late() -> None:
    """torch waits for it again, so it is counted when it comes."""
    loader = loader_of(Slow(12), num_workers=1, timeout=0.3)
    batches, late, found = iter(loader), 0, []
    while len(found) < 3:
        try:
            found.append(next(batches)[0])
        except RuntimeError:
            late += 1
        assert loader.state_dict()["position"] == len(found) * 4 % 12
    assert found == [0, 4, 8]
    assert late > 0
    assert list(batches) == []


def test_pinned_memory() -> None:
    """Where there is no accelerator, torch warns and goes on without."""
    loader = loader_of(Items(20), pin_memory=True)
    missing = pytest.warns(UserWarning, match="no accelerator is found")
    with contextlib.nullcontext() if torch.accelerator.is_available() else missing:
        assert lists(loader) == lists(loader_of(Items(20)))


@pytest.mark.parametrize("distance", [1, 3, 100])
@pytest.mark.parametrize("skipped", [0, 4])
def test_prefetches_batches_ahead(distance: int, skipped: int) -> None:
    items = Items(40)
    loader = loader_of(items, shuffle=True, prefetch_pages=distance)
    plain = loader_of(Items(40), shuffle=True)
    if skipped:
        loader.load_state_dict({**loader.state_dict(), "position": 4 * skipped})
    order = lists(plain)[skipped:]
    for done, batch in enumerate(loader):
        assert batch.tolist() == order[done]
        assert items.of("prefetch") == order[: done + 1 + distance]
        assert items.log[-1] == ("read", order[done])
    assert items.of("read") == order
    assert lists(loader) == lists(plain)


def test_prefetches_in_the_process_of_the_loop() -> None:
    items = Items(40)
    loader = loader_of(items, shuffle=True, prefetch_pages=2, num_workers=2, prefetch_factor=1, timeout=60)
    batches = iter(loader)
    first = next(batches).tolist()
    assert items.of("prefetch")[0] == first
    # Two that workers have, another since one came back, and two ahead.
    assert len(items.of("prefetch")) == 5
    assert items.of("read") == []
    order = [first, *lists(batches)]
    assert items.of("prefetch") == order


class Budget:
    """Batches of at most so many tokens, as somebody may write them: without len(), each epoch's its own."""

    def __init__(self, lengths: np.ndarray, tokens: int, epoch: int = 0) -> None:
        self.lengths, self.tokens, self.epoch = lengths, tokens, epoch

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        batch: list[int] = []
        for index in random.Random(self.epoch).sample(range(len(self.lengths)), len(self.lengths)):
            if batch and self.lengths[[*batch, index]].sum() > self.tokens:
                yield batch
                batch = []
            batch.append(index)
        yield batch


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_of_another_sampler(workers: int) -> None:
    def make() -> tuple[Items, TokenDataLoader]:
        items = Items(40)
        return items, TokenDataLoader(
            items,
            batch_sampler=Budget(items.lengths, 12),
            collate_fn=first_tokens,
            num_workers=workers,
            prefetch_pages=1,
        )

    history = list(walked(make()[1], 2))
    lengths = Items(40).lengths
    assert sorted(index for batch, _ in history for index in batch) == sorted([*range(40)] * 2)
    assert [batch for batch, _ in history] == [*Budget(lengths, 12, 0), *Budget(lengths, 12, 1)]
    for done in (0, 1, 5, len(history) - 1):
        items, loader = make()
        if done > 0:
            loader.load_state_dict(stored(history[done - 1][1]))
        rest = [*walked(loader, 2 - loader.epoch)]
        assert rest == history[done:]
        assert items.of("prefetch") == [batch for batch, _ in rest]
        with pytest.raises(ValueError, match="lacks unit"):
            loader.load_state_dict(loader_of(Items(40)).state_dict())
    with pytest.raises(TypeError, match="len"):
        len(loader)


def test_batches_of_a_sampler_of_ours() -> None:
    items = Items(40)
    sampler = ResumableSampler(items, seed=3)
    loader = TokenDataLoader(items, batch_sampler=BatchSampler(sampler, 4, False), collate_fn=first_tokens)
    assert len(loader) == 10
    plain = loader_of(items, shuffle=True)
    assert [lists(loader) for _ in range(3)] == [lists(plain) for _ in range(3)]
    assert len(lists(itertools.islice(loader, 2))) == 2
    assert (loader.epoch, loader.state_dict()["position"]) == (3, 2)
    assert len(lists(loader)) == 10


def test_is_a_dataloader() -> None:
    loader = loader_of(Items(10), shuffle=True, drop_last=True)
    assert isinstance(loader, DataLoader)
    assert (loader.batch_size, loader.drop_last, len(loader)) == (4, True, 2)
    assert isinstance(loader.sampler, ResumableSampler)


def test_another_loader_around_its_batches() -> None:
    """accelerate makes one, which tells the epoch before each pass. A first look does not disturb it."""
    items = Items(40)
    plain, loader = (loader_of(items, shuffle=True) for _ in range(2))
    orders = [lists(plain) for _ in range(3)]
    assert next(iter(loader)).tolist() == orders[0][0]
    other: Any = DataLoader(items, batch_sampler=loader.batch_sampler, collate_fn=first_tokens)
    assert [lists(other) for _ in range(2)] == orders[:2]
    for epoch in (2, 0):
        sampler: Any = loader.sampler
        sampler.set_epoch(epoch)
        assert lists(other) == orders[epoch]


class WithoutPrefetch:
    def __len__(self) -> int:
        return 3


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"dataset": TokenIterableDataset(Items(3))}, TypeError, "StatefulDataLoader"),
        ({"sampler": range(3)}, TypeError, "sampler of its own"),
        ({"in_order": False, "num_workers": 1}, ValueError, "in_order=False"),
        ({"prefetch_pages": -1}, ValueError, "prefetch_pages must not be negative"),
        ({"prefetch_pages": 1, "dataset": WithoutPrefetch()}, TypeError, "WithoutPrefetch has none"),
        ({"batch_size": 0}, ValueError, "batch_size must be at least 1, not 0"),
        ({"batch_size": None}, ValueError, "batch_size must be at least 1, not None"),
        ({"batch_sampler": [[0]], "shuffle": True}, ValueError, "batch_sampler excludes"),
        ({"batch_sampler": [[0]], "rank": 1, "num_replicas": 2}, ValueError, "batch_sampler excludes"),
        ({"num_replicas": 2, "rank": 2}, ValueError, "rank must be"),
        ({"unknown": 1}, TypeError, "unknown"),
    ],
)
def test_refuses_what_it_could_not_resume(
    arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        TokenDataLoader(**{"dataset": Items(3), "collate_fn": first_tokens, **arguments})


# Others' loaders


def stateful(items: Any, **arguments: Any) -> Any:
    return StatefulDataLoader(items, batch_size=4, collate_fn=first_tokens, **arguments)


@pytest.mark.parametrize("workers", [0, 2])
def test_the_sampler_in_a_stateful_loader(workers: int) -> None:
    def make() -> Any:
        items = Items(42)
        return stateful(items, sampler=ResumableSampler(items, seed=3), num_workers=workers)

    history = list(walked(make(), 3))
    assert history[0][0] == next(iter(loader_of(Items(42), shuffle=True))).tolist()
    for done in (1, 6, 10, 12):
        loader = make()
        loader.load_state_dict(history[done - 1][1])
        rest = [batch for _ in range(2) for batch in lists(loader)]
        assert rest == [batch for batch, _ in history[done:]][: len(rest)]
        assert len(rest) == 22 - done % 11


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stateful_loader_that_was_done(workers: int) -> None:
    def make() -> Any:
        items = Items(42)
        return stateful(items, sampler=ResumableSampler(items, seed=3), num_workers=workers)

    loader = make()
    lists(loader)
    state = loader.state_dict()
    expected = lists(loader)
    again = make()
    again.load_state_dict(state)
    assert lists(again) == expected


# The iterable form


@pytest.mark.parametrize("workers", [0, 1, 2, 3])
def test_workers_share_the_items(workers: int) -> None:
    for rank in range(2):
        items = TokenIterableDataset(Items(301), shuffle=True, seed=3, num_replicas=2, rank=rank)
        sampler = ResumableSampler(301, seed=3, num_replicas=2, rank=rank)
        assert len(items) == len(sampler) == 151
        loader: Any = DataLoader(items, batch_size=4, num_workers=workers, collate_fn=first_tokens)
        batches = lists(loader)
        seen = [index for batch in batches for index in batch]
        order = list(sampler)
        assert seen == order if workers < 2 else sorted(seen) == sorted(order)
        if workers == 2:
            assert batches[:2] == [order[0:8:2], order[1:9:2]]


def test_reads_many_items_at_a_time() -> None:
    items = Items(200)
    assert [row["input_ids"][0] for row in TokenIterableDataset(items)] == list(range(200))
    assert [len(read) for read in items.of("read")] == [64, 64, 64, 8]


def test_the_epoch_reaches_workers_that_persist() -> None:
    items = TokenIterableDataset(pickle.loads(pickle.dumps(Items(30))), shuffle=True, seed=3)
    items = pickle.loads(pickle.dumps(items))
    loader: Any = DataLoader(
        items, batch_size=4, num_workers=1, persistent_workers=True, collate_fn=first_tokens
    )
    sampler = ResumableSampler(30, seed=3)
    for epoch in (0, 1, 1, 5):
        items.set_epoch(epoch)
        sampler.set_epoch(epoch)
        assert [index for batch in lists(loader) for index in batch] == list(sampler)
    with pytest.raises(ValueError, match="epoch must not be negative"):
        items.set_epoch(-1)


@pytest.mark.parametrize(("workers", "persistent"), [(0, False), (2, False), (2, True), (3, False)])
def test_the_iterable_form_in_a_stateful_loader(workers: int, persistent: bool) -> None:
    def make() -> tuple[TokenIterableDataset, Any]:
        items = TokenIterableDataset(Items(201), shuffle=True, seed=3)
        return items, stateful(items, num_workers=workers, persistent_workers=persistent)

    items, loader = make()
    items.set_epoch(4)
    history = list(walked(loader, 1))
    assert sorted(index for batch, _ in history for index in batch) == list(range(201))
    items.set_epoch(5)
    following = lists(loader)
    for done in (1, 2, 17, 33, 49, 50, len(history) - 1, len(history)):
        items, loader = make()
        items.set_epoch(4)
        loader.load_state_dict(history[done - 1][1])
        assert lists(loader) == [batch for batch, _ in history[done:]], f"after {done} of {len(history)}"
    items.set_epoch(5)
    assert lists(loader) == following


@pytest.mark.parametrize("workers", [0, 2])
def test_the_iterable_form_in_a_stateful_loader_that_was_done(workers: int) -> None:
    items = TokenIterableDataset(Items(42), shuffle=True)
    loader = stateful(items, num_workers=workers)
    whole = lists(loader)
    state = loader.state_dict()
    again = stateful(TokenIterableDataset(Items(42), shuffle=True), num_workers=workers)
    again.load_state_dict(state)
    assert lists(again) == whole


def test_refuses_the_state_of_another_worker() -> None:
    items = TokenIterableDataset(Items(10))
    state = {**items.state_dict(), "worker": 1, "num_workers": 2, "position": 3}
    items.load_state_dict(stored(state))
    assert items.state_dict() == state
    with pytest.raises(ValueError, match="worker is 1 in the state and 0 here; num_workers is 2"):
        iter(items)
    items.load_state_dict({**state, "worker": 0, "num_workers": 1})
    assert [row["input_ids"][0] for row in items] == list(range(3, 10))
    assert len(list(items)) == 10
