# Which notebook runs with what, after what. Called by `make study`; by hand, for one study or several at once:
#
#     .venv/bin/snakemake --cores 2 --config study="demo vehicle2cam"
#
# A notebook runs again when its state changes: its code and what that reaches, the params, the data, the study's units (see
# publishing/; profiles/default says that nothing else counts). Inside it, every unit of work that is finished is
# found again, so that running again takes seconds. Cores decide what runs side by side and never a number: those are made
# with the params' threads.

import os
import shlex
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path

sys.path.insert(0, workflow.basedir)
import publishing
from reidlib import agenda
from reidlib.data import DataError
from reidlib.weights import WeightsError
from reidlib.study import open_study
from scripts.orphans import end_group, when_orphaned

if os.environ.get("REIDLIB_RUN_BY") == str(os.getppid()):  # scripts/study.py: without it nobody is left to stop this
    when_orphaned(lambda: end_group(os.getpgrp()))

STUDIES = {study: open_study(f"params/{study}.yaml") for study in config.get("study", "demo").split()}
MADE = "artifacts/{study}/made/"
PYTHON = shlex.quote(sys.executable).replace("{", "{{").replace("}", "}}")
for study in STUDIES.values():
    with suppress(DataError, WeightsError):  # a dry run where they are not; a real one says so and stops
        publishing.take_back(study)


@cache
def state(study, *notebooks):
    """What decides whether notebooks run again, or what is put together of them."""
    try:
        if len(notebooks) == 1:
            return publishing.state(STUDIES[study], *notebooks)
        return publishing.assembly_state(STUDIES[study], notebooks)
    except (DataError, WeightsError) as error:  # a dry run where they are not; a real one says so and stops
        return f"unknown, for {type(error).__name__} was raised"


def executed(name):
    """Where a rule's notebook is executed to."""
    return MADE + f"{name}/{name}.ipynb"


def parts(study):
    """All executed notebooks of a study."""
    return [f"artifacts/{study}/made/{name}/{name}.ipynb" for name in publishing.notebooks(STUDIES[study])]


def run(parameters=""):
    """The shell command that executes a rule's notebook with `study` and other parameters."""
    return (
        # exec: so that Snakemake is the parent, and its end is seen
        f"exec env OMP_NUM_THREADS={{threads}} NUMBA_NUM_THREADS={{threads}} {PYTHON} scripts/execute.py {{input.notebook}} "
        "{output[0]} --state {params.state} -p study params/{wildcards.study}.yaml " + parameters
    )


def threads(wildcards):
    return STUDIES[wildcards.study].params.threads


rule all:
    input:
        [f"artifacts/{name}/published" for name in STUDIES],
        # every part, or one that failed would not be missed where what is made of it is still there
        [part for name in STUDIES for part in parts(name)],


rule data:
    input:
        notebook="notebooks/01_data.ipynb",
    output:
        executed("01_data"),
    params:
        state=lambda w: state(w.study, "01_data"),
    threads: threads
    shell:
        run()


rule experts:
    input:
        rules.data.output,
        notebook="notebooks/02_experts.ipynb",
    output:
        executed("02_experts-{expert}"),
    params:
        state=lambda w: state(w.study, "02_experts"),
    threads: threads
    shell:
        run("-p expert {wildcards.expert}")


rule moe:
    input:
        lambda w: expand(rules.experts.output, study=w.study, expert=STUDIES[w.study].params.experts),
        notebook="notebooks/03_moe.ipynb",
    output:
        executed("03_moe-{dataset}"),
    params:
        state=lambda w: state(w.study, "03_moe"),
    threads: threads
    shell:
        run("-p dataset {wildcards.dataset}")


rule distillation:
    input:
        rules.moe.output,
        notebook="notebooks/04_distillation.ipynb",
    output:
        executed("04_distillation-{dataset}"),
    params:
        state=lambda w: state(w.study, "04_distillation"),
    threads: threads
    shell:
        run("-p dataset {wildcards.dataset}")


rule ablations:
    input:
        lambda w: expand(rules.distillation.output, study=w.study, dataset=agenda.ablated(STUDIES[w.study].params)),
        notebook="notebooks/05_ablations.ipynb",
    output:
        executed("05_ablations"),
    params:
        state=lambda w: state(w.study, "05_ablations"),
    threads: threads
    shell:
        run()


rule cross_domain:
    input:
        lambda w: expand(rules.distillation.output, study=w.study, dataset=agenda.trained(STUDIES[w.study].params)),
        notebook="notebooks/06_cross_domain.ipynb",
    output:
        executed("06_cross_domain"),
    params:
        state=lambda w: state(w.study, "06_cross_domain"),
    threads: threads
    shell:
        run()


rule efficiency:
    input:
        rules.ablations.output,
        rules.cross_domain.output,
        notebook="notebooks/07_efficiency.ipynb",
    output:
        executed("07_efficiency"),
    params:
        state=lambda w: state(w.study, "07_efficiency"),
    threads: workflow.cores  # nothing beside it while it measures; what it measures with is the params' threads all the same
    shell:
        run()


rule deployment:
    input:
        rules.efficiency.output,
        notebook="notebooks/09_deployment.ipynb",
    output:
        executed("09_deployment"),
    params:
        state=lambda w: state(w.study, "09_deployment"),
    threads: workflow.cores  # it measures too
    shell:
        run()


rule gather:
    input:
        rules.efficiency.output,
        lambda w: expand(rules.deployment.output, study=[w.study] if STUDIES[w.study].params.release else []),
    output:
        directory("artifacts/{study}/gathered"),
    params:
        state=lambda w: state(w.study, *publishing.notebooks(STUDIES[w.study])[:-1]),
    shell:
        PYTHON + " scripts/gather.py params/{wildcards.study}.yaml {output}"


rule report:
    input:
        rules.gather.output,
        notebook="notebooks/08_report.ipynb",
    output:
        executed("08_report"),
    params:
        state=lambda w: state(w.study, "08_report"),
    threads: threads
    shell:
        run("-p folder {input[0]}")


rule publish:
    input:
        lambda w: parts(w.study),
    output:
        "artifacts/{study}/published",
    params:
        state=lambda w: state(w.study, *publishing.notebooks(STUDIES[w.study])),
    shell:
        PYTHON + " scripts/publish.py params/{wildcards.study}.yaml"
