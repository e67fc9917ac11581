"""What of a study is finished, half done, missing or stale, and why: nothing is loaded or made to know it.

python scripts/status.py params/demo.yaml
"""

import sys

from reidlib.data import DataError
from reidlib.params import ParamsError
from reidlib.study import open_study
from reidlib.units import FINISHED

MANY = ("embeddings", "evaluation")  # kinds of which the finished ones are counted, not listed


def main(file: str) -> int:
    try:
        study = open_study(file)
        units = study.state()
    except (DataError, ParamsError, RuntimeError) as error:  # weights and plugins among the latter
        print(f"{file}: {error}", file=sys.stderr)
        return 1
    for unit in units.itertuples():
        if unit.kind not in MANY or unit.state != FINISHED:
            print(f"{unit.state:10} {unit.unit}" + f"  ({unit.why})" * bool(unit.why))
    for kind in MANY:
        done = units[(units["kind"] == kind) & (units["state"] == FINISHED)]
        print(f"{FINISHED:10} {len(done)} of {(units['kind'] == kind).sum()} units of the kind {kind}")
    counts = units["state"].value_counts()
    print(f"{study.name}: {', '.join(f'{count} {state}' for state, count in counts.items())}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
