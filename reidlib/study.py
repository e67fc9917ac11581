"""One study's units of work: how each method is made from data, encoders, gate and teachers.

    study = open_study("params/demo.yaml")
    study.model("student+kd:moe", "vehicles", seed=0)                 trained, or found trained
    study.evaluate("moe:soft", train="vehicles", seed=0).mAP          evaluated on its own test set

Ask for anything in any order: what it depends on is made first, what is finished is found again.

Methods: pixels, expert:<name>, moe:soft | top1 | uniform | concat | router, student, student+kd:<teacher>, where a teacher
is an expert's name, "uniform" or "moe". A variant of a student adds what is different: student+kd:moe/temperature=1.
moe:top1/expert=<name> sends every picture to the one expert, whatever the gate says; it has embeddings, but no model.
A data set is a key of the params file, or several joined by "+": trained on all of them at once.
"""

import hashlib
import json
import os
import re
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from reidlib import losses, params
from reidlib.artifacts import TRAINING_CODE, Store, code_version, digest
from reidlib.data import DataError, Dataset, load, mixed, validation_split
from reidlib.data.store import decode
from reidlib.encoders import build, image_tower, weights_file
from reidlib.models import Embedder, Fusion, MixtureOfExperts, RoutedExperts, Router
from reidlib.params import TERMS, DatasetParams, DistillationParams, EncoderParams, NetworkParams, Recipe, StudyParams
from reidlib.pretraining import CaptionBatches, Pair, contrastive_loss, tokenize
from reidlib.retrieval import EmbeddingSet, Evaluation, evaluate
from reidlib.training import FeatureBatches, Machine, OnlineTeacher, PictureBatches, TeacherCache, embed, train

DRAWING_CODE = ("toydata.dataset", "toydata.scene", "toydata.draw_vehicles", "toydata.draw_people")


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
    _cache: dict = field(default_factory=dict, repr=False)

    @property
    def artifacts(self) -> Store:
        return Store(self.root / "artifacts" / self.name)

    @property
    def results(self) -> Path:
        """results/<study>/, where tables and figures go."""
        return self.root / "results" / self.name

    @property
    def machine(self) -> Machine:
        return Machine(self.params.device, self.params.precision)

    @property
    def methods(self) -> list[str]:
        """Every method of this study, baselines first."""
        return [
            "pixels",
            *(f"expert:{name}" for name in self.params.experts),
            *(f"moe:{gate}" for gate in self.params.moe.gates),
            "student",
            *(f"student+kd:{teacher}" for teacher in self.params.distillation.teachers),
        ]

    @property
    def variants(self) -> dict[str, list[str]]:
        """The ablations' methods by what they vary: terms, temperature, teacher, size."""
        wanted, base = self.params.ablations, "student+kd:moe"
        if wanted is None:
            return {}
        return {
            "terms": [f"{base}/terms={terms}" for terms in wanted.terms],
            "temperature": [f"{base}/temperature={temperature:g}" for temperature in wanted.temperatures],
            "teacher": [f"{base}/teacher=online"] * wanted.online,
            "size": [f"{method}/size={name}" for name in wanted.sizes for method in ("student", base)],
        }

    @property
    def mixed(self) -> str | None:
        """The name of all data sets at once, where the study trains on them."""
        return "+".join(self.params.datasets) if self.params.mixed else None

    # data

    def folder(self, variable: str, key: str | None, default: str) -> Path:
        """Where data or weights lie: the environment variable, else the params' key, else a folder of the project."""
        return self.root / Path(os.environ.get(variable) or key or default).expanduser()

    def dataset(self, name: str) -> Dataset:
        """The data set by its name in the params file; the built-in ones are drawn if need be. Raises DataError."""
        names = name.split("+")
        for part in names:
            if part not in self.params.datasets:
                raise DataError(f"study {self.name} has no data set '{part}'; it has {', '.join(self.params.datasets)}")
        if len(names) > 1:
            return self._once(("dataset", name), lambda: mixed({part: self.dataset(part) for part in names}))
        return self._once(("dataset", name), lambda: self._load(self.params.datasets[name]))

    def _load(self, spec: DatasetParams) -> Dataset:
        if spec.builtin is not None:
            import toydata  # here, because a study of real data needs none of it

            drawing = {"params": spec.builtin, "code": code_version(DRAWING_CODE)}
            root = toydata.write(root=self.root / "artifacts" / "drawn" / digest(drawing), **spec.builtin.model_dump())
        else:
            root = self.folder("REIDLIB_DATA", self.params.data_root, "data") / spec.root
        dataset = load(spec.layout, root)
        return validation_split(dataset, self.validation, seed=0) if self.validation else dataset

    def fingerprint(self, dataset: str) -> str:
        """What a result on this data set depends on: its files and, if any, the validation split."""
        if "+" in dataset:
            return "+".join(self.fingerprint(part) for part in dataset.split("+"))
        fingerprint = self._once(("fingerprint", dataset), lambda: self.dataset(dataset).fingerprint())
        return f"{fingerprint}-validation-{self.validation}" if self.validation else fingerprint

    def size(self, dataset: str) -> tuple[int, int]:
        """Height and width in pixels at which pictures are kept; several data sets at once have the first one's."""
        return self.params.datasets[dataset.partition("+")[0]].size

    def pixels(self, dataset: str, part: str) -> np.ndarray:
        """Decoded store of a part ("train", "query", "gallery"): uint8 [N, 3, h, w]."""
        size = self.size(dataset)
        file = f"{dataset}-{part}-{size[0]}x{size[1]}-{self.fingerprint(dataset)}.npy"
        frame = getattr(self.dataset(dataset), part)
        return self._once(("pixels", file), lambda: decode(frame, size, self.root / "artifacts" / "decoded" / file))

    def labels(self, dataset: str) -> np.ndarray:
        """Training identities numbered from 0, int64 [N]."""
        return np.unique(self.dataset(dataset).train["pid"], return_inverse=True)[1].astype(np.int64)

    def identities(self, dataset: str) -> int:
        return self.dataset(dataset).train["pid"].nunique()

    # models

    def model(self, method: str, dataset: str, seed: int) -> nn.Module:
        """The method trained on a data set, in evaluation mode: uint8 [B, 3, H, W] -> embedding [B, D]."""
        kind, _, which = method.partition(":")
        if kind == "expert":
            return self._once((method, dataset, seed), lambda: self._expert(which, dataset, seed))[0]
        if kind == "moe":
            experts = [self.model(f"expert:{name}", dataset, seed) for name in self.params.experts]
            if which == "router":
                return RoutedExperts(self.router(dataset, seed), experts, self.fusion("top1", dataset, seed)).eval()
            return MixtureOfExperts(experts, self.fusion(which, dataset, seed)).eval()
        if kind.split("/")[0] in ("student", "student+kd"):
            return self._once((method, dataset, seed), lambda: self._student(method, dataset, seed))[0]
        raise ValueError(f"'{method}' is no model; this study has {', '.join(self.methods[1:])}")

    def untrained(self, pictures: np.ndarray) -> dict[str, nn.Module]:
        """The experts, the MoE, the router and the student with random weights: enough to measure what they cost.

        pictures: uint8 [N, 3, h, w]; the router is made to choose each of two experts for half of them.
        """
        torch.manual_seed(0)
        encoders = {name: e.encoder for name, e in self.params.experts.items()} | {"student": self.params.student.encoder}
        if self.params.moe.router:
            encoders["router"] = self.params.moe.router.encoder
        first = next(iter(self.params.datasets))
        built = {n: build(e.model_copy(update={"weights": None}), e.size or self.size(first)) for n, e in encoders.items()}
        experts = [Embedder(built[name], identities=2) for name in self.params.experts]
        fusions = {g: Fusion([e.dim for e in experts], self.params.moe.width, 2, g).eval() for g in ("soft", "top1")}
        models = {f"expert:{name}": expert for name, expert in zip(self.params.experts, experts)}
        models["moe:soft"] = MixtureOfExperts(experts, fusions["soft"])
        if "router" in built:
            router = Router(built["router"], len(experts)).eval()
            with torch.inference_mode():
                scores = router(torch.from_numpy(pictures))
            router.head.bias.data[0] -= (scores[:, 0] - scores[:, 1:].amax(1)).quantile(0.5)
            models["moe:router"] = RoutedExperts(router, experts, fusions["top1"])
        models["student"] = Embedder(built["student"], identities=2)
        return {name: model.eval() for name, model in models.items()}

    def fusion(self, gate: str, dataset: str, seed: int) -> Fusion:
        """The trained gate alone, which works on the experts' embeddings."""
        return self._once((f"moe:{gate}", dataset, seed), lambda: self._fusion(gate, dataset, seed))[0]

    def router(self, dataset: str, seed: int) -> Router:
        """The trained router, which learnt from pictures what the top-1 gate chose."""
        return self._once(("moe:router", dataset, seed), lambda: self._router(dataset, seed))[0]

    def history(self, method: str, dataset: str, seed: int) -> pd.DataFrame:
        """How training went: epoch, loss and its terms."""
        if method == "moe:concat":
            raise ValueError("moe:concat has no history: nothing in it is trained")
        return pd.read_csv(self._unit(method, dataset, seed) / "history.csv")

    def origin(self, method: str, dataset: str, seed: int) -> dict | None:
        """Where and when the method's own network was trained: its made.json, with the unit's name and hash.

        None for what is not trained: pixels, moe:concat.
        """
        if method in ("pixels", "moe:concat"):
            return None
        folder = self._unit(method, dataset, seed)
        return {"unit": f"{folder.parent.name}/{folder.name}", **json.loads((folder / "made.json").read_text())}

    def _unit(self, method: str, dataset: str, seed: int) -> Path:
        """The folder of what is trained for this method alone (of a MoE: its gate)."""
        kind, _, which = method.partition(":")
        if method == "moe:router":
            self.router(dataset, seed)
        elif kind == "moe":
            method = method.partition("/")[0]
            self.fusion(which.partition("/")[0], dataset, seed)
        else:
            self.model(method, dataset, seed)
        return self._cache[method, dataset, seed][1]

    def pretraining_history(self, expert: str) -> pd.DataFrame:
        """How a miniature's pretraining went: epoch, loss."""
        self.pretrained(expert)
        return pd.read_csv(self._cache["pretrained", expert][1] / "history.csv")

    def _expert(self, name: str, dataset: str, seed: int) -> tuple[Embedder, Path]:
        if name not in self.params.experts:
            raise ValueError(f"'{name}' is no expert of this study; it has {', '.join(self.methods[1:])}")
        spec = self.params.experts[name]
        start = self._start(name, spec.encoder)
        torch.manual_seed(seed)  # after what may train another network, so that the order of requests does not matter
        model = Embedder(self._encoder(name, spec.encoder, dataset), self.identities(dataset))
        model.encoder.freeze(spec.recipe.frozen)
        batches = PictureBatches(self.pixels(dataset, "train"), self.labels(dataset), spec.recipe, seed)
        objective = partial(losses.reid_loss, recipe=spec.recipe)
        key = self._key(dataset, seed, expert=spec.model_dump(mode="json", exclude={"stands_in_for"}), start=start)
        return model, self._fit(f"expert:{name}", dataset, seed, key, model, batches, objective, spec.recipe)

    def _fusion(self, gate: str, dataset: str, seed: int) -> tuple[Fusion, Path | None]:
        spec = self.params.moe
        dims = [self.model(f"expert:{name}", dataset, seed).dim for name in self.params.experts]
        torch.manual_seed(seed)
        fusion = Fusion(dims, spec.width, self.identities(dataset), gate)
        if gate == "concat":
            return fusion.eval(), None
        features = [self._both_sides(f"expert:{name}", dataset, seed) for name in self.params.experts]
        batches = FeatureBatches(features, self.labels(dataset), spec.recipe, seed)
        balance = spec.balance.get(gate, 0.0)
        objective = partial(losses.moe_loss, recipe=spec.recipe, balance=balance)
        moe = {"gate": gate, "width": spec.width, "balance": balance, "recipe": spec.recipe}
        key = self._key(dataset, seed, moe=moe, experts=self._experts_made(dataset, seed))
        return fusion, self._fit(f"moe:{gate}", dataset, seed, key, fusion, batches, objective, spec.recipe)

    def _router(self, dataset: str, seed: int) -> tuple[Router, Path]:
        spec, experts = self.params.moe.router, self.params.experts
        fusion = self.fusion("top1", dataset, seed).cpu()
        features = [torch.from_numpy(self._both_sides(f"expert:{name}", dataset, seed)) for name in experts]
        with torch.inference_mode():
            weights = fusion.soft_weights([f.flatten(0, 1) for f in features])
        choice = weights.log().view(len(features[0]), 2, -1).numpy()
        start = self._start("router", spec.encoder)
        torch.manual_seed(seed)
        router = Router(self._encoder("router", spec.encoder, dataset), len(experts))
        router.encoder.freeze(spec.recipe.frozen)
        cache = TeacherCache(choice, choice)
        batches = PictureBatches(self.pixels(dataset, "train"), self.labels(dataset), spec.recipe, seed, cache)
        gate = self._cache["moe:top1", dataset, seed][1].name
        key = self._key(dataset, seed, router=spec, start=start, gate=gate)
        return router, self._fit("moe:router", dataset, seed, key, router, batches, losses.routing_loss, spec.recipe)

    def _student(self, method: str, dataset: str, seed: int) -> tuple[Embedder, Path]:
        spec, kd = self._varied(method)
        teacher = method.split("/")[0].partition(":")[2] or None
        recipe, says, width = spec.recipe, None, None
        key = self._key(dataset, seed, student=spec, start=self._start("student", spec.encoder))
        objective = partial(losses.reid_loss, recipe=recipe)
        if teacher is not None:
            says, width = self.teacher(teacher, dataset, seed, kd.teacher)
            objective = partial(losses.distillation_loss, recipe=recipe, kd=kd)
            key |= {"kd": kd.model_copy(update={"teachers": [teacher]}), "teacher": self._made(teacher, dataset, seed)}
        torch.manual_seed(seed)
        model = Embedder(self._encoder("student", spec.encoder, dataset), self.identities(dataset), width)
        model.encoder.freeze(recipe.frozen)
        batches = PictureBatches(self.pixels(dataset, "train"), self.labels(dataset), recipe, seed, says)
        return model, self._fit(method, dataset, seed, key, model, batches, objective, recipe)

    def _varied(self, method: str) -> tuple[NetworkParams, DistillationParams]:
        """The student and its distillation as the method's "/what=value" have them."""
        spec, kd = self.params.student, self.params.distillation
        sizes = self.params.ablations.sizes if self.params.ablations else {}
        for change in method.split("/")[1:]:
            what, _, value = change.partition("=")
            if what == "size" and value in sizes:
                spec = spec.model_copy(update={"encoder": sizes[value]})
            elif what == "terms" and set(value.split("+")) <= set(TERMS):
                kd = kd.model_copy(update=dict.fromkeys(set(TERMS) - set(value.split("+")), 0.0))
            elif what == "temperature":
                kd = kd.model_copy(update={"temperature": float(value)})
            elif what == "teacher" and value in ("cached", "online"):
                kd = kd.model_copy(update={"teacher": value})
            else:
                known = [variant for variants in self.variants.values() for variant in variants]
                raise ValueError(f"'{method}' is no variant of this study; it has {', '.join(known) or 'none'}")
        return spec, kd

    def teacher(
        self, teacher: str, dataset: str, seed: int, how: str = "cached"
    ) -> tuple[TeacherCache | OnlineTeacher, int]:
        """The teacher for PictureBatches, and the width of its embedding.

        how: "cached": its word on each training picture and its mirror image; "online": the network itself.
        """
        network = self.model({"moe": "moe:soft", "uniform": "moe:uniform"}.get(teacher, f"expert:{teacher}"), dataset, seed)
        if how == "online":
            return OnlineTeacher(network.to(self.machine.torch_device()), self.params.precision), network.dim
        names = list(self.params.experts) if teacher in ("moe", "uniform") else [teacher]
        features = [torch.from_numpy(self._both_sides(f"expert:{name}", dataset, seed)) for name in names]
        flat = [f.flatten(0, 1) for f in features]
        network = network.cpu()
        with torch.inference_mode():
            embedding = network.fusion(flat) if teacher in ("moe", "uniform") else flat[0]
            neck = network.fusion.neck if teacher in ("moe", "uniform") else network.neck
            logits = neck.classifier(embedding)
        sides = (len(features[0]), 2, -1)
        return TeacherCache(embedding.view(sides).numpy(), logits.view(sides).numpy()), network.dim

    def _fit(self, method, dataset, seed, key, model, batches, objective, recipe: Recipe) -> Path:
        label = f"{method} {dataset} seed {seed}"
        keep = recipe.model_dump(include={"epochs", "lr", "weight_decay", "warmup", "layer_decay"})
        if "+" in dataset:  # as many steps as on the first data set alone
            alone, together = (len(self.dataset(name).train) for name in (dataset.partition("+")[0], dataset))
            keep["epochs"] = max(1, round(recipe.epochs * alone / together))
        work = partial(train, batches=batches, objective=objective, seed=seed, machine=self.machine, label=label, **keep)
        folder = self.artifacts.fit(re.sub("[:/ ]", "-", label), key, model, work)
        model.eval()
        return folder

    def _encoder(self, name: str, spec: EncoderParams, dataset: str):
        size = spec.size or self.size(dataset)
        encoder = build(spec, size, self.folder("REIDLIB_WEIGHTS", self.params.weights_root, "weights"))
        if spec.miniature is not None:
            encoder.network.load_state_dict(self.pretrained(name).state_dict())
        return encoder

    def pretrained(self, expert: str) -> nn.Module:
        """The image tower of a miniature, pretrained on captioned built-in pictures."""
        return image_tower(self._once(("pretrained", expert), lambda: self._pretrain(expert))[0].model)

    def _pretrain(self, expert: str) -> tuple[Pair, Path]:
        spec, plan = self.params.experts[expert].encoder, self.params.pretraining
        pixels, captions = self.captions(spec.size)
        tokens, vocabulary = tokenize(captions)
        torch.manual_seed(plan.seed)
        pair = Pair(spec, spec.size, vocabulary, tokens.shape[1])
        batches = CaptionBatches(pixels, tokens, plan)
        code = {"code": code_version((*TRAINING_CODE, "pretraining")), "drawing": code_version(DRAWING_CODE)}
        key = {"encoder": spec, "plan": plan, **code}
        work = partial(
            train, batches=batches, objective=contrastive_loss, epochs=plan.epochs, lr=plan.lr,
            weight_decay=plan.weight_decay, seed=plan.seed, machine=self.machine, label=f"pretrain {expert}",
        )  # fmt: skip
        return pair, self.artifacts.fit(f"pretrained-{expert}", key, pair, work)

    def captions(self, size: tuple[int, int]) -> tuple[np.ndarray, list[str]]:
        """The pretraining pictures uint8 [N, 3, h, w] and their captions."""
        plan = self.params.pretraining
        domains = sorted({d.builtin.domain for d in self.params.datasets.values() if d.builtin})
        key = {"domains": domains, "pictures": plan.pictures, "size": size, "seed": plan.seed}

        def draw() -> dict[str, np.ndarray]:
            import toydata

            pixels, captions = toydata.captioned(domains, plan.pictures, size, plan.seed)
            return {"pixels": pixels, "captions": np.frombuffer("\n".join(captions).encode(), np.uint8)}

        arrays = self.artifacts.arrays("captioned", key | {"code": code_version(DRAWING_CODE)}, draw)
        return arrays["pixels"], arrays["captions"].tobytes().decode().split("\n")

    # keys: what a unit depends on

    def _key(self, dataset: str, seed: int, **own) -> dict:
        return {
            "data": self.fingerprint(dataset), "size": self.size(dataset), "seed": seed,
            "precision": self.params.precision, "code": code_version(), **own,
        }  # fmt: skip

    def _start(self, name: str, spec: EncoderParams):
        """What the weights an encoder starts from depend on."""
        if spec.miniature is not None:
            self.pretrained(name)
            return self._cache["pretrained", name][1].name
        file = weights_file(spec, self.folder("REIDLIB_WEIGHTS", self.params.weights_root, "weights"))
        return hashlib.sha256(file.read_bytes()).hexdigest() if file else spec.weights

    def _made(self, teacher: str, dataset: str, seed: int) -> list[str]:
        """The folders' hashes of a teacher's parts."""
        if teacher not in ("moe", "uniform"):
            self.model(f"expert:{teacher}", dataset, seed)
            return [self._cache[f"expert:{teacher}", dataset, seed][1].name]
        gate = "soft" if teacher == "moe" else "uniform"
        self.fusion(gate, dataset, seed)
        return [self._cache[f"moe:{gate}", dataset, seed][1].name]

    def _experts_made(self, dataset: str, seed: int) -> list[str]:
        return [part for name in self.params.experts for part in self._made(name, dataset, seed)]

    def _once(self, key, make):
        if key not in self._cache:
            self._cache[key] = make()
        return self._cache[key]

    # embeddings and evaluation

    def embeddings(self, method: str, train: str, seed: int, test: str | None = None, part: str = "query",
                   mirrored: bool = False) -> np.ndarray:  # fmt: skip
        """Embeddings float32 [N, D] of a part of `test` (default: `train`) by the method trained on `train`."""
        test = test or train
        if method == "pixels":
            pixels = torch.from_numpy(np.array(self.pixels(test, part))).float()
            small = torch.nn.functional.interpolate(pixels, (16, 16), mode="area")
            return small.flatten(1).numpy()
        kind, _, which = method.partition(":")
        if kind == "moe":
            names = self.params.experts
            parts = [self.embeddings(f"expert:{n}", train, seed, test, part, mirrored) for n in names]
            parts = [torch.from_numpy(x) for x in parts]
            gate, _, expert = which.partition("/expert=")
            fusion = self.fusion("top1" if gate == "router" else gate, train, seed).cpu()
            if expert:
                if expert not in names:
                    raise ValueError(f"'{method}': '{expert}' is no expert of this study; it has {', '.join(names)}")
                place = list(names).index(expert)
                with torch.inference_mode():
                    return fusion.alone(place, parts[place]).numpy()
            if gate == "router":
                choice = self._embedded(self.router(train, seed), method, train, seed, test, part, mirrored).argmax(1)
                with torch.inference_mode():
                    alone = np.stack([fusion.alone(i, x).numpy() for i, x in enumerate(parts)])
                return alone[choice, np.arange(len(choice))]
            with torch.inference_mode():
                return fusion(parts).numpy()
        return self._embedded(self.model(method, train, seed), method, train, seed, test, part, mirrored)

    def _embedded(self, model: nn.Module, method: str, train: str, seed: int, test: str, part: str, mirrored: bool):
        """What the trained `model` gives for a part of `test`, computed once: float32 [N, D]."""
        pixels, unit = self.pixels(test, part), self._cache[method, train, seed][1]
        key = {"model": unit.name, "data": self.fingerprint(test), "part": part, "mirrored": mirrored,
               "size": self.size(test)}  # fmt: skip
        name = f"embeddings/{unit.parent.name}"
        return self.artifacts.arrays(
            name, key, lambda: {"embeddings": embed(model, pixels, self.machine, mirrored=mirrored)}
        )["embeddings"]

    def _both_sides(self, method: str, dataset: str, seed: int) -> np.ndarray:
        """Embeddings of the training pictures and their mirror images, float32 [N, 2, D]."""
        return np.stack([self.embeddings(method, dataset, seed, part="train", mirrored=m) for m in (False, True)], axis=1)

    def embedding_set(self, method: str, train: str, seed: int, test: str | None, part: str) -> EmbeddingSet:
        """Embeddings [N, D] of a part ("train", "query", "gallery") with their identities and cameras."""
        frame = getattr(self.dataset(test or train), part)
        features = self.embeddings(method, train, seed, test, part)
        return EmbeddingSet(features, frame["pid"].to_numpy(), frame["camid"].to_numpy())

    def evaluate(self, method: str, train: str, seed: int, test: str | None = None) -> Evaluation:
        """The method trained on `train`, evaluated on `test` (default: `train`) by the Market-1501 protocol."""
        query, gallery = (self.embedding_set(method, train, seed, test, part) for part in ("query", "gallery"))
        return evaluate(query, gallery)

    def gate_weights(self, gate: str, dataset: str, seed: int) -> pd.DataFrame:
        """The gate's weights for the gallery: its columns (path, pid, camid, type, ...) and one for each expert."""
        parts = [self.embeddings(f"expert:{n}", dataset, seed, part="gallery") for n in self.params.experts]
        fusion = self.fusion(gate, dataset, seed).cpu()
        with torch.inference_mode():
            weights = fusion.weights([torch.from_numpy(x) for x in parts]).numpy()
        frame = self.dataset(dataset).gallery.reset_index(drop=True)
        return frame.join(pd.DataFrame(weights, columns=list(self.params.experts)))

    # before a run

    def check(self) -> list[str]:
        """Everything that is missing to run this study, before time is spent; empty when it can run."""
        problems = []
        for name in self.params.datasets:
            try:
                self.dataset(name)
            except (DataError, ValueError) as error:
                problems.append(f"data set '{name}': {error}")
        first = next(iter(self.params.datasets))
        encoders = {name: e.encoder for name, e in self.params.experts.items()} | {"student": self.params.student.encoder}
        for name, spec in encoders.items():
            try:
                build(spec, spec.size or self.params.datasets[first].size,
                      self.folder("REIDLIB_WEIGHTS", self.params.weights_root, "weights"))  # fmt: skip
            except (RuntimeError, ValueError) as error:
                problems.append(f"{name}: {error}")
        return problems


def open_study(study: str | Path = "auto", overrides: list[str] = (), validation: float = 0.0) -> Study:
    """Open the study of a params file.

    Args:
        study: a params file, looked for in the working directory and the folders above it; "auto" is params/demo.yaml
            where `make study` has run it on this machine, else params/smoke.yaml, which takes minutes from nothing.
        overrides, validation: see `params.load` and `Study`.
    """
    if study == "auto":
        demo = params.find("params/demo.yaml")
        done = (demo.parent.parent / "artifacts" / "demo" / "finished").exists()
        study = demo if done else demo.with_name("smoke.yaml")
        print(f"Study: {study.stem}" + ("" if done else " (run `make study` once to see demo here)"))
    path = params.find(study)
    return Study(path.stem, params.load(path, overrides), path.parent.parent, validation)
