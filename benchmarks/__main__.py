"""make benchmark: measure cases beside their peers and lay the results out in results/benchmarks/."""

import argparse
from functools import partial
from pathlib import Path

from benchmarks import loading, page, reaching, search, timing, training
from reidlib.sources import PROJECT
from reidlib.training import Machine

CASES = {
    "evaluation": partial(timing.beside_peers, "evaluation"),
    "reranking": partial(timing.beside_peers, "reranking"),
    "search": search.run,
    "loading": loading.run,
    "teacher": training.run_teacher,
    "training": training.run,
    "evaluation_large": partial(timing.beside_peers, "evaluation_large"),
    "reaching": reaching.run,
}
LONG = ("evaluation_large", "reaching")  # when asked for


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks")
    parser.add_argument("cases", nargs="*", help=f"{', '.join(CASES)}; default: all but {' and '.join(LONG)}")
    parser.add_argument("--large", action="store_true", help="evaluation_large too: minutes, gigabytes of memory")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that all of it runs")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda; evaluation and re-ranking use the CPU")
    parser.add_argument("--output", type=Path, default=PROJECT / "results" / "benchmarks", help="folder of the results")
    given = parser.parse_args()
    wanted = given.cases or [case for case in CASES if case not in LONG]
    if unknown := set(wanted) - set(CASES):
        parser.error(f"no case {', '.join(sorted(unknown))}; there are {', '.join(CASES)}")
    given.output.mkdir(parents=True, exist_ok=True)
    for case in dict.fromkeys([*wanted, *["evaluation_large"] * given.large]):
        print(f"{case} ...", flush=True)
        table = CASES[case](Machine(given.device), given.quick)
        table.to_csv(given.output / f"{case}.csv", index=False, float_format="%.6g")
        print(page.shown(table).to_string(index=False), flush=True)
    page.lay_out(given.output)
    print(f"Done. Read {given.output / 'README.md'}")


if __name__ == "__main__":
    main()
