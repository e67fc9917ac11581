"""Put a network that was trained here among those that come with the project: the folder that a study's `shipped` names.

python scripts/ship.py params/market1501.yaml expert:vit_s --dataset market1501 --seed 0

From then on the study takes it from there, here too, so that everybody's numbers are of the same, rounded weights.
"""

import argparse
import sys

from reidlib.shipped import ship
from reidlib.study import open_study


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", help="a params file that names a folder with `shipped`")
    parser.add_argument("method", help="such as expert:clip, student+kd:moe")
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--seed", type=int, required=True)
    args = parser.parse_args()
    study = open_study(args.study)
    try:
        if study.params.shipped is None:
            raise ValueError(f"{args.study} has no `shipped`: name a folder there, such as trained/{study.name}")
        unit = study.plan.training(args.method, args.dataset, args.seed)
        if unit is None:
            raise ValueError(f"nothing is trained for {args.method}")
        file = ship(unit, study.store, study.root / study.params.shipped)
    except ValueError as error:
        print(f"ship: {error}", file=sys.stderr)
        return 1
    print(f"{file}: {file.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
