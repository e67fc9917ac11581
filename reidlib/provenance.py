"""Where something was made: commit, packages, device. No names of users, hosts or folders."""

import platform
import re
import subprocess
import time
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from reidlib.sources import PROJECT

PACKAGES = ("torch", "torchvision", "timm", "transformers", "open_clip_torch", "accelerate", "numpy", "numba")


def origin() -> dict:
    """Where this process makes what it makes, in words and numbers that JSON holds.

    commit, uncommitted changes: of the code when it was read, not when what it made was finished, perhaps days later. device:
    the GPU once this process has used one, else the CPU.
    """
    import torch  # here, as below: who only asks for `code` has not to wait for it

    return {**code(), "device": device_name(torch.cuda.is_initialized()), "threads": torch.get_num_threads()}


@cache
def code() -> dict:
    """The commit and the packages, of `origin`."""
    packages = {name: version(name) for name in PACKAGES}
    with suppress(PackageNotFoundError):
        packages["openvino"] = version("openvino")  # that peers run in
    return {**AT_START, "python": platform.python_version(), "packages": packages}


def now() -> str:
    """The time, as it is kept."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def git_state(root: Path) -> dict:
    """The commit checked out in `root`, and whether files differ from it; both None where there is no repository.

    results/ does not count: it changes with every run. A repository around `root`, of which it is no root, is another's.
    """
    top = _git(root, "rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != Path(root).resolve():
        return {"commit": None, "uncommitted changes": None}
    changes = _git(root, "status", "--porcelain", "--", ".", ":(exclude)results")
    uncommitted = None if changes is None else bool(changes)
    return {"commit": _git(root, "rev-parse", "HEAD"), "uncommitted changes": uncommitted}


def _git(root: Path, *arguments: str) -> str | None:
    """What git says; None where there is no git or no repository."""
    try:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True)
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


AT_START = git_state(PROJECT)  # this module is imported by whatever runs the project's code


@cache
def device_name(gpu: bool = False) -> str:
    """The GPU or the CPU, e.g. "Intel Xeon Platinum 8488C"."""
    if gpu:
        import torch

        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}"
    cpuinfo = Path("/proc/cpuinfo")
    named = re.search(r"model name\s*:\s*(.+)", cpuinfo.read_text()) if cpuinfo.exists() else None
    cpu = re.sub(r"\((R|TM)\)|CPU|@.*", "", named[1]) if named else platform.processor() or platform.machine()
    return " ".join(cpu.split())
