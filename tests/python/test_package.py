"""The installed package: types, stubs, imports, what the extension module exports."""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
import pathlib
import re
import shutil
import subprocess
import sys

import pytest
import tokcask

from conftest import run_python

HERE = pathlib.Path(__file__).parent
PACKAGE = pathlib.Path(tokcask.__file__).parent


def mypy(tmp_path: pathlib.Path, *arguments: object) -> None:
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", tmp_path / "cache"]
    command += ["--config-file", HERE.parent.parent / "pyproject.toml", *arguments]
    process = subprocess.run([str(part) for part in command], capture_output=True, text=True, cwd=tmp_path)
    assert process.returncode == 0, process.stdout + process.stderr


def test_types_of_the_package(tmp_path: pathlib.Path) -> None:
    mypy(tmp_path, "-p", "tokcask")


def test_types_for_those_who_use_it(tmp_path: pathlib.Path) -> None:
    program = tmp_path / "program.py"
    shutil.copy(HERE / "test_names.py", program)
    mypy(tmp_path, program)


def test_is_typed() -> None:
    assert (PACKAGE / "py.typed").is_file()
    stub = (PACKAGE / "_core.pyi").read_text()
    assert "def get(self, key: CacheKey) -> CachedTokens | None:" in stub
    assert (
        "def get(self, key: str, default: None = None) -> numpy.typing.NDArray[numpy.int32] | None:" in stub
    )


def test_version() -> None:
    """It stands in one place."""
    (version,) = re.findall(r"version: '(\d+\.\d+\.\d+)'", (HERE.parent.parent / "meson.build").read_text())
    assert tokcask.__version__ == importlib.metadata.version("tokcask") == version


def test_the_tests_see_the_installed_package() -> None:
    assert "site-packages" in PACKAGE.parts


@pytest.mark.parametrize("name", [name for name in tokcask.__all__ if name != "__version__"])
def test_everything_is_documented(name: str) -> None:
    thing = getattr(tokcask, name)
    assert thing.__doc__
    if inspect.isclass(thing) and thing.__module__ == "tokcask":
        for member, value in vars(thing).items():
            if not member.startswith("_"):
                assert value.__doc__, f"{name}.{member}"


def test_importing_is_cheap() -> None:
    process = run_python(
        """
import sys
before = set(sys.modules)
import tokcask
print(sorted(set(sys.modules) - before))
tokcask.CacheKey("a", "b", 1)
tokcask.section_id("text")
print("numpy" in sys.modules)
tokcask.tokenizer_sha256
print("numpy" in sys.modules)
"""
    )
    assert process.stdout.splitlines() == ["['__future__', 'tokcask']", "False", "False"], process.stderr


def test_unknown_names() -> None:
    with pytest.raises(AttributeError, match="module 'tokcask' has no attribute 'absent'"):
        tokcask.absent  # noqa: B018
    with pytest.raises(ImportError):
        importlib.import_module("tokcask.absent")


def test_exports_nothing_but_its_init() -> None:
    """Otherwise a program that also loads the shared library could mix the two."""
    (module,) = PACKAGE.glob("_core*.so")
    symbols = subprocess.run(
        ["nm", "-D", "--defined-only", "-C", module], capture_output=True, text=True, check=True
    ).stdout
    assert [line.split(maxsplit=2)[2] for line in symbols.splitlines()] == ["PyInit__core"]


def test_the_library_is_inside() -> None:
    (module,) = PACKAGE.glob("_core*.so")
    needed = subprocess.run(["readelf", "-d", module], capture_output=True, text=True, check=True).stdout
    assert "NEEDED" in needed
    assert "libtokcask" not in needed


@pytest.mark.parametrize("order", [("lmdb", "tokcask._core"), ("tokcask._core", "lmdb")])
def test_beside_another_lmdb(tmp_path: pathlib.Path, order: tuple[str, str]) -> None:
    """py-lmdb has an LMDB of another version compiled in. Each keeps to its own, whichever is loaded first."""
    process = run_python(
        f"""
import {order[0]}, {order[1]}
import tokcask
root = {str(tmp_path)!r}
key = tokcask.CacheKey("a", "b", 8)
with lmdb.open(root + "/other") as other, tokcask.TokenizedCache.open(root + "/store") as cache:
    with other.begin(write=True) as transaction:
        transaction.put(b"a", b"1")
        cache.put(key, tokcask.CachedTokens([1, 2], [1, 1]))
        cache.flush()
    with other.begin() as transaction:
        print(transaction.get(b"a"), cache.get(key).input_ids.tolist(), cache.verify().ok)
"""
    )
    assert (process.stdout, process.stderr) == ("b'1' [1, 2] True\n", "")


def test_nothing_leaks() -> None:
    """nanobind reports at exit what was not released; also after errors and pickling."""
    process = run_python(
        """
import pickle, tempfile
import numpy
import tokcask
import tokcask._core
key = tokcask.CacheKey("a", "b", 8)
with tempfile.TemporaryDirectory() as root:
    with tokcask.TokenizedCache.open(root + "/store") as cache:
        cache.put_many([(key, tokcask.CachedTokens([1, 2], [0, 1]))])
        kept = [cache.get(key), cache.get_many([key]), cache.get(key).input_ids, cache.verify()]
        for bad in (lambda: cache.put(key, 3), lambda: cache.put(key, tokcask.CachedTokens([1.5])),
                    lambda: cache.get_many([key, 3]), lambda: tokcask.CacheKey("", "b", 1)):
            try:
                bad()
            except (TypeError, ValueError) as error:
                kept.append(error)
        kept.append(pickle.loads(pickle.dumps([key, cache.get(key)])))
        kept += [*cache.get(key).items(), cache.get(key).keys()]
        rows = tokcask._core.Rows([[cache.get(key), [3]], [{"input_ids": kept[2]}]])
        ids = numpy.zeros((2, 3), "q")
        rows.pad_groups(tokcask._core.Padding(), ids)
        kept += [ids, tokcask._core.pack(numpy.ones(3, "I"), 2)]
        for bad in (lambda: tokcask._core.Rows([[cache.get(key), [3.5]]]),
                    lambda: rows.pad_groups(tokcask._core.Padding(), kept[2])):
            try:
                bad()
            except (TypeError, ValueError) as error:
                kept.append(error)
        kept.append(pickle.loads(pickle.dumps(cache)))
        del rows  # NumPy gives nothing back once the interpreter is ending
"""
    )
    assert (process.returncode, process.stdout, process.stderr) == (0, "", "")
