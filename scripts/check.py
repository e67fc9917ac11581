"""Say whether a study can run: its params, its data and what was left out of it, its weights. What `make study` does before anything else."""

import argparse
import logging
import os
import sys
import urllib.error
import urllib.request

from reidlib.params import ParamsError


def main(file: str) -> int:
    _offline_if_cut_off()
    from reidlib import check  # after the line above: the hub's client reads its settings when imported
    from reidlib.study import open_study

    try:
        study = open_study(file)
    except (ParamsError, RuntimeError) as error:
        print(error, file=sys.stderr)
        return 1
    problems = check.problems(study)
    for problem in problems:
        print(f"{study.name} can't run: {problem}", file=sys.stderr)
    if not problems:
        for oddity in check.oddities(study):
            print(oddity)
        print(f"{study.name}: params, data and weights are in order")
    return 1 if problems else 0


def _offline_if_cut_off() -> None:
    """Without a network the hub's client would try for minutes: let it look into its cache alone."""
    logging.disable(logging.ERROR)
    hub = (
        os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    )  # a mirror may stand in its place, and a proxy before it
    try:
        urllib.request.build_opener().open(urllib.request.Request(hub, method="HEAD"), timeout=5).close()
    except urllib.error.HTTPError:
        pass  # it answers
    except (OSError, ValueError):
        os.environ["HF_HUB_OFFLINE"] = "1"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", help="a params file")
    sys.exit(main(parser.parse_args().study))
