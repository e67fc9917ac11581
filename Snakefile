# Which notebook runs with what, after what. Called by `make study`; by hand:
#
#     .venv/bin/snakemake --cores 2 --config study=demo
#
# A notebook is run again when it, the params file, reidlib or a notebook before it has changed; inside it, every unit of
# work that is finished is found again (see reidlib/artifacts.py), so that running again takes seconds.

import os
import sys
from pathlib import Path

sys.path.insert(0, workflow.basedir)
from reidlib import params

STUDY = config.get("study", "demo")
PARAMS = params.load(f"params/{STUDY}.yaml")
DONE = f"artifacts/{STUDY}/notebooks"
LIBRARY = sorted(str(path) for path in Path("reidlib").rglob("*.py"))

# networks are small next to what a core does at once: independent notebooks side by side beat one with all cores
EXPERT_THREADS = max(1, workflow.cores // len(PARAMS.experts))
DATASET_THREADS = max(1, workflow.cores // len(PARAMS.datasets))
HALF = max(1, workflow.cores // 2)

wildcard_constraints:
    expert="|".join(PARAMS.experts),
    dataset="|".join(PARAMS.datasets),


def run(parameters=""):
    """The shell command that runs a rule's notebook with `study` and other parameters."""
    return (
        "OMP_NUM_THREADS={threads} NUMBA_NUM_THREADS={threads} " + sys.executable + " scripts/execute.py {input.notebook} "
        "{output} results/" + STUDY + "/notebooks -p study params/" + STUDY + ".yaml " + parameters
    )


rule all:
    input:
        f"{DONE}/08_report.ipynb",
    output:
        touch(f"artifacts/{STUDY}/finished"),


rule data:
    input:
        notebook="notebooks/01_data.ipynb",
        params=f"params/{STUDY}.yaml",
        library=LIBRARY,
    output:
        f"{DONE}/01_data.ipynb",
    threads: workflow.cores
    shell:
        run()


rule experts:
    input:
        rules.data.output,
        notebook="notebooks/02_experts.ipynb",
    output:
        DONE + "/02_experts-{expert}.ipynb",
    threads: EXPERT_THREADS
    shell:
        run("-p expert {wildcards.expert}")


rule moe:
    input:
        expand(rules.experts.output, expert=PARAMS.experts),
        notebook="notebooks/03_moe.ipynb",
    output:
        DONE + "/03_moe-{dataset}.ipynb",
    threads: DATASET_THREADS
    shell:
        run("-p dataset {wildcards.dataset}")


rule distillation:
    input:
        rules.moe.output,
        notebook="notebooks/04_distillation.ipynb",
    output:
        DONE + "/04_distillation-{dataset}.ipynb",
    threads: DATASET_THREADS
    shell:
        run("-p dataset {wildcards.dataset}")


rule ablations:
    input:
        expand(rules.distillation.output, dataset=PARAMS.ablations.datasets if PARAMS.ablations else PARAMS.datasets),
        notebook="notebooks/05_ablations.ipynb",
    output:
        f"{DONE}/05_ablations.ipynb",
    threads: HALF if PARAMS.mixed else workflow.cores
    shell:
        run()


rule cross_domain:
    input:
        expand(rules.distillation.output, dataset=PARAMS.datasets),
        notebook="notebooks/06_cross_domain.ipynb",
    output:
        f"{DONE}/06_cross_domain.ipynb",
    threads: HALF
    shell:
        run()


rule efficiency:
    input:
        rules.ablations.output,
        rules.cross_domain.output,
        notebook="notebooks/07_efficiency.ipynb",
    output:
        f"{DONE}/07_efficiency.ipynb",
    threads: workflow.cores  # nothing beside it while it measures
    shell:
        run()


rule results:
    input:
        rules.efficiency.output,
        script="scripts/gather.py",
    output:
        f"results/{STUDY}/results.csv",
    threads: workflow.cores
    shell:
        sys.executable + " {input.script} params/" + STUDY + ".yaml"


rule report:
    input:
        rules.results.output,
        notebook="notebooks/08_report.ipynb",
    output:
        f"{DONE}/08_report.ipynb",
    threads: workflow.cores
    shell:
        run()
