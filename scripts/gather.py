"""Gather a study's finished units, and what its notebooks but the report have drawn, into a folder: what the report shows.

python scripts/gather.py params/demo.yaml artifacts/demo/gathered
"""

import argparse
import sys
from pathlib import Path

import publishing
from reidlib.study import open_study


def main(file: str, folder: str) -> int:
    study = open_study(file)
    there = Path(folder).resolve()
    own = (there / "results.csv").exists() or study.root.resolve() / "artifacts" in there.parents
    if there.is_dir() and any(there.iterdir()) and not own:
        print(f"{folder} holds other things, and would be emptied: name a folder of its own", file=sys.stderr)
        return 1
    try:
        publishing.assemble(study, there, publishing.notebooks(study)[:-1])
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", help="a params file")
    parser.add_argument("folder", help="where to; it is emptied first")
    args = parser.parse_args()
    sys.exit(main(args.study, args.folder))
