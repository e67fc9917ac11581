"""Train a study's methods with several processes, a GPU each or all on the CPU; notebooks find them trained afterwards.

accelerate launch --multi_gpu --num_processes 2 scripts/train.py params/paper.yaml expert:clip --dataset veri776 --seed 0
"""

import argparse

from reidlib import processes
from reidlib.study import open_study


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", help="a params file")
    parser.add_argument("methods", nargs="*", help="such as expert:clip, moe:soft, student+kd:moe; default: all")
    parser.add_argument("--dataset", action="append", help="one of the study's; default: all")
    parser.add_argument("--seed", type=int, action="append", help="default: all of the study's")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a key of the params file")
    args = parser.parse_args()
    study = open_study(args.study, args.set)
    accelerator = study.machine.accelerator()
    datasets = args.dataset or list(study.params.datasets)
    with accelerator.main_process_first():  # one process draws and hashes the pictures, the others find them
        for dataset in datasets:
            study.plan.data.bytes_hash(dataset, "train")
    for dataset in datasets:
        for seed in args.seed or study.params.seeds:
            for method in args.methods or study.methods[1:]:
                if unit := study.plan.network(method, dataset, seed):
                    study.store.make(unit)
                accelerator.print(f"{method} on {dataset}, seed {seed}: trained by {processes.count()} processes or found")
    accelerator.end_training()


if __name__ == "__main__":
    main()
