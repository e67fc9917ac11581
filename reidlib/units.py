"""Units of work: what is made once, kept, found again, resumed, and made anew when anything it depends on changes.

A unit says what it depends on: its inputs (params, seeds, hashes of data), its parents, and the code of the function that
makes it (reidlib.sources). Its key is a hash of all that and nothing else, known before anything is built or loaded.

    artifacts/units/<kind>/<key>/     what is kept of it: unit.json, last, when it is whole, with the sha256 of the other
                                      files; checkpoint.pt while half done
    artifacts/<study>/units/<label>   a link to the unit that a study has by this name: what was there before a change

The store of units is one for all studies: two that ask for the same thing share it. Not in a key, but kept beside it as
where it was made: the machine, the packages' versions, and the number of processes.
"""

import json
import os
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from safetensors.numpy import load_file, save_file

from reidlib import processes, sources
from reidlib.content import differences, digest, folder_name, plain, write_atomically
from reidlib.data.hashes import file_hashes
from reidlib.progress import tracked
from reidlib.provenance import now, origin
from reidlib.remedies import explained

FINISHED, HALF_DONE, MISSING, STALE = "finished", "half done", "missing", "stale"
CODE = "code has changed"


@dataclass(frozen=True, eq=False)
class Unit:
    """Something to be made, and all it depends on.

    Attributes:
        kind: its folder's name, such as "embedder", "embeddings".
        label: its name within a study, such as "expert:clip vehicles seed 0".
        make: make(unit, store, folder) -> arrays to keep, or None where it has written its own files into `folder`.
        inputs: by name, what numbers depend on: JSON-like values and pydantic models, which count by their content.
        parents: units that `make` takes from the store.
        given: what `make` needs besides and numbers don't depend on, or are told of in `inputs`: arrays, paths, a device.
        uses: functions or classes that `make` takes from a table by name.
        kept: False: its arrays are cheap, made when they are asked for, and never written.
        place: the part of the params file that `inputs` come from, for messages; keys: by input, where one is from elsewhere.
        stands_for: the unit that would be made, were what it makes not at hand already.
    """

    kind: str
    label: str
    make: Callable
    inputs: Mapping[str, Any] = field(default_factory=dict)
    parents: Mapping[str, "Unit"] = field(default_factory=dict, repr=False)
    given: Mapping[str, Any] = field(default_factory=dict, repr=False)  # as long as a data set
    uses: tuple = ()
    kept: bool = True
    place: str = ""
    keys: Mapping[str, str] = field(default_factory=dict)
    stands_for: "Unit | None" = None

    @cached_property
    def asked(self) -> str:
        """A hash of what is asked for: all that the key is made of but code, which says how it is made."""
        if self.stands_for:
            return self.stands_for.asked
        return digest([self.kind, plain(self.inputs), [parent.asked for parent in self.parents.values()]])

    @cached_property
    def dependencies(self) -> dict:
        """Everything the key is made of, as JSON has it: inputs, parents (kind and key), code (by definition)."""
        parents = {name: f"{parent.kind}/{parent.key}" for name, parent in self.parents.items()}
        return {"inputs": plain(self.inputs), "parents": parents, "code": sources.reached(self.make, *self.uses)}

    @cached_property
    def key(self) -> str:
        code = sorted(set(self.dependencies["code"].values()))  # by content: a definition that only moved is the same
        parents = list(self.dependencies["parents"].values())  # in their order, which counts; what they are called doesn't
        return digest([self.kind, self.dependencies["inputs"], parents, code])

    def changed(self, before: Mapping[str, Any]) -> list[str]:
        """How earlier inputs differ from this unit's, by keys of the params file."""
        keys = {"precision": "precision", "threads": "threads", **self.keys}
        named = lambda inputs: {keys.get(n, f"{self.place}.{n}" if self.place else n): v for n, v in inputs.items()}  # noqa: E731
        return differences(named(before), named(plain(self.inputs)))


@dataclass(frozen=True)
class Store:
    """The units below `root` (artifacts/), as one study asks for them. threads: that CPU work is done with; tracker: who is
    given each training's curves, see `progress.tracked`."""

    root: Path
    study: str = "study"
    threads: int = 1
    tracker: str | None = None

    def folder(self, unit: Unit) -> Path:
        return self.root / "units" / unit.kind / unit.key

    def record(self, unit: Unit) -> dict | None:
        """unit.json of a finished unit: what it depends on, when and where it was made; None where it isn't finished."""
        return _record(self.folder(unit))

    def make(self, unit: Unit) -> Path:
        """The unit's folder, after it was found finished, carried on or made.

        Two processes that ask at once make it once; processes that were launched together make it together, and the
        first of them writes.
        """
        folder = self.folder(unit)
        if self._damage(folder) != []:
            for parent in unit.parents.values():
                self._prepare(parent)
            folder.mkdir(parents=True, exist_ok=True)
            with processes.holding(self._alone(unit, folder)), self.limited():
                damage = self._damage(folder)
                processes.wait()  # for all to have looked before one of them writes
                if damage != []:
                    self._clear(unit, folder, damage or [])
                    with explained(unit.label, self.root):
                        self._make(unit, folder)
        self._link(unit)
        return folder

    def arrays(self, unit: Unit) -> dict[str, np.ndarray]:
        """The unit's arrays by name, made first if need be."""
        if unit.kept:
            return load_file(self.make(unit) / "arrays.safetensors")
        self._prepare(unit)
        with self.limited():
            return unit.make(unit, self, None)

    def state(self, unit: Unit) -> tuple[str, str]:
        """finished, half done, stale or missing, and why: nothing is built or loaded to know it."""
        folder = self.folder(unit)
        if self.record(unit):
            return FINISHED, ""
        before = _record(self.before(unit))
        why = "; ".join(self.differences(before, unit)[:3]) if before else ""
        if any(folder.glob("checkpoint*")):
            return HALF_DONE, why
        return (STALE, why) if before else (MISSING, "")

    @contextmanager
    def limited(self) -> Iterator[None]:
        """Torch and numba with the study's number of threads, whatever the machine has: the number rounds sums."""
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)

    def _damage(self, folder: Path) -> list[str] | None:
        """The files of a finished unit that aren't as they were written; None where there is no finished unit."""
        record = _record(folder)
        if record is None:
            return None
        files = {folder / name: written for name, written in record.get("files", {}).items()}  # none: by earlier code
        gone = [file.name for file in files if not file.is_file()]
        if gone:
            return gone
        hashes = file_hashes([*files], self.root / "hashes.sqlite")
        return [file.name for file, found in zip(files, hashes) if found != files[file]]

    def _clear(self, unit: Unit, folder: Path, damaged: list[str]) -> None:
        """Take out of the way what is damaged, and what was being written when a process was killed."""
        if not processes.first():
            return
        for partial in folder.glob("*.partial"):
            partial.unlink()
        if damaged:
            names, aside = ", ".join(damaged), folder / "damaged"
            print(f"'{unit.label}': {names} in {folder} is not what was written there: set aside in {aside.name}/, made again",
                  file=sys.stderr)  # fmt: skip
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir()
            for name in [*damaged, "unit.json"]:
                if (folder / name).exists():
                    (folder / name).rename(aside / name)

    @contextmanager
    def _alone(self, unit: Unit, folder: Path) -> Iterator[None]:
        """Hold the unit against other processes; where another has it, say which and wait. The lock ends with its process."""
        lock, holder = FileLock(folder / "lock"), folder / "holder"
        try:
            lock.acquire(timeout=0)
        except Timeout:
            by = holder.read_text() if holder.exists() else "another process"
            print(f"'{unit.label}' is being made by {by}: waiting for it. To make it here, stop that one.", file=sys.stderr)
            lock.acquire()
        try:
            write_atomically(holder, lambda path: path.write_text(f"process {os.getpid()} on {socket.gethostname()}"))
            yield
        finally:
            holder.unlink(missing_ok=True)
            lock.release()

    def _prepare(self, unit: Unit) -> None:
        if unit.kept:
            self.make(unit)
        else:
            for parent in unit.parents.values():
                self._prepare(parent)

    def _make(self, unit: Unit, folder: Path) -> None:
        sources.refuse_edited(unit.dependencies["code"])
        start, resumed = time.perf_counter(), any(folder.glob("checkpoint*"))
        tracking = tracked(self.tracker if processes.first() else None, self.root / self.study / "tracked", unit.label)
        with (
            tracking,
            torch.inference_mode(False),
            torch.enable_grad(),
        ):  # whoever asks may need no gradients, training does
            arrays = unit.make(unit, self, folder)
        if processes.first():
            if arrays is not None:
                arrays = {name: np.ascontiguousarray(values) for name, values in arrays.items()}
                write_atomically(folder / "arrays.safetensors", lambda path: save_file(arrays, str(path)))
            made = {
                "seconds": round(time.perf_counter() - start, 2), "finished": now(),
                "resumed": resumed, "processes": processes.count(), "environment": origin(),
            }  # fmt: skip
            self.finish(unit, made)
        processes.wait()

    def finish(self, unit: Unit, made: dict) -> None:
        """Declare a unit whole, whose files are in its folder. made: when, where and how it was."""
        folder = self.folder(unit)
        unkept = {f"{p.kind}/{p.key}": {"dependencies": p.dependencies} for p in unit.parents.values() if not p.kept}
        names = sorted(file.name for file in folder.iterdir() if file.suffix in (".npy", ".safetensors", ".csv"))
        files = dict(zip(names, file_hashes([folder / name for name in names], self.root / "hashes.sqlite")))
        record = {"label": unit.label, "dependencies": unit.dependencies, "unkept": unkept, "made": made, "files": files}
        write_atomically(folder / "unit.json", lambda path: path.write_text(json.dumps(record, indent=1)))
        for checkpoint in folder.glob("checkpoint*"):
            checkpoint.unlink()

    def before(self, unit: Unit) -> Path:
        """The link to the unit that the study last had by this name."""
        return self.root / self.study / "units" / folder_name(unit.label)

    def _link(self, unit: Unit) -> None:
        """Links to a finished unit and to all it is made from, which another may have made: none is that one's alone."""
        if unit.kept:
            link = self.before(unit)
            target = os.path.relpath(self.folder(unit), link.parent)
            if not processes.first() or (link.is_symlink() and os.readlink(link) == target):
                return
            if (self.folder(unit) / "unit.json").exists():
                link.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(link, lambda path: path.symlink_to(target))
        for parent in unit.parents.values():
            self._link(parent)

    def differences(self, record: dict, unit: Unit) -> list[str]:
        """What a unit depended on by its record and does no longer, in words, the deepest cause first."""
        before, now = record["dependencies"], unit.dependencies
        found = unit.changed(before["inputs"])
        for name, parent in unit.parents.items():
            earlier = before["parents"].get(name)
            if earlier != now["parents"][name]:
                known = earlier and (_record(self.root / "units" / earlier) or record.get("unkept", {}).get(earlier))
                found += self.differences(known, parent) if known else [f"another {name}"]
        if not found:
            code = set(before["code"].items()) ^ set(now["code"].items())
            found = [f"{CODE}: {', '.join(sorted({name for name, _ in code}))}"]
        return list(dict.fromkeys(found))


def _record(folder: Path) -> dict | None:
    try:
        return json.loads((folder / "unit.json").read_text())
    except (FileNotFoundError, ValueError):  # ValueError: damaged, and as good as none
        return None
