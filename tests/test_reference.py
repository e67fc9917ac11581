"""The pages for whoever builds on the project."""

from pathlib import Path

from publishing.reference import guide, reference

ROOT = Path(__file__).parents[1]
MODULE = '''
"""A module. What it is for.

    example(1)

And more.
"""
TABLE = {}


class _Hidden: ...


@decorated(1)
class Shown(Base):
    """What it is.

    x: a number.
    """

    x: int = 0  # metres
    y: float

    def act(self, by: float = 1.0) -> None:
        """It acts."""
        return None

    def _quietly(self): ...


def bare(a, *b, **c): ...


def _helper(): ...
'''


def test_a_modules_page_has_what_is_public_with_signature_docstring_and_fields(tmp_path):
    package = tmp_path / "lib"
    (package / "part").mkdir(parents=True)
    for name in ("one", "_two", "part/inner"):
        (package / f"{name}.py").write_text(MODULE)
    (package / "part/__init__.py").write_text('"""A package."""')
    pages = reference(package)
    assert list(pages) == ["one", "part"]
    assert pages["part"].startswith("# lib.part\n\nA package.\n\n## part.inner\n\nA module.")
    assert pages["one"] == (
        "# lib.one\n\nA module. What it is for.\n\n````text\n    example(1)\n````\n\nAnd more.\n\n"
        '````python\n@decorated(1)\nclass Shown(Base)\n    """What it is.\n\n    x: a number."""\n\n'
        '    x: int = 0  # metres\n    y: float\n\n    def act(self, by: float=1.0) -> None\n        """It acts."""\n````\n\n'
        "````python\ndef bare(a, *b, **c)\n````"
    )


def test_the_projects_own_modules_all_have_a_page_and_say_what_they_are():
    pages = reference(ROOT / "reidlib")
    assert {"study", "retrieval", "losses", "gallery", "units"} <= set(pages)
    assert "def evaluate(query: EmbeddingSet, gallery: EmbeddingSet" in pages["retrieval"]
    assert [name for name, text in pages.items() if not text.partition("\n")[2].strip()[:1].isalnum()] == []


def test_how_tos_are_readmes_without_links_into_the_project(tmp_path):
    file = tmp_path / "README.md"
    file.write_text("# T\n\n## What it shows\n\nno\n\n## Two commands\n\n[a](results/x.md), [b](https://c.org), `make`\n")
    assert guide(file) == "# How to\n\n## Two commands\n\na, [b](https://c.org), `make`\n"
    assert "## Changing something" in guide(ROOT / "README.md") and "](results" not in guide(ROOT / "README.md")
