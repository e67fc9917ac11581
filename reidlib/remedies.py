"""What to do where the machine and not the study is at fault: no space, no memory, a folder that can't be written."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError


@contextmanager
def explained(what: str, root: Path) -> Iterator[None]:
    """An error of the machine's, not of the study's, with the unit it struck and what to do."""
    try:
        yield
    except (OSError, MemoryError, RuntimeError, SafetensorError) as error:
        if remedy := remedy_of(error, root):
            raise RuntimeError(f"'{what}': {remedy}. What is finished is kept: run it again then") from error
        raise


def remedy_of(error: Exception, root: Path) -> str:
    """What to do where the machine and not the study is at fault; "" where it is none of that."""
    said, number, root = str(error), getattr(error, "errno", None), root.resolve()
    file = getattr(error, "filename", None)
    place = Path(os.fsdecode(file)).resolve() if file else root  # or weights, pictures, the folder of temporary files
    ours = place.is_relative_to(root)
    if number in (errno.ENOSPC, errno.EDQUOT) or "No space left" in said:
        room = f"{root}: make room there (make prune says what no study needs)" if ours else f"{place}: make room there"
        return f"no space left for {room}"
    if number in (errno.EROFS, errno.EACCES, errno.EPERM):
        here = f"{root} can't be written ({said}): make it writable, or work in a copy of the project"
        return here if ours else f"{place} can't be read or written ({said}): change its permissions"
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in said:
        return ("no memory for it: close what else takes memory, make fewer notebooks at once (make study CORES=1), "
                "or lower its recipe's p and k")  # fmt: skip
    return ""
