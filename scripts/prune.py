"""Free the disk of units of work that no params file asks for: old recipes', old code's, those of settings that were tried.

    python scripts/prune.py           only says which, and how much they take
    python scripts/prune.py --yes     removes them

What a params file needs is known where its data and weights are here; of one that can't be opened, all that it has made stays.
"""

import argparse
import shutil
import sys
from collections import Counter
from pathlib import Path

from filelock import FileLock, Timeout

from reidlib.data import DataError
from reidlib.params import ParamsError
from reidlib.sources import PROJECT
from reidlib.study import open_study


def main(*options: str) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--yes", action="store_true", help="remove them, not only say which")
    args = parser.parse_args(options)
    artifacts = PROJECT / "artifacts"
    needed = {folder for file in sorted((PROJECT / "params").glob("*.yaml")) for folder in needs(file, artifacts)}
    unneeded = [folder for folder in sorted((artifacts / "units").glob("*/*")) if folder.resolve() not in needed]
    sizes, counts = Counter(), Counter()
    for folder in unneeded:
        counts[folder.parent.name] += 1
        sizes[folder.parent.name] += size(folder)
    for kind, bytes_ in sizes.most_common():
        print(f"{counts[kind]:6} units of the kind {kind:12} {bytes_ / 2**20:10,.1f} MB")
    print(f"{len(unneeded)} units are in no study, {sum(sizes.values()) / 2**20:,.1f} MB; {len(needed)} are needed")
    if not args.yes:
        print("Nothing was removed: make prune YES=1 removes them" if unneeded else "Nothing to remove")
        return 0
    for folder in unneeded:
        try:
            with FileLock(folder / "lock", timeout=0):
                shutil.rmtree(folder)
        except Timeout:
            print(f"{folder} is being made right now: left", file=sys.stderr)
    for link in artifacts.glob("*/units/*"):
        if link.is_symlink() and not link.exists():
            link.unlink()
    print("removed")
    return 0


def needs(file: Path, artifacts: Path) -> set[Path]:
    """The folders of all units that a study may ask for, those to be trained where shipped networks take their place too."""
    try:
        study = open_study(file)
        units = list(study.plan.units().values())
    except (DataError, ParamsError, RuntimeError) as error:  # weights and plugins among the latter
        kept = {link.resolve() for link in (artifacts / file.stem / "units").glob("*")}
        print(f"{file.name} can't be opened, so all {len(kept)} units that it has made stay: {str(error).splitlines()[0]}")
        return kept
    units += [unit.stands_for for unit in units if unit.stands_for]
    return {study.store.folder(unit).resolve() for unit in units}


def size(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(file.lstat().st_size for file in folder.rglob("*"))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
