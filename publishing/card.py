"""The network that a study hands on: its weights, and a card that says what it is, what it can do and what it is not for."""

import copy
import re
from pathlib import Path

import yaml

from reidlib import agenda
from reidlib.comparisons import by_seed, compare
from reidlib.methods import ELSEWHERE, Student, label, parse
from reidlib.models import Embedder, deployed
from reidlib.params import EncoderParams
from reidlib.released import write_released
from reidlib.results import Results
from reidlib.study import Study


def release(study: Study, results: Results, folder: Path) -> Path:
    """<method>.safetensors and README.md, its card, of `params.release` in `folder`. Returns the former.

    Raises ValueError where the method is no student of the study.
    """
    wanted, seed = study.params.release, study.params.seeds[0]
    method = parse(wanted.method)
    if not isinstance(method, Student):
        raise ValueError(f"{study.name}: release.method is '{method}', which is no student")
    spec = agenda.varied(study.params, method)[0].encoder
    model = study.model(method, wanted.dataset, seed)
    folder.mkdir(parents=True)
    file = folder / f"{re.sub(r'[^a-z0-9]+', '-', str(method))}.safetensors"
    write_released(file, model, spec)
    (folder / "README.md").write_text(_card(study, results, method, model, spec, file))
    return file


def _card(study: Study, results: Results, method: Student, model: Embedder, spec: EncoderParams, file: Path) -> str:
    params, wanted, seed = study.params, study.params.release, study.params.seeds[0]
    of_seed = results.rows[results.rows["seed"] == seed]
    scores = []
    for test in params.datasets:
        cell = str(method), wanted.dataset, test
        if by_seed(of_seed, *cell).empty:
            continue  # variants are tested at home alone
        found = compare(of_seed, results.evaluations, lambda mAP: mAP, [cell])
        own = of_seed.set_index(["method", "train_dataset", "test_dataset", "metric"])["value"].sort_index()[cell]
        mAP, rank, low, high = (f"{100 * value:.1f}" for value in (own["mAP"], own["rank-1"], found.low, found.high))
        name = params.datasets[test].title or test
        where = "its own test set" if test == wanted.dataset else "never seen in training"
        scores.append(f"| {name} | {where} | {mAP} ({low} to {high}) | {rank} | {found.queries} of {found.identities} |")
    _, kd = agenda.varied(params, method)
    how = study.plan.training(method, wanted.dataset, seed).inputs["recipe"].model_dump(mode="json", exclude_defaults=True)
    if method.taught_by:
        how["distillation"] = kd.model_dump(mode="json", exclude_defaults=True, exclude={"teachers"})
    recipe = yaml.safe_dump(how, sort_keys=False).strip()
    names = {name: spec.title or name for name, spec in params.datasets.items()}
    title, (height, width) = label(method), model.encoder.size
    count = sum(parameter.numel() for parameter in deployed(copy.deepcopy(model)).parameters())
    pictures, megabytes = len(study.dataset(wanted.dataset).train), file.stat().st_size / 1e6
    taught = f"taught by {method.taught_by}" if method.taught_by else "alone"
    trained = results.provenance["units"][f"{method}|{wanted.dataset}|{seed}"]
    code = results.provenance["environments"][trained["environment"]]
    commit = f"commit {code['commit'][:12]}" if code["commit"] else "code outside git"
    edited = ", with changes that were not committed" * bool(code["uncommitted changes"])
    alone = params.model_copy(update={"peers": {}})
    peers = beside(results)
    return f"""# {title}, trained on {names[wanted.dataset]}

{spec.name}, {count / 1e6:.2f} M parameters, float16 weights in {file.name} ({megabytes:.1f} MB). It maps a crop
like those of {names[wanted.dataset]}, resized to {height} x {width} pixels, to an embedding that is compared by cosine.

    from reidlib.released import read_released
    model = read_released("{file.name}")      # uint8 [B, 3, H, W], RGB -> float [B, {model.dim}]

## What it can do

Single query, Market-1501's protocol; the 95 % interval is over the identities and queries of the test set, for this one
network.

| test set | | mAP (%) | rank-1 (%) | queries of identities |
| --- | --- | --- | --- | --- |
{chr(10).join(scores + ["", peers] * bool(peers))}

## How it was made

Trained on {pictures} pictures of {names[wanted.dataset]}, seed {seed} (the first: no test set has chosen it), {taught}, by the
code of {commit}{edited}. {alone.remark}

```yaml
{recipe}
```

## What it is not for

Finding people for any purpose that they or the law don't consent to; decisions about a person by its word alone. It has seen
the cameras, seasons and clothes of one data set, and falls off elsewhere as the table says.

## Terms

{wanted.terms}
"""


def beside(results: Results) -> str:
    """mAP of others' networks on the same test sets, in a sentence; "" where none was tested."""
    rows, datasets = results.rows, results.params.datasets
    theirs = rows[(rows["metric"] == "mAP") & (rows["train_dataset"] == ELSEWHERE)]
    found = []
    for method, values in theirs.pivot_table(index="method", columns="test_dataset", values="value", sort=False).iterrows():
        found.append(f"{parse(method).name} {' / '.join(f'{100 * values[test]:.1f}' for test in datasets)}")
    tests = " / ".join(spec.title or name for name, spec in datasets.items())
    head = f"Published networks, trained elsewhere, on the same pictures (mAP on {tests})"
    return f"{head}: {'; '.join(found)}." if found else ""
