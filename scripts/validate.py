"""Try a setting on held-out *training* identities: how hyper-parameters are chosen without a look at the test set.

python scripts/validate.py params/demo.yaml vehicles student student+kd:moe --set distillation.temperature=8
"""

import argparse

from reidlib.study import open_study


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", help="a params file")
    parser.add_argument("dataset", help="one of its data sets")
    parser.add_argument("methods", nargs="+", help="such as expert:clip, moe:soft, student+kd:moe")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a key of the params file")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--fraction", type=float, default=0.25, help="share of the training identities held out")
    args = parser.parse_args()
    study = open_study(args.study, args.set, validation=args.fraction)
    for method in args.methods:
        for seed in args.seeds:
            found = study.evaluate(method, args.dataset, seed)
            print(
                f"{args.dataset} {method} seed {seed} {' '.join(args.set)}: mAP {found.mAP:.4f} rank-1 {found.cmc[0]:.4f}"
            )


if __name__ == "__main__":
    main()
