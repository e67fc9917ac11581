"""Content: its hash, how two differ, and files that are whole or not there."""

import hashlib
import json
import os
import re
from collections.abc import Callable
from pathlib import Path

from pydantic import BaseModel


def digest(content) -> str:
    """Short hash (12 hex digits) of JSON-like content; pydantic models count by their content."""
    return hashlib.sha256(json.dumps(plain(content), sort_keys=True).encode()).hexdigest()[:12]


def plain(content):
    """JSON-like content with pydantic models and paths as JSON has them."""
    return json.loads(
        json.dumps(content, default=lambda x: x.model_dump(mode="json") if isinstance(x, BaseModel) else str(x))
    )


def folder_name(label: str) -> str:
    """A unit's label as a name of a file or folder."""
    return re.sub("[:/ ]", "-", label)


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """write(file) a file under another name first, so that one named `path` is always whole, whoever writes it too.

    Who may read its folder may read it, whatever the writer thinks: safetensors makes files that are their owner's alone.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        write(partial)
        if not partial.is_symlink():
            partial.chmod(path.parent.stat().st_mode & 0o666)
            _sync(partial)  # or a machine that loses its power may keep the new name and lose the bytes
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    _sync(path.parent)


def _sync(path: Path) -> None:
    """Wait until a file's bytes, or a folder's names, are on the disk."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def differences(before: dict, now: dict, within: str = "") -> list[str]:
    """How two trees of params differ, key by key: both of `model_dump`.

    >>> differences({"student": {"lr": 0.001}}, {"student": {"lr": 0.002}})
    ['student.lr was 0.001, is 0.002']
    """
    found = []
    for key in {**before, **now}:
        name = f"{within}{key}"
        if key not in now or key not in before:
            found.append(f"{name} {'is new' if key in now else 'is gone'}")
        elif isinstance(before[key], dict) and isinstance(now[key], dict):
            found += differences(before[key], now[key], f"{name}.")
        elif before[key] != now[key]:
            found.append(f"{name} was {json.dumps(before[key])}, is {json.dumps(now[key])}")
    return found


def output_folder(root: Path, study: str) -> Path:
    """Where a notebook writes what it shows: see `Study.output`."""
    return Path(os.environ.get("REIDLIB_OUTPUT") or root / "artifacts" / study / "explored")
