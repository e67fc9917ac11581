"""Keep trained networks over a change of code that you know changes none of their numbers: see reidlib.adopting.

python scripts/adopt.py params/market1501.yaml expert:vit_s --dataset market1501 --seed 0 --why "refuses float pictures now"

First train an epoch of it by the new code (scripts/train.py with the same words) and stop: its losses must be the old ones.
"""

import argparse
import sys

from reidlib.adopting import adopt
from reidlib.study import open_study


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", help="a params file")
    parser.add_argument("method", help="such as expert:clip, student+kd:moe")
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--why", required=True, help="what has changed in the code, and why it changes no number")
    args = parser.parse_args()
    study = open_study(args.study)
    try:
        epochs = adopt(study.store, study.plan.network(args.method, args.dataset, args.seed), args.why)
    except ValueError as error:
        print(f"adopt: {error}", file=sys.stderr)
        return 1
    print(f"adopted: the first {epochs} epoch{'s' * (epochs > 1)} had the losses of before to the last digit")
    return 0


if __name__ == "__main__":
    sys.exit(main())
