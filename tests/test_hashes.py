"""Hashes of files: right, found again only where nothing changed, and right with any cache or none."""

import hashlib
import os
import sqlite3
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from reidlib.data import DataError, file_hashes
from reidlib.data import hashes as hashes_module

OLD = time.time() - 3600


@pytest.fixture
def paths(tmp_path):
    made = [tmp_path / "files" / f"{i}.jpg" for i in range(200)]
    made[0].parent.mkdir()
    for i, path in enumerate(made):
        path.write_bytes(f"picture {i:03d}".encode())
        os.utime(path, (OLD, OLD))
    return made


@pytest.fixture
def read(monkeypatch):
    """The names of the files whose bytes are read."""
    names, sha256 = [], hashes_module._sha256
    monkeypatch.setattr(hashes_module, "_sha256", lambda path: names.append(os.path.basename(path)) or sha256(path))
    return names


def expected(paths) -> list[str]:
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]


def test_hashes_are_those_of_the_bytes_in_order(paths, tmp_path):
    paths[3].write_bytes(os.urandom(3_000_000))
    asked = [paths[5], *reversed(paths), paths[5]]
    assert file_hashes(asked) == file_hashes(map(str, asked), tmp_path / "cache.sqlite") == expected(asked)


def test_a_second_look_reads_nothing(paths, tmp_path, read):
    cache = tmp_path / "new" / "cache.sqlite"
    first = file_hashes(paths, cache)
    assert len(read) == 200
    assert file_hashes(paths[::-1], cache) == first[::-1] and len(read) == 200
    file_hashes(paths)
    assert len(read) == 400


def test_changed_bytes_are_seen_at_equal_size(paths, tmp_path, read):
    """In place, in place with the time set back, by another file of that time under the name."""
    cache = tmp_path / "cache.sqlite"
    file_hashes(paths, cache)
    read.clear()
    paths[0].write_bytes(b"picture abc")
    paths[1].write_bytes(b"picture abc")
    os.utime(paths[1], (OLD, OLD))
    (tmp_path / "other").write_bytes(b"picture abc")
    os.utime(tmp_path / "other", (OLD, OLD))
    (tmp_path / "other").replace(paths[2])
    assert file_hashes(paths, cache) == expected(paths) and sorted(read) == ["0.jpg", "1.jpg", "2.jpg"]


def test_a_file_just_written_is_read_again(paths, tmp_path, read):
    """Written once more in the same tick of the file system's clock, it would look the same."""
    paths[0].write_bytes(b"picture new")
    for _ in range(2):
        assert file_hashes(paths[:2], tmp_path / "cache.sqlite") == expected(paths[:2])
    assert read == ["0.jpg", "1.jpg", "0.jpg"]


def test_files_that_cannot_be_read_are_named(paths, tmp_path):
    absent = [tmp_path / f"absent{i}.jpg" for i in range(6)]
    with pytest.raises(
        DataError, match=r"7 of 207 files can't be read; fetch them again: .*absent0.jpg.*absent4.jpg'?, \.\.\.$"
    ):
        file_hashes([*paths, *absent, tmp_path], tmp_path / "cache.sqlite")
    with pytest.raises(DataError, match="1 of 2 files can't be read; fetch them again: .*files"):
        file_hashes([paths[0], tmp_path / "files"])


def test_a_corrupt_cache_is_done_without(paths, tmp_path):
    cache = tmp_path / "cache.sqlite"
    cache.write_bytes(b"no database" * 100)
    with pytest.warns(UserWarning, match="cache.sqlite can't be used .*not a database.*delete it") as warned:
        assert file_hashes(paths, cache) == expected(paths)
    assert len(warned) == 1 and warned[0].filename == __file__
    (tmp_path / "folder").mkdir()
    with pytest.warns(UserWarning, match="folder can't be used"):
        assert file_hashes(paths, tmp_path / "folder") == expected(paths)


def test_a_locked_cache_is_done_without(paths, tmp_path, monkeypatch):
    monkeypatch.setattr(hashes_module, "WAIT", 0.1)
    cache = tmp_path / "cache.sqlite"
    file_hashes(paths[:5], cache)
    other = sqlite3.connect(cache, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.warns(UserWarning, match="cache.sqlite can't be used .*locked"):
        assert file_hashes(paths, cache) == expected(paths)
    other.rollback()
    other.execute("BEGIN IMMEDIATE")  # it may be read, not written
    with pytest.warns(UserWarning, match="cache.sqlite can't be used .*locked"):
        assert file_hashes(paths, cache) == expected(paths)
    other.close()


def test_processes_share_a_cache(paths, tmp_path, read):
    cache = tmp_path / "cache.sqlite"
    with ProcessPoolExecutor(4, mp_context=get_context("spawn")) as pool:
        jobs = [pool.submit(_hash_strictly, paths[i::5], cache) for i in range(5) for _ in range(4)]
        results = [job.result() for job in jobs]
    assert results == [expected(paths[i::5]) for i in range(5) for _ in range(4)]
    assert file_hashes(paths, cache) == expected(paths) and not read


def _hash_strictly(paths, cache) -> list[str]:
    warnings.simplefilter("error")
    return file_hashes(paths, cache)
