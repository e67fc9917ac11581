# The study's commands; `make` alone lists them.

STUDY ?= demo
CORES ?= $(shell getconf _NPROCESSORS_ONLN)
BASE_PYTHON ?= python3
PYTHON = .venv/bin/python
COMPARED = artifacts/$(STUDY)/compared/10_comparison.ipynb

.PHONY: help install study report status check lint test benchmark lab lock clean prune

help:
	@echo "make study [STUDY=demo]   run a study to its end: params/<STUDY>.yaml -> results/<STUDY>/"
	@echo "make report [STUDY=demo]  a site of its results to browse: results/<STUDY>/report/index.html"
	@echo "     [WITH=HEAD~9:results/demo]  and a page that compares it with others: a params file, a folder, or a commit's folder"
	@echo "make check [STUDY=demo]   only say whether data and weights are there"
	@echo "make lab                  JupyterLab on the notebooks"
	@echo "make test                 the tests; make lint: the code's form (ruff)"
	@echo "make benchmark            speed and memory beside peers: results/benchmarks/ (CASES=\"evaluation reranking\": only these)"
	@echo "make install              build .venv from requirements.lock"
	@echo "make status [STUDY=demo]  what is finished, half done, missing or stale, and why"
	@echo "make clean [STUDY=demo]   forget what a study alone has made"
	@echo "make prune [YES=1]        what no params file asks for any more: how much it takes; with YES=1 it is removed"

install: .venv/installed

.venv/installed: requirements.lock pyproject.toml
	@$(BASE_PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; name another with BASE_PYTHON=...")'
	$(BASE_PYTHON) -m venv .venv
	$(PYTHON) -m pip install --quiet --requirement requirements.lock
	$(PYTHON) -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

study: check
	@$(PYTHON) scripts/study.py $(STUDY) --cores $(CORES)
	@echo "Done. Read results/$(STUDY)/README.md (tables and figures) or results/$(STUDY)/notebooks/ (the executed study);"
	@echo "make report STUDY=$(STUDY) makes a site of them to browse."

# of what lies in results/<STUDY> alone: neither data nor artifacts are needed, and nothing that is published changes
report: install
	@test -f results/$(STUDY)/results.csv || { echo "results/$(STUDY)/results.csv is missing: run make study STUDY=$(STUDY) first" >&2; exit 1; }
	@$(PYTHON) scripts/execute.py notebooks/08_report.ipynb artifacts/$(STUDY)/report/08_report.ipynb -p study params/$(STUDY).yaml
	@$(if $(WITH),$(PYTHON) scripts/execute.py notebooks/10_comparison.ipynb $(COMPARED) -p study params/$(STUDY).yaml -p before "$(WITH)")
	@$(PYTHON) scripts/report.py params/$(STUDY).yaml artifacts/$(STUDY)/report $(if $(WITH),$(COMPARED))

status: install
	@$(PYTHON) -m reidlib status params/$(STUDY).yaml

check: install
	@$(PYTHON) scripts/check.py params/$(STUDY).yaml

lint: install
	@.venv/bin/ruff check --quiet . && .venv/bin/ruff format --quiet --check .

test: install
	@$(PYTHON) -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

# peers are those that .venv has: results/benchmarks/README.md says how to add them. No bars are drawn while the clock runs.
benchmark: install
	@TQDM_DISABLE=1 $(PYTHON) -m benchmarks $(CASES)

lab: install
	.venv/bin/jupyter lab --notebook-dir=notebooks --config=profiles/lab/jupyter_server_config.py

lock:
	uv pip compile pyproject.toml --extra test --universal --python-version 3.11 --no-header --no-emit-index-url -o requirements.lock

clean: install
	@$(PYTHON) scripts/clean.py "$(STUDY)"

prune: install
	@$(PYTHON) scripts/prune.py $(if $(YES),--yes)
