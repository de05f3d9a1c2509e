"""Everybody who takes part, in the order of the tables."""

from rivals.arrayrecord import ArrayRecord
from rivals.base import Rival
from rivals.cachedir import DiskCache
from rivals.hf import HfCollator, HfDatasets
from rivals.litdata_tokens import LitdataTokens
from rivals.mds import MosaicMds
from rivals.megatron import Megatron, MegatronPadSequence
from rivals.ours import Tokcask, TokcaskGet
from rivals.pylmdb import PyLmdb
from rivals.seed import Seed
from rivals.sqlite import SqliteBlobs

RIVALS: tuple[Rival, ...] = (
    Tokcask(),
    TokcaskGet(),
    Megatron(),
    MegatronPadSequence(),
    PyLmdb(),
    SqliteBlobs(),
    ArrayRecord(),
    LitdataTokens(),
    MosaicMds(),
    HfDatasets(),
    HfCollator(),
    DiskCache(),
    Seed(),
)


def rival_named(name: str) -> Rival:
    return next(rival for rival in RIVALS if rival.name == name)
