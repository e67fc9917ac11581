"""The face of a study: open one, ask it for data, a model, embeddings, an evaluation, its state.

    study = open_study("params/demo.yaml")
    study.model("student+kd:moe", "vehicles", seed=0)                 trained, or found trained
    study.evaluate("moe:soft", train="vehicles", seed=0).mAP          evaluated on its own test set

Ask for anything in any order: what it depends on is made first, what is finished is found again. Methods are written as in
`reidlib.methods`. A data set is a key of the params file, or several joined by "+": trained on all of them at once.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from reidlib import agenda, making, measuring, memory, miniatures, params
from reidlib.catalog import Catalog
from reidlib.content import output_folder
from reidlib.data import Dataset
from reidlib.data.layouts import LAYOUTS
from reidlib.gates import GATES
from reidlib.losses import TERMS
from reidlib.methods import Method, Moe, Start, parse
from reidlib.params import Recipe, StudyParams
from reidlib.plan import Plan
from reidlib.retrieval import EmbeddingSet, Evaluation
from reidlib.sources import PROJECT, load_plugin
from reidlib.training import Machine
from reidlib.units import Store, Unit

RESERVED = ("units", "drawn")  # folders below artifacts/ that are all studies'


@dataclass(frozen=True)
class Study:
    """A params file and what comes of it. `root` is the project's folder; everything made lies below it.

    `validation` holds out this share of the training identities and evaluates on them instead of the test set: the way
    hyper-parameters are chosen. 0 means the test set.
    """

    name: str
    params: StudyParams
    root: Path
    validation: float = 0.0

    @cached_property
    def plan(self) -> Plan:
        """The study's units of work."""
        return Plan(self.params, Catalog(self.params, self.root, self.validation), self.root)

    @cached_property
    def store(self) -> Store:
        name = f"{self.name}-validation" if self.validation else self.name
        return Store(self.root / "artifacts", name, self.params.threads, self.params.tracker)

    @property
    def machine(self) -> Machine:
        return self.plan.machine

    @property
    def output(self) -> Path:
        """Where figures and tables go: a folder of its own while `make study` runs, else artifacts/<study>/explored."""
        return output_folder(self.root, self.name)

    @property
    def validation_file(self) -> Path:
        """What was tried on held-out training identities before the params were as they are, see scripts/validate.py."""
        return self.root / "params" / f"{self.name}.validation.csv"

    @property
    def methods(self) -> list[str]:
        """Every method of this study, baselines first."""
        return agenda.methods(self.params)

    @property
    def variants(self) -> dict[str, list[str]]:
        """The ablations' methods by what they vary: terms, temperature, teacher, size."""
        return agenda.variants(self.params)

    # data

    def dataset(self, name: str) -> Dataset:
        """The data set by its name in the params file; the built-in ones are drawn if need be. Raises DataError."""
        return self.plan.data.dataset(name)

    def pixels(self, dataset: str, part: str) -> np.ndarray:
        """Decoded pictures of a part ("train", "query", "gallery"): uint8 [N, 3, h, w]."""
        return making.load_pixels(self.plan.pixels(dataset, part), self.store)

    def captions(self, size: tuple[int, int]) -> tuple[np.ndarray, list[str]]:
        """The pretraining pictures uint8 [N, 3, h, w] and their captions."""
        return making.load_captioned(miniatures.captioned(self.plan, size), self.store)

    # networks

    def model(self, method: str | Method, dataset: str, seed: int) -> nn.Module:
        """The method trained on a data set, in evaluation mode: uint8 [B, 3, H, W] -> embedding [B, D].

        Each call gives a network of its own, on the CPU: move it where you like. Raises ValueError where the method has
        none.
        """
        method = parse(method)
        if method.kind in ("pixels", "peer") or (isinstance(method, Moe) and method.expert):
            raise ValueError(f"'{method}' is no model; ask for its embeddings")

        def network(of: Method) -> Unit | None:
            return self.plan.start(of, dataset) if isinstance(of, Start) else self.plan.network(of, dataset, seed)

        return making.load_method(method, network, list(self.params.experts), self.store)

    def history(self, method: str | Method, dataset: str, seed: int) -> pd.DataFrame:
        """How training went: epoch, loss and its terms. Raises ValueError where nothing is trained."""
        unit = self.plan.network(method, dataset, seed)
        if unit is None:
            raise ValueError(f"{method} has no history: nothing in it is trained")
        return pd.read_csv(self.store.make(unit) / "history.csv")

    def recipe(self, method: str | Method, dataset: str, seed: int) -> Recipe:
        """How a network is trained there: for more or fewer epochs than the params say where they count another data set's."""
        return self.plan.training(method, dataset, seed).inputs["recipe"]

    def pretraining_history(self, expert: str) -> pd.DataFrame:
        """How a miniature's pretraining went: epoch, loss."""
        return pd.read_csv(self.store.make(miniatures.pretrained(self.plan, expert)) / "history.csv")

    # embeddings and evaluation

    def embeddings(
        self, method: str | Method, train: str, seed: int, test: str | None = None, part: str = "query"
    ) -> np.ndarray:
        """Embeddings float32 [N, D] of a part of `test` (default: `train`) by the method trained on `train`, as it is tested."""
        return self.store.arrays(self.plan.tested(method, train, seed, test or train, part))["embeddings"]

    def embedding_set(self, method: str | Method, train: str, seed: int, test: str | None, part: str) -> EmbeddingSet:
        """Embeddings [N, D] of a part ("train", "query", "gallery") with their identities and cameras."""
        frame = self.plan.data.frame(test or train, part)
        features = self.embeddings(method, train, seed, test, part)
        return EmbeddingSet(features, frame["pid"].to_numpy(), frame["camid"].to_numpy())

    def evaluate(self, method: str | Method, train: str, seed: int, test: str | None = None) -> Evaluation:
        """The method trained on `train`, evaluated on `test` (default: `train`) by the Market-1501 protocol."""
        arrays = self.store.arrays(self.plan.evaluation(method, train, test or train, seed))
        return Evaluation(**arrays | {name: float(arrays[name][0]) for name in ("mAP", "mINP")})

    def gate_weights(
        self, gate: str, train: str, seed: int, test: str | None = None, part: str = "gallery"
    ) -> pd.DataFrame:
        """The weights that the gate trained on `train` gives to the pictures of a part of `test` (default: `train`): the
        part's columns (path, pid, camid, type, ...) and one for each expert.

        Raises ValueError for what has no weights of its own: the router, which sees pictures, and what isn't trained.
        """
        unit = self.plan.embeddings(Moe(gate=gate), train, seed, test or train, part)
        if gate == "router" or "gate" not in unit.parents:
            raise ValueError(f"moe:{gate} has no weights by embeddings; a trained gate has, such as soft")
        parts = [torch.from_numpy(x) for x in measuring.expert_embeddings(unit, self.store)]
        with torch.inference_mode():
            weights = making.load_gate(unit.parents["gate"], self.store).weights(parts).numpy()
        frame = self.plan.data.frame(test or train, part).reset_index(drop=True)
        return frame.join(pd.DataFrame(weights, columns=list(self.params.experts)))

    def costs(self, configuration: str = "") -> pd.DataFrame:
        """What networks cost at inference, measured once: columns method, metric, value, spread, see `profiling.profile`.

        configuration: "" for this study's networks, "paper" for those of params/paper.yaml with random weights.
        """
        folder = self.store.make(self.plan.costs(configuration))
        return pd.read_csv(folder / "costs.csv", converters={"value": float})  # pandas' own parser may round

    def state(self) -> pd.DataFrame:
        """Each unit of work: columns unit, kind, state (finished, half done, stale, missing), why."""
        rows = [(unit.label, unit.kind, *self.store.state(unit)) for unit in self.plan.units().values()]
        return pd.DataFrame(rows, columns=["unit", "kind", "state", "why"])


def open_study(study: str | Path = "auto", overrides: list[str] = (), validation: float = 0.0) -> Study:
    """Open the study of a params file, with the layouts, gates and terms that its plugins add.

    study: a params file, looked for in the working directory and the folders above it; "auto" is params/demo.yaml where
    `make study` has run it on this machine, else params/smoke.yaml, which takes minutes from nothing. overrides: see
    `params.load`, which also says what is raised.
    """
    memory.keep_freed()
    if study == "auto":
        demo = params.find("params/demo.yaml")
        done = (demo.parent.parent / "artifacts" / "demo" / "published").exists()
        study = demo if done else demo.with_name("smoke.yaml")
        print(f"Study: {study.stem}" + ("" if done else " (run `make study` once to see demo here)"))
    path = params.find(study)
    if path.stem in RESERVED:
        raise params.ParamsError(f"{path}: artifacts/{path.stem} is taken, so no study can be called so; rename the file")
    read = params.load(path, overrides)
    for plugin in read.plugins:
        load_plugin(path.parent / plugin)
    params.check_names(read, path, LAYOUTS, GATES, TERMS)
    # a params file in another place than a project's params/ is one for this project
    root = path.parent.parent if path.parent.name == "params" else PROJECT
    return Study(path.stem, read, root, validation)
