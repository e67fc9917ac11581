"""Trained networks that come with the project: whoever has no days to train evaluates them, and teaches by them, instead.

    trained/<study>/<label>.safetensors     what training has changed in a network, in half precision, and its record

Such a file takes the place of a training that asks for just what it was trained with: params, pictures, teachers and
everything else that decides a number, save the code. Code is left out on purpose: a network that took hours is not lost
with a line that changed since. The record names the commit, and what is made of the file is kept by the file's own hash.
"""

import dataclasses
import json
import sys
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from reidlib import processes
from reidlib.content import folder_name, plain, write_atomically
from reidlib.data.hashes import file_hashes
from reidlib.encoders import builder
from reidlib.making import untrained
from reidlib.units import Store, Unit


def file_of(unit: Unit, folder: Path) -> Path:
    """Where a trained network lies among those in `folder`."""
    return folder / f"{folder_name(unit.label)}.safetensors"


def ship(unit: Unit, store: Store, folder: Path) -> Path:
    """Write a network that has been trained here into `folder`. Raises ValueError where it isn't finished."""
    made, file = store.record(unit), file_of(unit, folder)
    if made is None:
        aside = f"take {file} away, which stands in for it, and " * file.exists()
        raise ValueError(f"'{unit.label}' is not trained here yet: {aside}run scripts/train.py first")
    with safe_open(store.make(unit) / "weights.safetensors", "pt") as weights:
        trained = {name: weights.get_tensor(name) for name in weights.keys()}  # noqa: SIM118, it is no dictionary
    before = untrained(unit, store)
    state = {n: x for n, x in trained.items() if n not in before or not torch.equal(x, before[n])}
    # vectors (biases, norms and their statistics) are few and some are tiny: they stay as they are
    state = {n: x.half() if x.is_floating_point() and x.ndim > 1 else x for n, x in state.items()}
    record = {
        "asked": unit.asked, "inputs": plain(unit.inputs), "unit": f"{unit.kind}/{unit.key}", "made": made["made"],
        "history": (store.folder(unit) / "history.csv").read_text(),
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(file, lambda path: save_file(state, path, metadata={"record": json.dumps(record, sort_keys=True)}))
    return file


def read_record(file: Path) -> dict:
    """What a shipped network was trained with and where, and its history. Raises ValueError where the file is none."""
    try:
        with safe_open(file, "pt") as opened:
            return json.loads(opened.metadata()["record"])
    except (KeyError, TypeError, OSError, ValueError, SafetensorError) as error:
        raise ValueError(f"{file} is no shipped network ({error}): take it away, or get it again") from error


def in_place_of(unit: Unit, folder: Path, hash_cache: Path) -> Unit:
    """The unit that takes the shipped network where there is one that fits, else `unit` itself; says why one doesn't fit."""
    file = file_of(unit, folder)
    if not file.exists():
        return unit
    record = read_record(file)
    if record["asked"] != unit.asked:
        why = unit.changed(record["inputs"]) or ["its data or its teachers were others"]
        print(
            f"'{unit.label}': {file.name} is not what is asked for ({'; '.join(why)}): it is trained anew", file=sys.stderr
        )
        return unit
    inputs = {**unit.inputs, "shipped": file_hashes([file], hash_cache)[0]}
    given = {**unit.given, "file": file}
    # how it was trained is left out of its key; how it is built is not, for that decides what it makes of a picture
    uses = (untrained, *[builder(unit.given["encoder"])] * ("encoder" in unit.given))
    return dataclasses.replace(unit, make=make_shipped, inputs=inputs, parents={}, given=given, uses=uses, stands_for=unit)


def make_shipped(unit: Unit, store: Store, folder: Path) -> None:
    """Weights and history as training would have left them, but for the rounding to half precision."""
    file = unit.given["file"]
    with safe_open(file, "pt") as opened:
        state = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    whole = untrained(unit.stands_for, store) | {n: x.float() if x.is_floating_point() else x for n, x in state.items()}
    if processes.first():
        (folder / "history.csv").write_text(read_record(file)["history"])
        write_atomically(folder / "weights.safetensors", lambda path: save_file(whole, path))
