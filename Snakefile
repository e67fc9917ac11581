# Which notebook runs with what, after what. Called by `make study`; by hand, for one study or several at once:
#
#     .venv/bin/snakemake --cores 2 --config study="demo vehicle2cam"
#
# A notebook is run again when it, the params file, reidlib or a notebook before it has changed; inside it, every unit of
# work that is finished is found again (see reidlib/artifacts.py), so that running again takes seconds.

import sys
from pathlib import Path

sys.path.insert(0, workflow.basedir)
from reidlib import params

STUDIES = {study: params.load(f"params/{study}.yaml") for study in config.get("study", "demo").split()}
DONE = "artifacts/{study}/notebooks"
LIBRARY = sorted(str(path) for package in ("reidlib", "toydata") for path in Path(package).rglob("*.py"))
CORES = workflow.cores


def run(parameters=""):
    """The shell command that runs a rule's notebook with `study` and other parameters."""
    return (
        "OMP_NUM_THREADS={threads} NUMBA_NUM_THREADS={threads} " + sys.executable + " scripts/execute.py {input.notebook} "
        "{output[0]} results/{wildcards.study}/notebooks -p study params/{wildcards.study}.yaml " + parameters
    )


def share(parts):
    """Each part's threads, where each study has so many. Networks are small next to what a core does at once: independent
    notebooks side by side beat one with all cores."""
    return max(1, CORES // (parts * len(STUDIES)))


rule all:
    input:
        expand("artifacts/{study}/finished", study=STUDIES),


rule data:
    input:
        notebook="notebooks/01_data.ipynb",
        params="params/{study}.yaml",
        library=LIBRARY,
    output:
        DONE + "/01_data.ipynb",
    threads: share(1)
    shell:
        run()


rule experts:
    input:
        rules.data.output,
        notebook="notebooks/02_experts.ipynb",
    output:
        DONE + "/02_experts-{expert}.ipynb",
    threads: lambda w: share(len(STUDIES[w.study].experts))
    shell:
        run("-p expert {wildcards.expert}")


rule moe:
    input:
        lambda w: expand(rules.experts.output, study=w.study, expert=STUDIES[w.study].experts),
        notebook="notebooks/03_moe.ipynb",
    output:
        DONE + "/03_moe-{dataset}.ipynb",
    threads: lambda w: share(len(STUDIES[w.study].datasets))
    shell:
        run("-p dataset {wildcards.dataset}")


rule distillation:
    input:
        rules.moe.output,
        notebook="notebooks/04_distillation.ipynb",
    output:
        DONE + "/04_distillation-{dataset}.ipynb",
    threads: lambda w: share(len(STUDIES[w.study].datasets))
    shell:
        run("-p dataset {wildcards.dataset}")


rule ablations:
    input:
        lambda w: expand(
            rules.distillation.output,
            study=w.study,
            dataset=(STUDIES[w.study].ablations or STUDIES[w.study]).datasets,
        ),
        notebook="notebooks/05_ablations.ipynb",
    output:
        DONE + "/05_ablations.ipynb",
    threads: lambda w: share(2 if STUDIES[w.study].mixed else 1)
    shell:
        run()


rule cross_domain:
    input:
        lambda w: expand(rules.distillation.output, study=w.study, dataset=STUDIES[w.study].datasets),
        notebook="notebooks/06_cross_domain.ipynb",
    output:
        DONE + "/06_cross_domain.ipynb",
    threads: share(2)
    shell:
        run()


rule efficiency:
    input:
        rules.ablations.output,
        rules.cross_domain.output,
        notebook="notebooks/07_efficiency.ipynb",
    output:
        DONE + "/07_efficiency.ipynb",
    threads: CORES  # nothing beside it while it measures
    shell:
        run()


rule results:
    input:
        rules.efficiency.output,
        script="scripts/gather.py",
    output:
        "results/{study}/results.csv",
    threads: share(1)
    shell:
        sys.executable + " {input.script} params/{wildcards.study}.yaml"


rule report:
    input:
        rules.results.output,
        notebook="notebooks/08_report.ipynb",
    output:
        DONE + "/08_report.ipynb",
        touch("artifacts/{study}/finished"),
    threads: share(1)
    shell:
        run()
