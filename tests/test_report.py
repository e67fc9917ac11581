import base64
import io
import re
from dataclasses import replace
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

import publishing
from publishing import pages as report
from reidlib import params
from reidlib.results import COLUMNS, Results

NOTE = "Small_networks stand in."
PARAMS = f"""
title: A study of 100 % made-up numbers
note: {NOTE}
seeds: [0, 1, 2]
datasets:
  people: {{layout: market1501, size: [16, 16], root: Market}}
experts:
  clip: {{encoder: {{name: "timm:test_vit"}}, recipe: &r {{epochs: 1, p: 4, lr: 0.001}}, stands_in_for: CLIP ViT-B/16}}
  align: {{encoder: {{name: "timm:test_byobnet"}}, recipe: *r}}
moe: {{gates: [soft], width: 8, recipe: *r}}
student: {{encoder: {{name: "timm:test_efficientnet"}}, recipe: *r}}
distillation: {{teachers: [moe], terms: {{logit: 1}}}}
"""
CLAIMS = """claim,paper,on,measured,low,high,p,p_holm,verdict,basis
The student learns | and wins,more,people,4.1,2.0,6.2,0.001,0.003,holds,3 seeds; also after Holm's correction for 3 differences
The mixture wins,more,people,-0.3,-1.0,-0.1,0.03,0.06,does not hold,3 seeds; not after Holm's correction for 3 differences
The gate wins,more,people,0.2,-0.1,0.5,0.4,0.4,undecided,3 seeds
75.2 % mAP on VeRi-776,75.2 %,,,,,,,not measured,VeRi-776 was not run
"""
pytestmark = pytest.mark.filterwarnings("ignore:.*'myst_parser.*is deprecated")  # it is not ours to mend
PICTURE = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
WIDGET = {report.WIDGET: {"model_id": "7"}, "text/plain": "a widget"}
TABLE = f"<table><tr><td>17.25</td><td class='x'>{'a long sentence ' * 9}</td></tr></table>"
SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="100" height="50"><rect width="9" height="9"/></svg>'


def notebook(title: str) -> nbformat.NotebookNode:
    outputs = [
        new_output("stream", name="stderr", text="UserWarning: a warning\n100%|████| 9/9 [00:01<00:00]"),
        new_output("display_data", WIDGET),
        new_output("stream", name="stdout", text="said aloud"),
        new_output("display_data", {"image/png": PICTURE, "text/plain": "<Figure>"}),
        new_output("execute_result", {"text/html": TABLE, "text/plain": "17.25"}),
    ]
    return new_notebook(cells=[
        new_markdown_cell(f"# {title}\n\nThe gate of $x_i$:\n\n$$w = \\mathrm{{softmax}}(G\\,[x_1, \\dots, x_E])$$"),
        new_code_cell('study = "auto"', metadata={"tags": ["parameters"]}),
        new_code_cell('study = "params/made_up.yaml"', metadata={"tags": ["injected-parameters"]}),
        new_code_cell("show()", outputs=outputs, execution_count=1),
    ], metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}})  # fmt: skip


def made_up(folder: Path, text: str = PARAMS, provenance: dict | None = None) -> Results:
    (folder / "made_up.yaml").write_text(text)
    (folder / "results" / "made_up").mkdir(parents=True, exist_ok=True)
    rows, found = pd.DataFrame(columns=COLUMNS), params.load(folder / "made_up.yaml")
    return Results("made_up", found, rows, {}, provenance or {}, folder / "made", folder=folder / "results" / "made_up")


def site(results: Results) -> Path:
    return report.write_site(results, results.folder, results.output, results.folder / "report")


def fill(folder: Path) -> Results:
    """Results whose folder holds one of everything."""
    for below in ("tables", "figures", "notebooks"):
        (folder / "results" / "made_up" / below).mkdir(parents=True)
    units = {f"expert:clip|people|{seed}": {"seconds": 12.345678 + seed, "environment": 0} for seed in range(3)}
    environments = {"0": {"commit": "abc123", "uncommitted changes": False, "packages": {"torch": "2.15.0"}}}
    record = {"study": "made_up", "params": "def456", "seeds": [0, 1], "environments": environments, "units": units}
    study = made_up(folder, provenance=record)
    wide = " | ".join(f"column {i}" for i in range(30))
    table = f"Accuracy, percent. {NOTE}\n\n| | {wide} |\n|:--|{'--|' * 30}\n| Student |{' 81.0 ± 2.5 |' * 30}\n"
    (study.folder / "tables" / "main.md").write_text(table)
    (study.folder / "tables" / "cross_domain.md").write_text(table.replace("81.0", "53.7"))
    for suffix in ("csv", "tex"):
        (study.folder / "tables" / f"main.{suffix}").write_text(f"main as {suffix}")
    for name in ("accuracy", "ranked-student-people", "surprise"):
        Image.new("RGB", (20, 10)).save(study.folder / "figures" / f"{name}.png")
        (study.folder / "figures" / f"{name}.svg").write_text(SVG)
    for name in ("02_experts-clip", "01_data", "08_report"):
        nbformat.write(notebook(f"{int(name[:2])}. Title"), study.folder / "notebooks" / f"{name}.ipynb")
    (study.folder / "claims.csv").write_text(CLAIMS)
    return study


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Results:
    study = fill(tmp_path_factory.mktemp("report"))
    assert site(study) == study.folder / "report" / "index.html"
    return study


def page(study: Results, name: str = "index") -> BeautifulSoup:
    return BeautifulSoup((study.folder / "report" / f"{name}.html").read_text(), "html.parser")


def test_nothing_is_loaded_from_elsewhere_and_all_that_is_loaded_exists(built):
    pages, loaded = built.folder / "report", []
    for file in pages.rglob("*.html"):
        soup = BeautifulSoup(file.read_text(), "html.parser")
        tags = soup.select("[src], link[href], object[data], image[href], use[href], [srcset], [poster]")
        keys = ("src", "href", "data", "srcset", "poster")
        loaded += [(file.parent, tag[key]) for tag in tags for key in keys if key in tag.attrs]
        loaded += [(file.parent, url) for style in soup.find_all("style") for url in urls(style.text)]
    for file in pages.rglob("*.css"):
        loaded += [(file.parent, url) for url in urls(file.read_text())]
    for file in pages.rglob("*.js"):
        assert not re.search(r"""((src|href)["']?\s*[=:,]|(fetch|import)\()\s*["'`](https?:)?//""", file.read_text())
    loaded = [(folder, url.partition("?")[0]) for folder, url in loaded if not url.startswith(("data:", "#"))]
    assert len(loaded) > 20
    assert [url for _, url in loaded if re.match(r"\w+:|//", url)] == []
    assert [url for folder, url in loaded if not (folder / url).exists()] == []


def urls(css: str) -> list[str]:
    css = re.sub(r"/\*.*?\*/", "", css, flags=re.DOTALL)
    return [one or other for one, other in re.findall(r"""url\(["']?([^"')]+)|@import\s+["']([^"']+)""", css)]


def test_front_page(built):
    soup = page(built)
    assert soup.h1.text.startswith("A study of 100 % made-up numbers")
    assert [h.text.rstrip("¶#") for h in soup.article.find_all("h2")] == [
        "What stands in for what", "The paper’s claims", "Tables", "Figures",
    ]  # fmt: skip
    assert [h.text.rstrip("¶#") for h in soup.article.find_all("h3")] == [
        "Accuracy", "Across domains", "Accuracy of every method",
        "What the student finds, from the worst query to the best", "Other figures",
    ]  # fmt: skip
    verdicts = [(tag.text, tag["class"]) for tag in soup.select(".verdict")]
    assert verdicts == [("holds", ["verdict", "holds"]), ("does not hold", ["verdict", "does-not-hold"]),
                        ("undecided", ["verdict", "undecided"]), ("not measured", ["verdict", "not-measured"])]  # fmt: skip
    text = soup.article.text
    for words in ("The student learns | and wins", "4.10 (2.00 to 6.20)", "−0.30", "81.0 ± 2.5", "53.7 ± 2.5"):
        assert words in text
    assert text.count(NOTE) == 1
    assert "CLIP ViT-B/16" in text and "test_byobnet" not in text
    assert len(soup.article.find_all("img")) == 3
    # a wide table lies in a box of its own, which scrolls
    assert all("table-wrapper" in table.parent["class"] for table in soup.article.find_all("table"))


def test_a_table_can_be_had_as_a_file(built):
    links = {link.text: link["href"] for link in page(built).article.find_all("a") if link.text in ("CSV", "LaTeX")}
    assert {name: (built.folder / "report" / file).read_text() for name, file in links.items()} == {
        "CSV": "main as csv", "LaTeX": "main as tex",
    }  # fmt: skip


def test_how_tos_and_modules_have_pages(built):
    assert "make study" in page(built, "guide").article.text
    assert "REIDLIB_DATA" in page(built, "guide").article.text
    text = page(built, "reference/retrieval").article.text
    assert "Market-1501 protocol (Zheng et al. 2015)" in text and "def rerank(" in text


def test_a_further_notebook_has_a_page(tmp_path):
    study = fill(tmp_path)
    nbformat.write(notebook("10. Side by side"), tmp_path / "10_comparison.ipynb")
    report.write_site(study, study.folder, study.output, study.folder / "report", [tmp_path / "10_comparison.ipynb"])
    assert "10. Side by side" in [link.text for link in page(study).select(".sidebar-tree a")]


def test_notebooks_show_what_they_found_and_no_noise(built):
    menu = [link.text for link in page(built).select(".sidebar-tree a")]
    assert menu[:4] == ["1. Title", "2. Title: clip", "8. Title", "Where it comes from"]
    assert menu[4:6] == ["How to", "reidlib, module by module"]
    soup = page(built, "notebooks/02_experts-clip")
    text = soup.article.text
    assert soup.h1.text.startswith("2. Title: clip")
    assert "said aloud" in text and "17.25" in text and len(soup.article.find_all("img")) == 1
    assert ["white-space" in cell.get("style", "") for cell in soup.select(".output td")] == [False, True]
    assert "UserWarning" not in text and "████" not in text
    assert "a widget" not in text and soup.find("script", type=report.WIDGET) is None
    assert 'study = "auto"' not in text and "params/made_up.yaml" in soup.select_one("details").text
    assert len(soup.find_all("math")) == 2 and soup.find("math", display="block") and "$" not in text


def test_provenance_page(built):
    text = page(built, "provenance").article.text
    for words in ("def456", "0, 1", "abc123", "torch 2.15.0", "expert:clip|people|0", "12.3457", "14.3457"):
        assert words in text
    folded = [table.select_one("tbody tr").text.split() for table in page(built, "provenance").select("details table")]
    assert folded == [["commit", "abc123"], ["expert:clip|people|0", "12.3457", "0"]]  # upright, and a row a unit


def test_what_is_edited_changes_and_what_is_gone_goes(tmp_path):
    study = fill(tmp_path)
    site(study)
    for file, old, new in [("tables/main.md", "81.0", "82.9"), ("claims.csv", ",holds,", ",does not hold,")]:
        path = study.folder / file
        path.write_text(path.read_text().replace(old, new))
    (study.folder / "notebooks" / "01_data.ipynb").unlink()
    site(study)
    soup = page(study)
    assert "82.9 ± 2.5" in soup.text and "81.0 ± 2.5" not in soup.text
    assert soup.select(".verdict.holds") == [] and len(soup.select(".verdict.does-not-hold")) == 2
    assert not (study.folder / "report" / "notebooks" / "01_data.html").exists()


@pytest.mark.parametrize(
    "bad, said",
    [
        ("$\\nonsense$", "nonsense"),
        ("[there](nowhere.md)", "nowhere.md"),
        ("#### Three levels too deep", "header level"),
        ("![pasted](attachment:image.png)", "attachment"),
    ],
)
def test_a_cell_of_ones_own_is_told_and_the_rest_is_built(tmp_path, capfd, bad, said):
    study = fill(tmp_path)
    cells = [new_markdown_cell(f"# 3. Bad\n\n{bad}\n\nAnd so on.")]
    nbformat.write(new_notebook(cells=cells), study.folder / "notebooks" / "03_bad.ipynb")
    site(study)
    told = capfd.readouterr().err
    assert said in told.lower() and "site: notebooks/03_bad.ipynb" in told and "/source/" not in told
    assert "And so on." in page(study, "notebooks/03_bad").text and page(study).text


@pytest.mark.parametrize(
    "kind, data",
    [
        ("plotly", {"application/vnd.plotly.v1+json": {"data": []}, "text/plain": "Figure"}),
        ("altair", {"application/vnd.vegalite.v5+json": {"mark": "bar"}, "text/plain": "alt.Chart(...)"}),
        ("nothing that is known", {"application/x-own": "a"}),
    ],
)
def test_an_output_that_no_page_can_show_stops_nothing(tmp_path, kind, data):
    study = fill(tmp_path)
    output = nbformat.v4.new_output("display_data", data=data)
    cells = [new_markdown_cell("# 3. Own"), nbformat.v4.new_code_cell("show()", outputs=[output], execution_count=1)]
    nbformat.write(new_notebook(cells=cells), study.folder / "notebooks" / "03_own.ipynb")
    site(study)
    assert "show()" in page(study, "notebooks/03_own").text


def test_the_former_site_stays_where_none_can_be_built(tmp_path, monkeypatch):
    study = fill(tmp_path)
    former = study.folder / "report" / "index.html"
    former.parent.mkdir()
    former.write_text("the former site")
    monkeypatch.setattr(report, "SETTINGS", tmp_path)  # where there are none
    with pytest.raises(RuntimeError, match="not rebuilt"):
        site(study)
    assert former.read_text() == "the former site"


def test_readme_lists_what_exists(tmp_path):
    study = fill(tmp_path)
    text = report.write_readme(study, study.folder).read_text()
    wanted = [
        "# A study of 100 % made-up numbers", NOTE, "CLIP ViT-B/16",
        "## The paper's claims", "Of 3 differences 0.1 would hold by chance", "correction for that 1 stand",
        "🟢 holds", "people: 3 seeds; also after Holm's", "🔴 does not hold", "🟡 undecided", "⚪ not measured",
        "### Accuracy", "81.0 ± 2.5", "### Across domains", "53.7 ± 2.5",
        "figures/accuracy.png", "figures/ranked-student-people.png", "figures/surprise.png",
        "notebooks/01_data.ipynb", "notebooks/02_experts-clip.ipynb", "notebooks/08_report.ipynb", "def456",
    ]  # fmt: skip
    places = [text.find(words) for words in wanted]
    assert -1 not in places and places == sorted(places)
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert links and all((study.folder / link).is_file() for link in links)


def test_readme_and_site_of_a_study_with_little(tmp_path):
    little = PARAMS.replace(", stands_in_for: CLIP ViT-B/16", "").replace("note", "# note")
    study = made_up(tmp_path, little)
    text = report.write_readme(study, study.folder).read_text()
    assert "claims" not in text and "stands in" not in text and "Tables" not in text and "None" not in text
    assert site(study).is_file()


MARKS = ("results.csv was edited after it was published", "params/x.yaml has changed since: student.recipe.lr was 1, is 2")


def test_marks_stand_first_on_every_page(tmp_path, built):
    study = replace(fill(tmp_path), marks=MARKS)
    late = notebook("1. A title")
    late.cells.insert(0, new_markdown_cell("Words before the title."))
    nbformat.write(late, study.folder / "notebooks" / "01_data.ipynb")
    text = report.write_readme(study, study.folder).read_text()
    title, warning, *_ = text.split("\n\n")
    assert title.startswith("# ") and warning.startswith("> ") and all(mark in warning for mark in MARKS)
    site(study)
    pages = [str(file.relative_to(study.folder / "report").with_suffix("")) for file in
             (study.folder / "report").rglob("*.html") if file.stem not in ("search", "genindex", "guide")
             and file.parent.name != "reference"]  # fmt: skip
    assert {"index", "provenance", "notebooks/01_data", "notebooks/08_report"} <= set(pages)
    for name in pages:
        box = page(study, name).select_one(".admonition.warning")
        assert all(mark in box.text for mark in MARKS), name
        above = box.find_all_previous(["p", "table", "img", "pre", "h2"])
        assert not [tag for tag in above if tag.find_parent("article")], name
    assert not page(built).select(".admonition") and "Warning" not in report.write_readme(built, built.folder).read_text()


def test_what_is_made_anew_goes_before_what_is_published_and_changes_nothing_of_it(tmp_path):
    study = fill(tmp_path)
    (study.folder / "tables" / "deployment.md").write_text("As exported.\n\n| a |\n|---|\n| 45.6 |\n")  # of no results' row
    before = {file: file.read_bytes() for file in study.folder.rglob("*") if file.is_file()}
    for part in ("tables", "figures"):
        (study.output / part).mkdir(parents=True)
    (study.output / "tables" / "main.md").write_text("Accuracy.\n\n| a |\n|---|\n| 12.3 |\n")  # no table across domains now
    (study.output / "claims.csv").write_text(CLAIMS.replace("does not hold", "holds"))
    (study.output / "figures" / "accuracy.svg").write_text(SVG.replace("rect", "circle"))
    site(study)
    soup = page(study)
    assert [number in soup.article.text for number in ("12.3", "45.6", "81.0", "53.7")] == [True, True, False, False]
    assert len(soup.select(".verdict.holds")) == 2
    shown = {file.stem: file.read_text() for file in (study.folder / "report" / "_images").glob("*.svg")}
    assert "circle" in shown["accuracy"] and {*shown} == {"accuracy", "ranked-student-people", "surprise"}
    assert {f: f.read_bytes() for f in study.folder.rglob("*") if f.is_file() and "report" not in f.parts[:-1]} == {
        file: data for file, data in before.items()
    }


@pytest.mark.parametrize("publish_images", [True, False])
def test_of_pictures_that_must_not_be_published_a_notebook_keeps_the_figures_beside_it(tmp_path, publish_images):
    """Whatever else a cell shows may be a photograph: only what is published as a figure is known to be none."""
    folder, executed = tmp_path / "results", tmp_path / "03_moe.ipynb"
    (folder / "figures").mkdir(parents=True)
    (folder / "notebooks").mkdir()
    pictures = []
    for colour in ("red", "blue"):
        Image.new("RGB", (9, 9), colour).save(buffer := io.BytesIO(), "PNG")
        pictures.append(buffer.getvalue())
    (folder / "figures" / "bars.png").write_bytes(pictures[0])
    outputs = [
        new_output("display_data", {"image/png": base64.b64encode(picture).decode(), "text/plain": "a picture"})
        for picture in pictures
    ]
    nbformat.write(new_notebook(cells=[new_code_cell("x", outputs=outputs)]), executed)
    publishing._copy_notebook(executed, folder, publish_images)
    kept = [o["data"] for o in nbformat.read(folder / "notebooks" / executed.name, as_version=4).cells[0].outputs]
    assert base64.b64decode(kept[0]["image/png"]) == pictures[0]
    assert ("image/png" in kept[1]) == publish_images and (kept[1]["text/plain"] == "a picture") == publish_images
