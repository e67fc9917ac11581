"""Hashes of files' bytes, kept so that a second look need not read them."""

import hashlib
import os
import sqlite3
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

from reidlib.data.dataset import DataError, first_five

THREADS = 8  # more than cores, for they mostly wait for the disk
WAIT = 10  # seconds for another process to let go of the cache
RECENT = 2 * 10**9  # nanoseconds: changed again so soon, a file may have the same time (file systems count in steps)
TABLE = "CREATE TABLE IF NOT EXISTS files (path BLOB PRIMARY KEY, state TEXT, sha256 TEXT) WITHOUT ROWID"


def file_hashes(paths: Sequence[str | Path], cache: str | Path | None = None) -> list[str]:
    """SHA-256 of each file's bytes, 64 hex digits, in the order of `paths`.

    `cache` is an SQLite file, made if need be: a file that has the path, size, times and inode that it had when it was
    hashed is not read again. Processes may share it; where it is corrupt, locked or can't be written, everything is
    hashed and a warning says so. Raises DataError, naming the first five, where files can't be read.
    """
    paths = [os.path.abspath(path) for path in paths]
    states, failures = {}, []
    for path in dict.fromkeys(paths):
        try:
            states[path] = os.stat(path)
        except OSError as error:
            failures.append(str(error))
    cached = _in_cache(cache, lambda database: _look_up(database, states)) if cache is not None else None
    known = dict(cached or {})
    started = time.time_ns()
    with ThreadPoolExecutor(THREADS) as pool:
        unknown = {path: pool.submit(_sha256, path) for path in states if path not in known}
        for path, hashed in unknown.items():
            try:
                known[path] = hashed.result()
            except OSError as error:
                failures.append(str(error))
    if failures:
        raise DataError(f"{len(failures)} of {len(paths)} files can't be read; fetch them again: {first_five(failures)}")
    settled = [path for path in unknown if states[path].st_mtime_ns < started - RECENT]
    if cached is not None and settled:
        rows = [(os.fsencode(path), _text(states[path]), known[path]) for path in settled]
        _in_cache(cache, lambda database: database.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?)", rows))
    return [known[path] for path in paths]


def _sha256(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:  # hashlib.file_digest takes twice as long over small files
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def _text(state: os.stat_result) -> str:
    """What changes when a file does: size, time of its bytes, inode, and time of the inode, which no tool sets back."""
    return f"{state.st_size} {state.st_mtime_ns} {state.st_ino} {state.st_ctime_ns}"


def _look_up(database: sqlite3.Connection, states: dict[str, os.stat_result]) -> dict[str, str]:
    """The hashes in the cache of the files that are as they were."""
    found = {}
    for path, state in states.items():
        row = database.execute("SELECT state, sha256 FROM files WHERE path = ?", (os.fsencode(path),)).fetchone()
        if row and row[0] == _text(state):
            found[path] = row[1]
    return found


def _in_cache(cache: str | Path, work: Callable[[sqlite3.Connection], Any]) -> Any:
    """work(the open cache) in a transaction; None and a warning where the cache can't be used."""
    try:
        Path(cache).parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(cache, timeout=WAIT)) as database, database:
            database.execute(TABLE)
            return work(database)
    except (sqlite3.Error, OSError) as error:
        text = f"The cache of hashes {cache} can't be used ({error}), so files are hashed anew; if it stays so, delete it"
        warnings.warn(text, stacklevel=3)
        return None
