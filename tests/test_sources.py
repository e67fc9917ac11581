"""Which code a hash counts, and which it doesn't; files that are edited while a process runs; plugins."""

import ast
import subprocess
import sys
import textwrap
from functools import partial
from pathlib import Path

import pytest

from reidlib import making, measuring, sources
from reidlib.data.store import decode
from reidlib.losses import TERMS
from reidlib.sources import PROJECT, load_plugin, reached

CODE = '''
"""A module."""
def double(x: int, *, times=2) -> int:
    """Twice x."""
    # as it says
    text: str = ""
    if x is None:
        raise ValueError(f"no {x}") from None
    return 2 * x
'''


def code_hash(text):
    return sources._hash(ast.parse(text))


@pytest.mark.parametrize(
    "old, new, same",
    [
        ("A module", "The module", True),
        ("Twice x", "Two x", True),
        ("    # as it says\n", "", True),
        ("2 * x", "(2  *  x)", True),
        ("x: int", "x: float", True),
        (" -> int", "", True),
        ("text: str", "text: bytes", True),
        ('f"no {x}"', '"give a number"', True),
        ("ValueError", "TypeError", False),
        ('"""Twice x."""', "pass", False),
        ("2 * x", "3 * x", False),
        ("times=2", "times=3", False),
        ("return 2 * x", 'return "2 * x"', False),
        ('str = ""', 'str = "a"', False),
    ],
)
def test_what_computes_counts_and_words_and_layout_do_not(old, new, same):
    assert CODE.count(old) == 1
    assert (code_hash(CODE.replace(old, new)) == code_hash(CODE)) is same


def test_a_hash_is_the_same_where_python_adds_an_empty_field_to_its_trees(monkeypatch):
    before = code_hash(CODE)
    monkeypatch.setattr(ast.FunctionDef, "_fields", (*ast.FunctionDef._fields, "type_params", "new_in_python_4"))
    monkeypatch.setattr(ast.FunctionDef, "new_in_python_4", None, raising=False)
    assert code_hash(CODE) == before


def test_the_code_of_a_unit_is_what_its_function_leads_to():
    code = reached(making.make_taught)
    for name in ("losses.distillation.distillation_loss", "losses.reid.triplet_loss", "data.batches.identity_batches",
                 "encoders.build", "models.Embedder", "neck.Neck", "processes.average_gradients"):  # fmt: skip
        assert f"reidlib.{name}" in code
    modules = {".".join(name.partition(":")[0].split(".")[:2]) for name in code}
    unused = {"figures", "results", "gathering", "tables", "retrieval", "profiling", "study", "plan", "stats", "params"}
    assert not modules & {f"reidlib.{name}" for name in unused}
    assert "reidlib.losses.distillation.embedding" not in code, "the terms used are named by the unit, one by one"


def test_each_maker_leads_only_to_the_losses_it_minimises():
    terms = {
        make: {name.removeprefix("reidlib.losses.") for name in reached(make) if name.startswith("reidlib.losses.")}
        for make in (making.make_embedder, making.make_gate, making.make_pretrained, measuring.make_embeddings)
    }
    assert "reid.reid_loss" in terms[making.make_embedder] and "gating.moe_loss" in terms[making.make_gate]
    assert not {"gating.moe_loss", "distillation.distillation_loss"} & terms[making.make_embedder]
    assert not terms[measuring.make_embeddings] - {"reid.Target"}
    assert not {"reid.triplet_loss"} & terms[making.make_pretrained]


@pytest.mark.parametrize("change, reaches", [("BICUBIC", True), ("No images to decode into", False)])
def test_a_resize_filter_is_code_of_the_decoded_store_and_a_message_is_not(edited, change, reaches):
    before = reached(making.make_pixels)
    edited("reidlib.data.store", change, "BILINEAR")
    assert (reached(making.make_pixels) != before) is reaches


def test_what_runs_at_a_modules_import_counts_for_all_of_it(edited):
    before = reached(making.make_pixels)
    edited("reidlib.data.store", "CHUNK = 32", "Image.MAX_IMAGE_PIXELS = 1\nif True:\n    Image.init()\nCHUNK = 32")
    added = set(reached(making.make_pixels)) - set(before)
    assert "reidlib.data.store:0" in added
    assert not added & set(reached(measuring.make_raw))


def test_a_name_that_is_given_twice_counts_with_both(edited):
    edited("reidlib.data.store", "CHUNK = 32", "CHUNK = 16\nCHUNK = 2 * CHUNK")
    before = reached(decode)["reidlib.data.store.CHUNK"]
    edited("reidlib.data.store", "CHUNK = 16", "CHUNK = 17")
    assert reached(decode)["reidlib.data.store.CHUNK"] != before


def test_a_function_from_outside_counts_with_all_of_its_file(tmp_path, monkeypatch):
    file, found = tmp_path / "elsewhere.py", []
    monkeypatch.syspath_prepend(tmp_path)
    for factor in (1, 2):
        file.write_text(
            f"from reidlib.data.store import gather\nfactor = {factor}\n\ndef f(x):\n    return factor * gather(x)\n"
        )
        sys.modules.pop("elsewhere", None)
        import elsewhere

        sources._reached.cache_clear()
        found.append(reached(elsewhere.f))
    assert found[0]["elsewhere.f"] != found[1]["elsewhere.f"] and "reidlib.data.store.gather" in found[0]


# plugins


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """plugin("mine.py", text) loads a plugin and gives its module; afterwards it is forgotten."""
    monkeypatch.setattr(sources, "_TEXTS", dict(sources._TEXTS))
    monkeypatch.setattr(sources, "_PLUGINS", {})
    before = set(sys.modules)

    def load(name, text):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(textwrap.dedent(text))
        load_plugin(file)
        return sys.modules[next(module for module, path in sources._PLUGINS.items() if path == file)]

    yield load
    for name in set(sys.modules) - before:
        if name.startswith("plugin_"):
            del sys.modules[name]
    for cached in (sources._reached, sources._module, sources._definition):
        cached.cache_clear()


def test_a_plugins_function_is_followed_like_reidlibs(plugin):
    mine = plugin(
        "mine.py",
        """
        from reidlib.data.store import gather
        SCALE = 2
        def used(x): return SCALE * x
        def unused(x): return x
        def term(x): return gather(used(x))
    """,
    )
    assert {"plugin_mine.term", "plugin_mine.used", "plugin_mine.SCALE", "reidlib.data.store.gather"} <= set(
        reached(mine.term)
    )
    assert "plugin_mine.unused" not in reached(mine.term)


def test_two_plugins_of_one_name_are_two(plugin):
    one, other = plugin("a/mine.py", "def term(x): return 1"), plugin("b/mine.py", "def term(x): return 2")
    assert one.term(0) == 1 and other.term(0) == 2
    assert set(reached(one.term).values()) != set(reached(other.term).values())


def test_a_plugins_lambda_counts_with_all_of_the_file(plugin):
    one, other = plugin("a.py", "term = lambda x: 1"), plugin("b.py", "term = lambda x: 2")
    assert set(reached(one.term).values()) != set(reached(other.term).values())


def test_a_callable_whose_code_can_not_be_told_is_refused():
    with pytest.raises(TypeError, match="no function or class"):
        reached(partial(TERMS["logit"], kd=None))


def test_a_plugin_that_can_not_run_is_named(plugin, tmp_path):
    with pytest.raises(RuntimeError, match=r"bad\.py: ZeroDivisionError"):
        plugin("bad.py", "1 / 0")
    with pytest.raises(RuntimeError, match=r"none\.py: FileNotFoundError"):
        load_plugin(tmp_path / "none.py")
    assert "plugin_bad" not in sys.modules and "plugin_bad" not in sources._TEXTS


def test_an_edited_plugin_is_named(plugin, capsys):
    mine = plugin("mine.py", "def term(x): return 1")
    Path(mine.__file__).write_text("def term(x): return 2")
    assert sources.edited() == {"plugin_mine": mine.__file__}
    sources.refuse_edited(reached(mine.term))
    assert f"{mine.__file__} was edited" in capsys.readouterr().err


# a process that runs on while its code is edited

LIVE = """
from pathlib import Path
from reidlib import sources
import reidlib.data.store as store
assert Path(sources.__file__).is_relative_to(Path.cwd()), sources.__file__
before = sources.reached(store.read_image)
def edit(file):
    Path(file).write_text(Path(file).read_text().replace("return ", "return  0 or "))
edit("reidlib/data/store.py")
print(sources.edited())
assert sources.reached(store.read_image) == before, "the running code's hash"
sources.refuse_edited(before)
sources.refuse_edited(sources.reached(sources._hash))
edit("reidlib/pretraining.py")
sources.refuse_edited(before)
try:
    sources.refuse_edited({"reidlib.pretraining.Pair": ""})
except RuntimeError as error:
    print(error)
"""


def test_a_live_process_warns_of_edited_code_that_it_runs_and_refuses_what_it_has_not_loaded(tmp_path):
    for file in PROJECT.glob("reidlib/**/*.py"):
        copied = tmp_path / file.relative_to(PROJECT)
        copied.parent.mkdir(parents=True, exist_ok=True)
        copied.write_bytes(file.read_bytes())
    done = subprocess.run(
        [sys.executable, "-c", LIVE], cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "{'reidlib.data.store': 'reidlib/data/store.py'}" in done.stdout
    assert "reidlib/pretraining.py was edited since this process started, and is not loaded yet: restart" in done.stdout
    assert done.stderr.count("reidlib/data/store.py was edited") == 2 and "pretraining" not in done.stderr
