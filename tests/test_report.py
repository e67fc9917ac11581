import json
import re
from types import SimpleNamespace

import nbformat
import pytest
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

from reidlib import params, report

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
distillation: {{teachers: [moe]}}
"""
CLAIMS = """claim,paper,measured,low,high,verdict,basis
The student learns | and wins,more,4.1,2.0,6.2,holds,"people, 3 seeds"
The mixture wins,more,-0.3,-1.0,0.4,does not hold,"people, 3 seeds"
75.2 % mAP on VeRi-776,75.2 %,,,,not measured,VeRi-776 was not run
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


def fill(folder) -> SimpleNamespace:
    """A study whose results/<study>/ holds one of everything."""
    for below in ("tables", "figures", "notebooks"):
        (folder / "results" / "made_up" / below).mkdir(parents=True)
    (folder / "made_up.yaml").write_text(PARAMS)
    study = SimpleNamespace(params=params.load(folder / "made_up.yaml"), results=folder / "results" / "made_up")
    wide = " | ".join(f"column {i}" for i in range(30))
    table = f"Accuracy, percent. {NOTE}\n\n| | {wide} |\n|:--|{'--|' * 30}\n| Student |{' 81.0 ± 2.5 |' * 30}\n"
    (study.results / "tables" / "main.md").write_text(table)
    (study.results / "tables" / "cross_domain.md").write_text(table.replace("81.0", "53.7"))
    for name in ("accuracy", "ranked-student-people", "surprise"):
        Image.new("RGB", (20, 10)).save(study.results / "figures" / f"{name}.png")
        (study.results / "figures" / f"{name}.svg").write_text(SVG)
    for name in ("02_experts-clip", "01_data", "08_report"):
        nbformat.write(notebook(f"{int(name[:2])}. Title"), study.results / "notebooks" / f"{name}.ipynb")
    (study.results / "claims.csv").write_text(CLAIMS)
    units = {f"expert:clip|people|{seed}": {"seconds": 12.345678 + seed, "environment": 0} for seed in range(3)}
    environments = {"0": {"commit": "abc123", "uncommitted changes": False, "packages": {"torch": "2.15.0"}}}
    record = {"study": "made_up", "params": "def456", "seeds": [0, 1], "environments": environments, "units": units}
    (study.results / "provenance.json").write_text(json.dumps(record))
    return study


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> SimpleNamespace:
    study = fill(tmp_path_factory.mktemp("report"))
    assert report.write_site(study) == study.results / "report" / "index.html"
    return study


def page(study, name: str = "index") -> BeautifulSoup:
    return BeautifulSoup((study.results / "report" / f"{name}.html").read_text(), "html.parser")


def test_nothing_is_loaded_from_elsewhere_and_all_that_is_loaded_exists(built):
    site, loaded = built.results / "report", []
    for file in site.rglob("*.html"):
        soup = BeautifulSoup(file.read_text(), "html.parser")
        tags = soup.select("[src], link[href], object[data], image[href], use[href], [srcset], [poster]")
        keys = ("src", "href", "data", "srcset", "poster")
        loaded += [(file.parent, tag[key]) for tag in tags for key in keys if key in tag.attrs]
        loaded += [(file.parent, url) for style in soup.find_all("style") for url in urls(style.text)]
    for file in site.rglob("*.css"):
        loaded += [(file.parent, url) for url in urls(file.read_text())]
    for file in site.rglob("*.js"):
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
                        ("not measured", ["verdict", "not-measured"])]  # fmt: skip
    text = soup.article.text
    for words in ("The student learns | and wins", "4.10 (2.00 to 6.20)", "−0.30", "81.0 ± 2.5", "53.7 ± 2.5"):
        assert words in text
    assert text.count(NOTE) == 1
    assert "CLIP ViT-B/16" in text and "test_byobnet" not in text
    assert len(soup.article.find_all("img")) == 3
    # a wide table lies in a box of its own, which scrolls
    assert all("table-wrapper" in table.parent["class"] for table in soup.article.find_all("table"))


def test_notebooks_show_what_they_found_and_no_noise(built):
    menu = [link.text for link in page(built).select(".sidebar-tree a")]
    assert menu == ["1. Title", "2. Title: clip", "8. Title", "Where it comes from"]
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
    report.write_site(study)
    for file, old, new in [("tables/main.md", "81.0", "82.9"), ("claims.csv", ",holds,", ",does not hold,")]:
        path = study.results / file
        path.write_text(path.read_text().replace(old, new))
    (study.results / "notebooks" / "01_data.ipynb").unlink()
    report.write_site(study)
    soup = page(study)
    assert "82.9 ± 2.5" in soup.text and "81.0 ± 2.5" not in soup.text
    assert soup.select(".verdict.holds") == [] and len(soup.select(".verdict.does-not-hold")) == 2
    assert not (study.results / "report" / "notebooks" / "01_data.html").exists()


@pytest.mark.parametrize("bad, said", [("$\\nonsense$", "nonsense"), ("[there](nowhere.md)", "nowhere.md")])
def test_a_bad_page_is_told_and_the_former_site_stays(tmp_path, capfd, bad, said):
    study = fill(tmp_path)
    former = study.results / "report" / "index.html"
    former.parent.mkdir()
    former.write_text("the former site")
    cells = [new_markdown_cell(f"# 3. Bad\n\n{bad}")]
    nbformat.write(new_notebook(cells=cells), study.results / "notebooks" / "03_bad.ipynb")
    with pytest.raises(RuntimeError, match="not rebuilt"):
        report.write_site(study)
    told = capfd.readouterr().err
    assert said in told and "03_bad" in told
    assert former.read_text() == "the former site"


def test_readme_lists_what_exists(tmp_path):
    study = fill(tmp_path)
    text = report.write_readme(study).read_text()
    wanted = [
        "# A study of 100 % made-up numbers", NOTE, "CLIP ViT-B/16",
        "## The paper's claims", "🟢 holds", "🔴 does not hold", "⚪ not measured",
        "### Accuracy", "81.0 ± 2.5", "### Across domains", "53.7 ± 2.5",
        "figures/accuracy.png", "figures/ranked-student-people.png", "figures/surprise.png",
        "notebooks/01_data.ipynb", "notebooks/02_experts-clip.ipynb", "def456",
    ]  # fmt: skip
    places = [text.find(words) for words in wanted]
    assert -1 not in places and places == sorted(places)
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert links and all((study.results / link).is_file() for link in links)
    assert "08_report" not in text  # that notebook writes this page before its own copy is there


def test_readme_and_site_of_a_study_with_little(tmp_path):
    little = PARAMS.replace(", stands_in_for: CLIP ViT-B/16", "").replace("note", "# note")
    (tmp_path / "made_up.yaml").write_text(little)
    study = SimpleNamespace(params=params.load(tmp_path / "made_up.yaml"), results=tmp_path / "results")
    study.results.mkdir()
    text = report.write_readme(study).read_text()
    assert "claims" not in text and "stands in" not in text and "Tables" not in text and "None" not in text
    assert report.write_site(study).is_file()
