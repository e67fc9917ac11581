"""Build a study's static site, results/<study>/report/, from its results: what `make report` does last."""

import sys

from reidlib import report
from reidlib.study import open_study

if __name__ == "__main__":
    print(f"Open {report.write_site(open_study(sys.argv[1]))}")
