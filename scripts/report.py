"""Build a study's static site, results/<study>/report/, from its results: what `make report` does last.

python scripts/report.py params/demo.yaml artifacts/demo/report     the latter: what notebook 08 has made of them
python scripts/report.py params/demo.yaml artifacts/demo/report more.ipynb     with a page for another executed notebook
"""

import sys
from pathlib import Path

from publishing import pages
from reidlib import results

if __name__ == "__main__":
    found = results.open_results(sys.argv[1])
    made, *more = map(Path, sys.argv[2:])
    print(f"Open {pages.write_site(found, found.folder, made, found.folder / 'report', more)}")
