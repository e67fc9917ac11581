"""Keep a trained network over a change of code that changes none of its numbers: on a proof, and said so.

A key holds the code that a training reaches, whatever a change in it does: an error for pictures of a wrong type re-keys a
network that trained for hours. Whoever is sure that a change is of that sort trains an epoch under the new code. Where its
losses are the old ones to the last digit, the network is adopted under its new key, and its record says from which key,
what has changed, why that is no matter, and how many epochs proved it.
"""

import json
import shutil

import pandas as pd
from filelock import FileLock, Timeout
from safetensors.torch import load_file, save_file

from reidlib.content import write_atomically
from reidlib.progress import load_checkpoint
from reidlib.units import CODE, HALF_DONE, Store, Unit


def adopt(store: Store, unit: Unit, why: str) -> int:
    """Finish `unit` with the weights that the study had of it before code changed; returns the epochs that proved it.

    Raises ValueError where there is nothing to adopt, more than code has changed, no epoch was trained under the new code,
    or its losses are others.
    """
    folder, before = store.folder(unit), store.before(unit).resolve()
    state, _ = store.state(unit)
    if state != HALF_DONE:
        raise ValueError(f"'{unit.label}' is {state}: train an epoch of it under the new code and stop, then adopt")
    if not (before / "unit.json").exists():
        raise ValueError(f"'{unit.label}': this study has no finished one of before, so go on training")
    record = json.loads((before / "unit.json").read_text())
    changed = store.differences(record, unit)
    if others := [words for words in changed if not words.startswith(CODE)]:
        raise ValueError(f"'{unit.label}' differs in more than code, so go on training: {'; '.join(others)}")
    try:
        with FileLock(folder / "lock", timeout=0):
            checkpoint = load_checkpoint(folder)
            proof = pd.DataFrame(checkpoint["history"])
            lines = proof.to_csv(index=False).splitlines()  # as text, to the last digit
            for old, new in zip((before / "history.csv").read_text().splitlines(), lines):
                if old != new:
                    raise ValueError(f"'{unit.label}': the change counts, so go on training: {old} is now {new}")
            weights = load_file(before / "weights.safetensors")
            added = {name: value for name, value in checkpoint["model"].items() if name not in weights}
            weights |= {name: value.contiguous() for name, value in added.items()}  # such as a constant that is kept now
            write_atomically(folder / "weights.safetensors", lambda path: save_file(weights, path))
            write_atomically(folder / "history.csv", lambda path: shutil.copyfile(before / "history.csv", path))
            adopted = {
                "from": f"{unit.kind}/{before.name}", "changed": changed, "why": why, "epochs": len(proof),
                "added": sorted(added),
            }  # fmt: skip
            store.finish(unit, record["made"] | {"adopted": [*record["made"].get("adopted", []), adopted]})
    except Timeout:
        raise ValueError(f"'{unit.label}' is being trained: stop that first") from None
    return len(proof)
