"""Forget what a study has made: its notebooks and those of its units that no other study has.

python scripts/clean.py demo
"""

import argparse
import shutil
import sys
from pathlib import Path

from reidlib.sources import PROJECT


def main(study: str) -> int:
    artifacts = PROJECT / "artifacts"
    own = artifacts / study
    if study in ("", "..", "units") or Path(study).name != study or not (own / "units").is_dir():
        print(f"clean: no study '{study}' has made anything in {artifacts}; name one as STUDY=demo", file=sys.stderr)
        return 1
    others = {link.resolve() for link in artifacts.glob("*/units/*") if link.is_symlink() and link.parents[1] != own}
    units = {link.resolve() for link in (own / "units").iterdir()} - others
    for folder in units:
        shutil.rmtree(folder, ignore_errors=True)
    shutil.rmtree(own)
    print(f"{study}: {len(units)} units forgotten")
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", nargs="?", default="", help="its name")
    sys.exit(main(parser.parse_args().study))
