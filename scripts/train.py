"""Train a study's methods; notebooks find them trained afterwards.

One method with several processes, a GPU each or all on the CPU:

    accelerate launch --multi_gpu --num_processes 2 scripts/train.py params/paper.yaml expert:clip --dataset veri776 --seed 0

All of a study, several at once on one GPU or CPU: what needs another's network waits for it.

    python scripts/train.py params/paper.yaml --list | xargs -P 4 -L 1 python scripts/train.py params/paper.yaml
"""

import argparse
from itertools import product

from reidlib import agenda, processes
from reidlib.study import open_study


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", help="a params file")
    parser.add_argument("methods", nargs="*", help="such as expert:clip, moe:soft, student+kd:moe; default: all")
    parser.add_argument("--dataset", action="append", help="one of the study's; default: all")
    parser.add_argument("--seed", type=int, action="append", help="default: all of the study's")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a key of the params file")
    parser.add_argument("--list", action="store_true", help="train nothing; a line for each training that is not finished")
    args = parser.parse_args()
    study = open_study(args.study, args.set)
    datasets, seeds = args.dataset or agenda.trained(study.params), args.seed or study.params.seeds
    # all that is evaluated, variants and what is trained on several data sets among it
    params = study.params.model_copy(update={"seeds": seeds})
    of = dict.fromkeys((each.method, each.train, each.seed) for each in agenda.evaluations(params))
    wanted = [each for each in of if each[1] in (args.dataset or [each[1]]) and each[0] in (args.methods or [each[0]])]
    evaluated = {each[0] for each in wanted}
    wanted += product([method for method in args.methods if method not in evaluated], datasets, seeds)
    if args.list:
        unfinished = {}
        for each in wanted:
            unit = study.plan.network(*each)
            if unit and not study.store.record(unit):
                unfinished.setdefault(unit.key, each)  # one may be several methods'
        for method, dataset, seed in unfinished.values():
            print(f"{method} --dataset {dataset} --seed {seed}")
        return
    accelerator = study.machine.accelerator()
    with accelerator.main_process_first():  # one process draws and hashes the pictures, the others find them
        for dataset in datasets:
            study.plan.data.bytes_hash(dataset, "train")
    for method, dataset, seed in wanted:
        if unit := study.plan.network(method, dataset, seed):
            study.store.make(unit)
            accelerator.print(f"{method} on {dataset}, seed {seed}: trained by {processes.count()} processes or found")
    accelerator.end_training()


if __name__ == "__main__":
    main()
