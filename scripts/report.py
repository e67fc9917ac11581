"""Build a study's static site, results/<study>/report/, from its results: what `make report` does last.

python scripts/report.py params/demo.yaml artifacts/demo/report     the latter: what notebook 08 has made of them
python scripts/report.py params/demo.yaml artifacts/demo/report more.ipynb     with a page for another executed notebook
"""

import argparse
from pathlib import Path

from publishing import pages
from reidlib import results

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", help="a params file")
    parser.add_argument("made", type=Path, help="folder of the executed notebook 08")
    parser.add_argument("more", type=Path, nargs="*", help="further executed notebooks, a page each")
    args = parser.parse_args()
    found = results.open_results(args.study)
    print(f"Open {pages.write_site(found, found.folder, args.made, found.folder / 'report', args.more)}")
