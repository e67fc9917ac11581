"""Gather a study's finished units, and what its notebooks but the report have drawn, into a folder: what the report shows.

python scripts/gather.py params/demo.yaml artifacts/demo/gathered
"""

import sys
from pathlib import Path

import publishing
from reidlib.study import open_study


def main(file: str, folder: str) -> int:
    study = open_study(file)
    try:
        publishing.assemble(study, Path(folder), publishing.notebooks(study)[:-1])
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
