"""Gather a study's finished units into a folder: results.csv, evaluations.safetensors, params.yaml, provenance.json.

python scripts/gather.py params/demo.yaml artifacts/demo/gathered
"""

import sys
from pathlib import Path

from reidlib import params, results
from reidlib.gathering import gather
from reidlib.study import open_study


def main(file: str, folder: str) -> int:
    try:
        found = gather(open_study(file))
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    results.write(found, Path(folder), params.find(file))
    print(f"{found.study}: {len(found.rows)} results of {found.rows['method'].nunique()} methods gathered")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
