"""What figures depend on: the machine, and what of a file is in the page cache."""

from __future__ import annotations

import ctypes
import datetime
import mmap
import os
import pathlib
import platform
import subprocess
from typing import Any

import numpy as np


def machine(directory: pathlib.Path) -> dict[str, Any]:
    cpu = platform.processor() or platform.machine()
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu = line.partition(":")[2].strip()
            break
    try:
        system = platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    except OSError:
        system = platform.system()
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "system": system,
        "kernel": platform.release(),
        "file_system": file_system(directory),
        "python": platform.python_version(),
        "load_before": round(os.getloadavg()[0], 2),
        "date": datetime.date.today().isoformat(),
    }


def file_system(directory: pathlib.Path) -> str:
    done = subprocess.run(
        ["stat", "-f", "-c", "%T", directory], capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    return done.stdout.strip() or "unknown"


def files_below(path: pathlib.Path) -> list[pathlib.Path]:
    if path.is_file():
        return [path]
    return [file for file in path.rglob("*") if file.is_file() and not file.is_symlink()]


def drop_from_page_cache(path: pathlib.Path) -> float:
    """By posix_fadvise(DONTNEED) for each file, after it is on disk: needs no root and leaves others' files
    alone. Files that somebody has mapped stay. Returns the share of the largest file that did."""
    files = files_below(path)
    for file in files:
        fd = os.open(file, os.O_RDONLY)
        try:
            os.fdatasync(fd)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(fd)
    return resident(max(files, key=lambda file: file.stat().st_size))


def read_in_order(path: pathlib.Path) -> None:
    """Leaves the files in the page cache as reading them from begin to end does. In how large pieces they lie
    there depends on how they came there, and with it what mapping them costs: several times as much after
    writes or reads in random order. So that is made the same for all."""
    drop_from_page_cache(path)
    for file in files_below(path):
        with file.open("rb", buffering=0) as bytes_of_file:
            while bytes_of_file.read(1 << 20):
                pass


def resident(file: pathlib.Path) -> float:
    """The share of a file's pages that are in the page cache, as mincore(2) tells."""
    size = file.stat().st_size
    if size == 0:
        return 0.0
    pages = (size + mmap.PAGESIZE - 1) // mmap.PAGESIZE
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    fd = os.open(file, os.O_RDONLY)
    address = libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, fd, 0)
    os.close(fd)
    states = np.zeros(pages, dtype=np.uint8)
    libc.mincore(address, size, states.ctypes.data)
    libc.munmap(address, size)
    return float((states & 1).mean())


def bytes_on_disk(path: pathlib.Path) -> int:
    """Blocks that the files below `path` occupy, as du tells."""
    return sum(file.stat().st_blocks * 512 for file in files_below(path))
