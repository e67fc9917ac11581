"""Publish a study: put results/<study>/ in place, whole. What `make study` does last.

python scripts/publish.py params/demo.yaml
"""

import argparse
import sys

import publishing
from reidlib.study import open_study


def main(file: str) -> int:
    try:
        folder = publishing.publish(open_study(file))
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"published {folder.relative_to(folder.parents[1])}")
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", help="a params file")
    sys.exit(main(parser.parse_args().study))
