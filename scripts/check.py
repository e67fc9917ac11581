"""Say whether a study can run: its params, its data, its weights. What `make study` does before anything else."""

import sys

from reidlib.params import ParamsError


def main(file: str) -> int:
    from reidlib.study import open_study

    try:
        study = open_study(file)
    except ParamsError as error:
        print(error, file=sys.stderr)
        return 1
    problems = study.check()
    for problem in problems:
        print(f"{study.name} can't run: {problem}", file=sys.stderr)
    if not problems:
        print(f"{study.name}: params, data and weights are in order")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
