"""Try a setting on held-out *training* identities: how hyper-parameters are chosen without a look at the test set.

python scripts/validate.py params/demo.yaml vehicles student student+kd:moe --set distillation.temperature=8 --keep

--keep adds what was found to params/<study>.validation.csv, which is published with the study's results: what was tried, and
how the params came to be what they are.
"""

import argparse

import pandas as pd

from reidlib.gathering import tried
from reidlib.study import open_study


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", help="a params file")
    parser.add_argument("dataset", help="one of its data sets")
    parser.add_argument("methods", nargs="+", help="such as expert:clip, moe:soft, student+kd:moe")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a key of the params file")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--fraction", type=share, default=0.25, help="share of the training identities held out")
    parser.add_argument("--keep", action="store_true", help="add a row to params/<study>.validation.csv")
    args = parser.parse_intermixed_args()
    study = open_study(args.study, args.set, validation=args.fraction)
    for method in args.methods:
        for seed in args.seeds:
            found = study.evaluate(method, args.dataset, seed)
            setting = "; ".join(args.set)
            print(f"{args.dataset} {method} seed {seed} {setting}: mAP {found.mAP:.4f} rank-1 {found.cmc[0]:.4f}")
            if args.keep:
                keep(study, method, args.dataset, seed, {"setting": setting, "mAP": found.mAP, "rank-1": found.cmc[0]})


def share(text: str) -> float:
    """A share of the training identities. Of none held out the test set would be left to score on."""
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1: a share of the training identities is held out")
    return value


def keep(study, method: str, dataset: str, seed: int, found: dict) -> None:
    """One row: what was trained how, what it reached on how many held-out identities, what it took and where."""
    unit = study.plan.network(method, dataset, seed)
    made = study.store.record(unit)["made"] if unit else {"seconds": 0, "environment": {}}
    recipe = unit.inputs["recipe"] if unit else None
    row = {
        "dataset": dataset, "method": method, "seed": seed, "epochs": recipe.epochs if recipe else 0, **found,
        "held-out identities": study.dataset(dataset).query["pid"].nunique(), "seconds": made["seconds"],
        "device": made["environment"].get("device"), "commit": made["environment"].get("commit"),
    }  # fmt: skip
    table = tried(study) if study.validation_file.exists() else pd.DataFrame()
    pd.concat([table, pd.DataFrame([row])]).round(4).to_csv(study.validation_file, index=False)


if __name__ == "__main__":
    main()
