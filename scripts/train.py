"""Train a study's methods; notebooks find them trained afterwards.

One method with several processes, a GPU each or all on the CPU:

    accelerate launch --multi_gpu --num_processes 2 scripts/train.py params/paper.yaml expert:clip --dataset veri776 --seed 0

All of a study, several at once on one GPU or CPU: what needs another's network waits for it.

    python scripts/train.py params/paper.yaml --list | xargs -P 4 -L 1 python scripts/train.py params/paper.yaml

With --list --evaluate, everything that the notebooks evaluate is embedded and evaluated as well.
"""

import argparse
import shlex
from itertools import product

from reidlib import agenda, processes
from reidlib.params import nearest
from reidlib.study import Study, open_study
from reidlib.units import Unit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", help="a params file")
    parser.add_argument("methods", nargs="*", help="such as expert:clip, moe:soft, student+kd:moe; default: all")
    parser.add_argument("--dataset", action="append", help="one of the study's; default: all")
    parser.add_argument("--seed", type=int, action="append", help="default: all of the study's")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a key of the params file")
    parser.add_argument("--evaluate", action="store_true", help="and evaluate each on all that the study tests it on")
    parser.add_argument("--list", action="store_true", help="do nothing; a line for each method that is not finished")
    args = parser.parse_intermixed_args()
    study = open_study(args.study, args.set)
    known = [*agenda.trained(study.params), *filter(None, [agenda.mixed(study.params)])]
    for name in args.dataset or ():
        if name not in known:
            parser.error(f"--dataset: nothing is trained on '{name}'{nearest(name, known)}")
    asked = study, args.methods, args.dataset, args.seed or study.params.seeds, args.evaluate
    if args.list:
        listed = set()
        for (method, dataset, seed), of in wanted(*asked).items():
            unfinished = {unit.key for unit in of if not study.store.record(unit)}
            if unfinished - listed:  # a network may be several methods'
                print(f"{method} --dataset {shlex.quote(dataset)} --seed {seed}" + " --evaluate" * args.evaluate)
            listed |= unfinished
        return
    accelerator = study.machine.accelerator()
    with accelerator.main_process_first():  # one process draws and hashes the pictures, the others find them
        units = wanted(*asked)
    for unit in (unit for of in units.values() for unit in of):
        study.store.make(unit)
        accelerator.print(f"{unit.label}: made by {processes.count()} processes or found")
    accelerator.end_training()


def wanted(
    study: Study, methods: list[str], datasets: list[str] | None, seeds: list[int], evaluate: bool
) -> dict[tuple[str, str, int], list[Unit]]:
    """Of each method, data set and seed the units to make: its network and, with `evaluate`, its evaluations.

    Of all that is evaluated, variants and what is trained on several data sets among it, what is asked for; methods that
    are asked for by name and that the study does not evaluate come after it.
    """
    params = study.params.model_copy(update={"seeds": seeds})
    asked = [
        each
        for each in agenda.evaluations(params)
        if each.method in (methods or [each.method]) and each.train in (datasets or [each.train])
    ]
    others = [of for of in methods if of not in {each.method for each in asked}]
    asked += map(agenda.Evaluated._make, product(others, datasets or agenda.trained(params), params.datasets, seeds))
    units: dict[tuple[str, str, int], list[Unit]] = {}
    for method, train, test, seed in asked:
        network = study.plan.network(method, train, seed)
        made = units.setdefault((method, train, seed), [network] if network else [])
        if evaluate:
            made.append(study.plan.evaluation(method, train, test, seed))
    return units


if __name__ == "__main__":
    main()
