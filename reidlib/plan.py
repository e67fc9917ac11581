"""Which units of work a study has, and what each depends on: from params, data and seeds to units, nothing made.

Ask for any: the units that it is made from come as its parents.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path

import numpy as np

from reidlib import agenda, costing, making, measuring, miniatures
from reidlib.catalog import Catalog, folder
from reidlib.content import digest
from reidlib.data.batches import identity_batches
from reidlib.data.hashes import file_hashes
from reidlib.encoders import builder
from reidlib.gates import GATES
from reidlib.losses import TERMS
from reidlib.methods import Expert, Method, Moe, Peer, Pixels, Start, Student, parse, teacher
from reidlib.params import NetworkParams, Recipe, StudyParams
from reidlib.peers import peer_files
from reidlib.shipped import in_place_of
from reidlib.training import Machine
from reidlib.units import Unit
from reidlib.weights import weights_identity


def _once(make: Callable) -> Callable:
    """A method of Plan that makes what it is asked for once: the second time it is found."""

    @wraps(make)
    def found(self, *place):
        if (make, *place) not in self._known:
            self._known[make, *place] = make(self, *place)
        return self._known[make, *place]

    return found


@dataclass(frozen=True)
class Plan:
    """The units of a study. `root` is the project's folder."""

    params: StudyParams
    data: Catalog
    root: Path
    _known: dict = field(default_factory=dict, repr=False)

    def units(self) -> dict[str, Unit]:
        """All units by their labels, each after those it is made from."""
        found: dict[str, Unit] = {}

        def add(unit: Unit) -> None:
            for parent in unit.parents.values():
                add(parent)
            if unit.kept:
                found.setdefault(unit.label, unit)

        for wanted in agenda.evaluations(self.params):
            add(self.evaluation(*wanted))
        for name in self.params.datasets:
            for part in ("query", "gallery", *["train"] * (name in agenda.trained(self.params))):
                add(self.pixels(name, part))
        for configuration in self.configurations:
            add(self.costs(configuration))
        return found

    # data

    @_once
    def pixels(self, dataset: str, part: str, size: tuple[int, int] | None = None) -> Unit:
        """The decoded pictures of a part ("train", "query", "gallery"), at the data set's size or another."""
        label = f"pixels {dataset} {part}" + (f" {size[0]}x{size[1]}" if size else "")
        size = size or self.data.size(dataset)
        inputs = {"size": size, "bytes": self.data.bytes_hash(dataset, part)}
        given = {"paths": self.data.frame(dataset, part)["path"].tolist()}
        return Unit("pixels", label, making.make_pixels, inputs, given=given, place=f"datasets.{dataset}")

    # networks

    @property
    def machine(self) -> Machine:
        return Machine(self.params.device, self.params.precision)

    @property
    def weights_root(self) -> Path:
        return folder(self.root, "REIDLIB_WEIGHTS", self.params.weights_root, "weights")

    @property
    def run_inputs(self) -> dict:
        """What everything depends on that runs a network."""
        return {"precision": self.params.precision, "threads": self.params.threads}

    @_once
    def network(self, method: str | Method, dataset: str, seed: int) -> Unit | None:
        """What is trained for this method alone: an expert, a gate, the router, a student. None where nothing is.

        Where the network was trained before and comes with the project (see `shipped`), the unit that takes it.
        Raises ValueError where the method is none of this study's.
        """
        unit = self.training(method, dataset, seed)
        if unit is None or self.params.shipped is None or self.data.validation:
            return unit
        return in_place_of(unit, self.root / self.params.shipped, self.data.hash_cache)

    def training(self, method: str | Method, dataset: str, seed: int) -> Unit | None:
        """The same as `network`, to be trained whatever comes with the project."""
        method = parse(method)
        match method:
            case Pixels():
                return None
            case Peer(configuration=None, name=name) if name in self.params.peers:
                return None
            case Start(configuration=None, name=name) if name in self.params.experts:
                return None
            case Expert(configuration=None, name=name) if name in self.params.experts:
                spec, place = self.params.experts[name], f"experts.{name}"
                parents = {"pretrained": miniatures.pretrained(self, name)} if spec.encoder.miniature else {}
                return self._picture_unit("embedder", making.make_embedder, method, dataset, seed, spec, parents, place)
            case Moe(configuration=None, gate="router") if self.params.moe.router:
                spec, gate = self.params.moe.router, self.network(Moe(gate="top1"), dataset, seed)
                parents = {"gate": gate, **self._features(self.params.experts, dataset, seed)}
                return self._picture_unit("router", making.make_router, method, dataset, seed, spec, parents, "moe.router")
            case Moe(configuration=None, gate=gate) if gate in GATES:
                return self._gate(gate, dataset, seed) if GATES[gate].trained else None
            case Student(configuration=None):
                return self._student(method, dataset, seed)
        raise agenda.no_method(self.params, method)

    def _picture_unit(self, kind: str, make: Callable, method: Method, dataset: str, seed: int, spec: NetworkParams,
                      parents: dict, place: str, more: dict | None = None, uses: tuple = (),
                      keys: dict | None = None) -> Unit:  # fmt: skip
        """A network that is trained on pictures."""
        encoder, labels, inputs = spec.encoder, self.data.labels(dataset), self._network_inputs(spec, dataset, seed)
        recipe = self._recipe(spec.recipe, dataset)
        inputs |= {"recipe": recipe, "identities": digest(labels.tolist()), **(more or {})}
        machine = Machine(self.params.device, inputs["precision"])
        given = {"encoder": encoder, "labels": labels, "weights_root": self.weights_root, "machine": machine}
        parents = {"pixels": self.pixels(dataset, "train"), **parents}
        parents |= {f"pixels {i}": self.pixels(dataset, "train", stage.size) for i, stage in enumerate(recipe.stages)}
        uses = (builder(encoder), *uses)
        label = f"{method} {dataset} seed {seed}"
        keys = _network_keys(spec, place, **(keys or {}))
        return Unit(kind, label, make, inputs, parents, given, uses, place=place, keys=keys)

    def start(self, method: Start, dataset: str) -> Unit:
        """An expert's encoder as it was pretrained: nothing is trained, so nothing is kept. Raises as `network` does."""
        if method.name not in self.params.experts:
            raise agenda.no_method(self.params, method)
        spec = self.params.experts[method.name]
        parents = {"pretrained": miniatures.pretrained(self, method.name)} if spec.encoder.miniature else {}
        inputs = self._network_inputs(spec, dataset, self.params.seeds[0])
        given, uses = {"encoder": spec.encoder, "weights_root": self.weights_root}, (builder(spec.encoder),)
        label, keys = f"{method} {dataset}", _network_keys(spec, f"experts.{method.name}")
        return Unit("start", label, making.load_start, inputs, parents, given, uses, kept=False, keys=keys)

    def _network_inputs(self, spec: NetworkParams, dataset: str, seed: int) -> dict:
        """What a network on pictures depends on before it is trained."""
        return {
            "encoder": spec.encoder.model_copy(update={"weights": None}),
            "weights": weights_identity(spec.encoder, self.weights_root, self.data.hash_cache),
            "size": spec.encoder.size or self.data.size(dataset), "seed": seed, **self.run_inputs,
            "precision": spec.precision or self.params.precision,
        }  # fmt: skip

    def _recipe(self, recipe: Recipe, dataset: str) -> Recipe:
        """As many steps as on the data set whose epochs the recipe counts: `epochs_of`, else, of several at once, the first."""
        counted = self.params.epochs_of or dataset.partition("+")[0]
        if dataset == counted:
            return recipe
        batches = lambda name: len(identity_batches(self.data.labels(name), recipe.p, recipe.k, seed=0, epoch=0))  # noqa: E731
        there, here = batches(counted), batches(dataset)
        return recipe.lasting(max(1, round(recipe.epochs * there / here)))

    def _gate(self, gate: str, dataset: str, seed: int) -> Unit:
        spec, labels = self.params.moe, self.data.labels(dataset)
        inputs = {
            "gate": gate, "width": spec.width, "balance": spec.balance.get(gate, 0.0),
            "recipe": self._recipe(spec.recipe, dataset), "identities": digest(labels.tolist()), "seed": seed, **self.run_inputs,
        }  # fmt: skip
        given = {"labels": labels, "machine": self.machine}
        parents = self._features(self.params.experts, dataset, seed)
        label = f"{Moe(gate=gate)} {dataset} seed {seed}"
        return Unit("gate", label, making.make_gate, inputs, parents, given, (GATES[gate],), place="moe")

    def _student(self, method: Student, dataset: str, seed: int) -> Unit:
        spec, kd = agenda.varied(self.params, method)
        place = f"ablations.sizes.{method.size}"
        keys = {"encoder": place} if method.size else {}
        keys |= {"recipe": f"{place}.recipe"} if method.size and self.params.sizes[method.size].recipe else {}
        if method.taught_by is None:
            make = making.make_embedder
            return self._picture_unit("embedder", make, method, dataset, seed, spec, {}, "student", keys=keys)
        teaches = teacher(method.taught_by)
        if isinstance(teaches, Expert) and teaches.name not in self.params.experts:
            raise ValueError(
                f"'{method}': no expert '{teaches.name}' in this study; it has {', '.join(self.params.experts)}"
            )
        names = [teaches.name] if isinstance(teaches, Expert) else list(self.params.experts)
        experts = {f"expert {name}": self.network(Expert(name=name), dataset, seed) for name in names}
        parents = {} if isinstance(teaches, Expert) else {"gate": self.network(teaches, dataset, seed)}
        if kd.teacher == "cached":
            parents |= self._features(names, dataset, seed)
        if kd.teacher == "online" or isinstance(teaches, Expert):  # whose classifier is needed
            parents |= experts
        used = {name: weight for name, weight in kd.terms.items() if weight}
        kd = kd.model_copy(update={"teachers": [], "terms": used})
        uses = (*(TERMS[name] for name in used), *((GATES[teaches.gate],) if isinstance(teaches, Moe) else ()))
        keys |= {"distillation": "distillation"} | ({"recipe": "student.taught"} if self.params.student.taught else {})
        return self._picture_unit("embedder", making.make_taught, method, dataset, seed, spec, parents, "student",
                                  {"distillation": kd}, uses, keys)  # fmt: skip

    def _features(self, experts, dataset: str, seed: int) -> dict[str, Unit]:
        """The experts' embeddings of the training pictures and of their mirror images."""
        of = lambda name, mirrored: self.embeddings(Expert(name=name), dataset, seed, dataset, "train", mirrored)  # noqa: E731
        sides = {"features": False, "mirrored": True}
        return {f"{side} {name}": of(name, mirrored) for name in experts for side, mirrored in sides.items()}

    # embeddings, evaluations, costs

    @_once
    def embeddings(self, method: str | Method, train: str, seed: int, test: str, part: str, mirrored: bool = False) -> Unit:
        """The embeddings of a part of `test` by the method trained on `train`."""
        method = parse(method)
        label = f"embeddings {method} {train} seed {seed} of {test} {part}{' mirrored' * mirrored}"
        pixels = {"pixels": self.pixels(test, part)}
        if isinstance(method, Pixels):
            return Unit("raw", label, measuring.make_raw, {"mirrored": mirrored}, pixels, kept=False)
        if isinstance(method, Peer):
            return self._peer_embeddings(method, label, pixels, mirrored)
        if not isinstance(method, Moe):
            network = self.start(method, train) if isinstance(method, Start) else self.network(method, train, seed)
            return self._embedded(network, label, pixels, mirrored)
        names = list(self.params.experts)
        if method.expert is not None and method.expert not in names:
            raise ValueError(f"'{method}': '{method.expert}' is no expert of this study; it has {', '.join(names)}")
        network = self.network(method, train, seed)
        gate, parents = method.gate, {}
        if gate == "router":
            gate = "top1"
            parents["choice"] = self._embedded(network, f"choice of {label}", pixels, mirrored)
        if GATES[gate].trained:
            parents["gate"] = self.network(Moe(gate=gate), train, seed)
        parents |= {f"expert {n}": self.embeddings(Expert(name=n), train, seed, test, part, mirrored) for n in names}
        alone = names.index(method.expert) if method.expert else None
        inputs = {"gate": gate, "expert": alone, "threads": self.params.threads}
        return Unit("fused", label, measuring.make_fused, inputs, parents, uses=(GATES[gate],), kept=False, place="moe")

    def tested(self, method: str | Method, train: str, seed: int, test: str, part: str) -> Unit:
        """The embeddings that the method is tested by: with `flip_test`, of each picture and its mirror image together."""
        sides = [self.embeddings(method, train, seed, test, part, mirrored) for mirrored in (False, True)]
        if not self.params.flip_test:
            return sides[0]
        label = f"{sides[0].label}, both sides"
        return Unit("averaged", label, measuring.make_averaged, {}, dict(zip(("picture", "mirrored"), sides)), kept=False)

    def _embedded(self, network: Unit, label: str, pixels: dict, mirrored: bool) -> Unit:
        precision = network.inputs["precision"]
        inputs = {"mirrored": mirrored, **self.run_inputs, "precision": precision}
        given, parents = {"machine": Machine(self.params.device, precision)}, {"network": network, **pixels}
        make, keys = measuring.make_embeddings, {"precision": network.keys.get("precision", "precision")}
        return Unit("embeddings", label, make, inputs, parents, given, (Machine,), keys=keys)

    def peer_file(self, method: Peer) -> Path:
        """A peer's graph. Raises ValueError where it is none of this study's."""
        if method.name not in self.params.peers:
            raise agenda.no_method(self.params, method)
        return folder(self.root, "REIDLIB_PEERS", self.params.peers_root, "peers") / self.params.peers[method.name].file

    def _peer_embeddings(self, method: Peer, label: str, pixels: dict, mirrored: bool) -> Unit:
        file = self.peer_file(method)
        identity, threads = file_hashes(peer_files(file), self.data.hash_cache), self.params.threads
        inputs = {"mirrored": mirrored, "peer": identity, "threads": threads}
        make, place = measuring.make_peer_embeddings, f"peers.{method.name}"
        return Unit("embeddings", label, make, inputs, pixels, {"file": file}, place=place)

    @_once
    def _labels(self, dataset: str, part: str) -> tuple[tuple[np.ndarray, np.ndarray], str]:
        """Identities and cameras of a part, int [N] each, and their hash."""
        frame = self.data.frame(dataset, part)
        return (frame["pid"].to_numpy(), frame["camid"].to_numpy()), digest([frame[c].tolist() for c in ("pid", "camid")])

    def evaluation(self, method: str | Method, train: str, test: str, seed: int) -> Unit:
        """The method trained on `train`, tested on `test`."""
        method, parents, inputs, given = parse(method), {}, {"threads": self.params.threads}, {}
        for part in ("query", "gallery"):
            given[part], inputs[f"{part} labels"] = self._labels(test, part)
            parents[part] = self.tested(method, train, seed, test, part)
        label = f"evaluation {method} {train} seed {seed} on {test}"
        return Unit("evaluation", label, measuring.make_evaluation, inputs, parents, given)

    @property
    def configurations(self) -> list[str]:
        """Whose networks are measured: "", this study's own; "paper", those of params/paper.yaml with random weights."""
        return ["", *["paper"] * (self.params.profiling.paper is not None)]

    @_once
    def costs(self, configuration: str = "") -> Unit:
        """What the networks cost at inference, see `configurations`."""
        return costing.of_paper(self) if configuration else costing.of_study(self)


def _network_keys(spec: NetworkParams, place: str, **others: str) -> dict[str, str]:
    """Which keys of the params file the inputs of `_network_inputs` are, see `Unit.keys`; encoder: of a size's encoder."""
    keys = {"encoder": f"{place}.encoder", **others}
    keys |= {name: f"{keys['encoder']}.{name}" for name in ("weights", "size")}
    return keys | ({"precision": f"{place}.precision"} if spec.precision else {})
