"""Gather what a study's notebooks kept into results/<study>/: results.csv, evaluations.safetensors, provenance.json.

python scripts/gather.py params/demo.yaml
"""

import sys

from reidlib import results
from reidlib.study import open_study


def main(file: str) -> None:
    study = open_study(file)
    rows = results.gather(study)
    print(f"{study.name}: {len(rows)} results of {rows['method'].nunique()} methods in {study.results / 'results.csv'}")


if __name__ == "__main__":
    main(sys.argv[1])
