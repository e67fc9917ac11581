"""What people read of a study: a README.md, which GitHub shows, and a static site with the notebooks too.

Both are made of results and of the tables, figures and claims made of them; nothing is computed here. Where the results are
marked, every page says so first.
"""

import io
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import redirect_stderr
from pathlib import Path

import nbformat
import pandas as pd

from publishing.reference import guide, reference
from reidlib import claims
from reidlib.results import Results, stand_ins
from reidlib.sources import PROJECT

SETTINGS = PROJECT / "report"  # Sphinx's
TABLES = {  # by file name, in the order on the page; others follow
    "main": "Accuracy",
    "efficiency": "Efficiency",
    "efficiency_paper": "Efficiency in the paper's configuration",
    "ablation_grid": "Ablation: experts, mixture, distillation",
    "ablation_gates": "Ablation: gates",
    "ablation_kd": "Ablation: terms of distillation",
    "ablation_sizes": "Ablation: sizes of the student",
    "ablation_epochs": "Ablation: what KD adds to a student that trains for longer",
    "cross_domain": "Across domains",
    "deployment": "The student as one file, in 32 and in 8 bits",
}
BARS = "Bars: means over the seeds; dots: seeds; whiskers: 95 % intervals over the seeds (Student's t)."
SPREAD = "Whiskers: 95 % intervals over the seeds (Student's t)."
ABLATED = "Whiskers: 95 % intervals over identities, their queries and seeds."
MEANS = "Means over the seeds."
CURVES = "Lines: means over the seeds; bands: from the worst seed to the best."
LISTS = "Ticked and green: right; crossed and red: wrong; grey: after all right ones were found."
MAPS = (
    "t-SNE of some identities of the gallery, first seed; how far groups are apart, and in what direction, means nothing."
)
FIGURES = {  # how their names begin and what to know of them, in the order on the page; others follow
    "The method": (("overview",), ""),
    "Accuracy of every method": (("accuracy",), BARS),
    "Accuracy against cost": (("pareto",), SPREAD),
    "Cost": (("efficiency",), "Medians; all axes are logarithmic."),
    "Ablations": (("ablation",), ABLATED),
    "Across domains": (("cross_domain",), MEANS),
    "CMC": (("cmc",), CURVES),
    "The Mixture-of-Experts beside its experts": (("moe",), BARS),
    "What any one weight would give": (
        ("gate-constant",),
        "Untrained, first seed, on the test set after the fact: nothing is chosen by it. Gates stand at their mean weights.",
    ),
    "What the gate learnt": (
        ("gate",),
        "Boxes: quartiles of the gate's weight, first seed; in brackets how many pictures.",
    ),
    "Students beside their teachers": (("students",), BARS),
    "Maps of the embeddings": (("embedding",), MAPS),
    "What the student finds, from the worst query to the best": (("ranked-student",), LISTS),
    "Where the student errs and its teacher does not": (("errs",), LISTS),
    "What the experts find": (("ranked",), LISTS),
    "Training": (
        ("training",),
        "First seed; terms as weighted in the sum; dotted: pictures are of another size from here on.",
    ),
    "Miniatures are pretrained on pictures and captions": (("pretraining", "captions"), ""),
    "The data": (("samples", "dataset_statistics"), ""),
    "Other figures": (("",), ""),
}
OF_ONE_SEED = {  # what to know instead where a study has no more
    BARS: "Bars: of one seed.",
    SPREAD: "Of one seed.",
    ABLATED: "Whiskers: 95 % intervals over identities and their queries; one seed.",
    MEANS: "Of one seed.",
    CURVES: "Lines: of one seed.",
}
MEASURED = ("deployment",)  # tables that notebooks before the report make of networks: no edit of the results changes them
WIDGET = "application/vnd.jupyter.widget-view+json"
TAGS = {"parameters": "remove-cell", "injected-parameters": "hide-cell"}  # defaults, and what the study gave instead
LONG_CELL = re.compile(r"<(t[dh])([^>]*)>(?=[^<]{40})")  # of a notebook's table; other cells stay on one line
WRAPPED = r'<\1\2 style="white-space: normal; min-width: 16rem">'
VERDICTS = dict(zip(claims.VERDICTS, "🟢🔴🟡⚪"))  # signs, for GitHub shows no coloured text
BY_CHANCE = 0.025  # of the intervals around a true zero lie above it, 95 % ones


def write_readme(results: Results, folder: Path) -> Path:
    """README.md of the tables, figures, notebooks and claims.csv in `folder`. Returns its path."""
    links = "\n".join(f"* [{file.stem}](notebooks/{file.name})" for file in _notebooks(folder))
    verdict = lambda word: f"{VERDICTS[word]} {word}"  # noqa: E731
    lines = [*_front(results, folder, results.warning, verdict, ".png"),
             *["## The executed notebooks", links] * bool(links),
             "## Where it comes from", *_provenance(results.provenance)]  # fmt: skip
    path = folder / "README.md"
    path.write_text("\n\n".join(lines) + "\n")
    return path


def write_site(results: Results, published: Path, made: Path, site: Path, more: Sequence[Path] = ()) -> Path:
    """A static site of the same, with a page for each notebook, in the folder `site`. Returns its index.html.

    published: the folder whose figures and notebooks are shown; made: one with tables, claims.csv and figures made anew of
    `results`, which go before the published ones. Both stay as they are. more: further executed notebooks, a page each.
    What Sphinx has to complain of is told with the notebook's name: a cell of one's own may hold a broken link, and the rest is
    built all the same. Raises RuntimeError where nothing can be built; the former site stays then.
    """
    from sphinx.cmd.build import build_main  # here, for it takes a second and write_readme needs it not

    with tempfile.TemporaryDirectory() as scratch:
        source, html = (Path(scratch) / name for name in ("source", "html"))
        (source / "notebooks").mkdir(parents=True)
        ledger = made if (made / "claims.csv").is_file() else published  # with its tables: one may be gone for good
        for folder, part in ((ledger, "tables"), (published, "figures"), (made, "figures")):
            if (folder / part).is_dir():
                shutil.copytree(folder / part, source / part, dirs_exist_ok=True)
        for name in MEASURED:
            for file in (published / "tables").glob(f"{name}.*"):
                (source / "tables").mkdir(exist_ok=True)
                shutil.copy(file, source / "tables")
        if (ledger / "claims.csv").is_file():
            shutil.copy(ledger / "claims.csv", source)
        box = "\n".join(["```{warning}", *(f"* {mark}" for mark in results.marks), "```"]) if results.marks else ""
        notebooks = [*_notebooks(published), *more]
        for file in notebooks:
            nbformat.write(_for_readers(file, box), source / "notebooks" / file.name)
        pages = [f"notebooks/{file.stem}" for file in notebooks] + ["provenance"]
        menu = [_menu(pages), _menu(_reference(source), "To build on it")]
        verdict = lambda word: f"[{word}]{{.verdict .{word.replace(' ', '-')}}}"  # noqa: E731
        (source / "index.md").write_text("\n\n".join([*_front(results, source, box, verdict, ".svg"), *menu]))
        origin = ["# Where it comes from", box, *_provenance(results.provenance)]
        (source / "provenance.md").write_text("\n\n".join(origin))
        words = [f"-D{key}={results.params.title}" for key in ("project", "html_title")]
        kept = ["-d", f"{scratch}/doctrees", "-c", str(SETTINGS)]
        told, log = io.StringIO(), Path(scratch) / "warnings"
        with redirect_stderr(told):
            failed = build_main(["-q", "-w", str(log), *words, *kept, str(source), str(html)])
        told = log.read_text() if log.exists() else told.getvalue()
        for line in re.sub("\x1b\\[[0-9;]*m", "", told).replace(f"{source}/", "").splitlines():
            print(f"site: {line}", file=sys.stderr)
        if failed or not (html / "index.html").exists():
            raise RuntimeError(f"{site} was not rebuilt; see above what Sphinx says")
        shutil.rmtree(site, ignore_errors=True)
        shutil.copytree(html, site, ignore=shutil.ignore_patterns(".buildinfo", "objects.inv"))
    return site / "index.html"


def _menu(pages: Sequence[str], caption: str = "", hidden: bool = True) -> str:
    """Pages in the menu; hidden: and not on this page too."""
    options = [*[":hidden:"] * hidden, *[f":caption: {caption}"] * bool(caption)]
    return "\n".join(["```{toctree}", *options, "", *pages, "```"])


def _reference(source: Path) -> list[str]:
    """Writes the how-tos and a page for each module below `source`. Their names, for the menu."""
    found = reference(PROJECT / "reidlib")
    (source / "reference").mkdir()
    for name, text in found.items():
        (source / "reference" / f"{name}.md").write_text(text)
    (source / "guide.md").write_text(guide(PROJECT / "README.md"))
    index = ["# reidlib, module by module", _menu([*found], hidden=False)]
    (source / "reference" / "index.md").write_text("\n\n".join(index))
    return ["guide", "reference/index"]


def _front(results: Results, folder: Path, warning: str, verdict: Callable[[str], str], suffix: str) -> list[str]:
    """The front page's paragraphs, in Markdown. verdict: how one is written; suffix: of the figures' files."""
    note, experts = results.params.remark, stand_ins(results.params)
    lines = [f"# {results.params.title}", *[warning] * bool(warning), note]
    if len(experts):
        lines += ["## What stands in for what", _table(experts.to_numpy(), [*experts])]
    if (folder / "claims.csv").is_file():
        lines += ["## The paper's claims", *_claims(folder / "claims.csv", verdict)]
    tables = {file.stem: file.read_text() for file in sorted((folder / "tables").glob("*.md"))}
    lines += ["## Tables"] * bool(tables)
    for name in sorted(tables, key=lambda name: list(TABLES).index(name) if name in TABLES else len(TABLES)):
        # the note stands under every table, for whoever takes one elsewhere; here once is enough
        lines += [f"### {TABLES.get(name, name)}", tables[name].replace(f" {note}\n", "\n").strip()]
        files = {"CSV": f"tables/{name}.csv", "LaTeX": f"tables/{name}.tex"}
        links = [f"[{kind}]({file})" for kind, file in files.items() if (folder / file).is_file()]
        lines += [f"As a file: {', '.join(links)}"] * bool(links)
    figures = sorted((folder / "figures").glob(f"*{suffix}"))
    lines += ["## Figures"] * bool(figures)
    for heading, (begins, known) in FIGURES.items():
        known = OF_ONE_SEED.get(known, known) if len(results.params.seeds) == 1 else known
        known += _fewer_seeds(results) if known == ABLATED else ""
        own = [file for file in figures if file.stem.startswith(begins)]
        lines += [f"### {heading}", *[known] * bool(known)] * bool(own)
        lines += [f"![{file.stem}](figures/{file.name})" for file in own]
        figures = [file for file in figures if file not in own]
    return lines


def _fewer_seeds(results: Results) -> str:
    """What to say under ablations where variants of the student were trained with fewer seeds than the rest."""
    seeds = results.params.ablations and results.params.ablations.seeds
    if seeds is None or len(seeds) == len(results.params.seeds):
        return ""
    return f" Other sizes and epochs, terms and temperatures: {len(seeds)} seed{'s' * (len(seeds) > 1)}."


def _claims(file: Path, verdict: Callable[[str], str]) -> list[str]:
    """How often each verdict was given, how often by chance alone, and the ledger."""
    ledger, numbers = pd.read_csv(file, keep_default_na=False, dtype=str), pd.read_csv(file)
    given = ledger["verdict"].value_counts()
    counts = ", ".join(f"*{word}* {given[word]}" for word in VERDICTS if word in given)
    if (ledger["measured"][ledger["verdict"] == claims.OPEN] != "").any():
        counts += " (which is no verdict: where there is a number all the same, it is a level)"
    asked = claims.questions(numbers)
    if len(asked):
        many, stand = len(asked), ((asked["p_holm"] < claims.LEVEL) & (asked["verdict"] != claims.UNDECIDED)).sum()
        counts += (f". Of {many} differences {BY_CHANCE * many:.1f} would hold by chance if none were real; after Holm's "
                   f"correction for that {stand} stand, and the basis says which")  # fmt: skip
    rows = [
        (verdict(c["verdict"]), c["claim"], c["paper"],
         _number(c["measured"]) + (f" ({_number(c['low'])} to {_number(c['high'])})" if c["low"] else ""),
         ": ".join(filter(None, [c["on"], c["basis"]])))
        for _, c in ledger.iterrows()
    ]  # fmt: skip
    return [f"Verdicts: {counts}.", _table(rows, ["verdict", "claim", "paper", "measured (95 % interval)", "basis"])]


def _number(text: str) -> str:
    return f"{float(text):.2f}".replace("-", "−") if text else ""


def _provenance(provenance: dict) -> list[str]:
    """Its plain facts in one table, then each collection of records in it, folded."""
    facts, collections = [], []
    for key, value in provenance.items():
        if not (isinstance(value, dict) and value and all(isinstance(record, dict) for record in value.values())):
            facts.append((key, _plain(value)))
            continue
        texts = pd.DataFrame({name: {k: _plain(v) for k, v in record.items()} for name, record in value.items()}).fillna("")
        texts = texts.T if len(value) > 2 else texts  # many records: a row each; one or two: a column each
        table = _table(texts.reset_index().to_numpy(), ["", *texts])
        collections += [f"<details><summary>{key}: {len(value)}</summary>", table, "</details>"]
    return [_table(facts, ["", "value"]), *collections]


def _plain(value) -> str:
    """A value of a JSON file as people write it; of a long list the beginning."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(item)}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(_plain, value[:6])) + (f", … ({len(value)})" if len(value) > 6 else "")
    if value is None or isinstance(value, bool):
        return {True: "yes", False: "no"}.get(value, "")
    return f"{value:g}" if isinstance(value, float) else str(value)


def _table(rows: Iterable[Sequence[str]], columns: Sequence[str]) -> str:
    """A Markdown table; not padded, so that a change shows as one changed line."""
    cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in [columns, ["---"] * len(columns), *cells])


def _notebooks(folder: Path) -> list[Path]:
    return sorted((folder / "notebooks").glob("*.ipynb"))


def _for_readers(file: Path, warning: str) -> nbformat.NotebookNode:
    """An executed notebook without progress bars, warnings, widgets; its title says what it was run for.

    warning: a paragraph in Markdown, put below the title.
    """
    notebook = nbformat.read(file, as_version=4)
    notebook.metadata.pop("widgets", None)  # they need a kernel, or scripts from a network
    run = file.stem.partition("-")[2]
    if notebook.cells and notebook.cells[0].source.startswith("# "):
        title, _, text = notebook.cells[0].source.partition("\n")
        title = f"{title}: {run}" if run else title
        notebook.cells[0].source = "\n\n".join([title, warning, text])
    elif warning:
        notebook.cells.insert(0, nbformat.v4.new_markdown_cell(warning))
    for cell in notebook.cells:
        tags = cell.metadata.get("tags", [])
        cell.metadata["tags"] = [TAGS.get(tag, tag) for tag in tags]
        if cell.cell_type == "code":
            noise = lambda output: output.get("name") == "stderr" or WIDGET in output.get("data", {})  # noqa: E731
            cell.outputs = [output for output in cell.outputs if not noise(output)]
            for data in (output["data"] for output in cell.outputs if "text/html" in output.get("data", {})):
                data["text/html"] = LONG_CELL.sub(WRAPPED, data["text/html"])
    return notebook
