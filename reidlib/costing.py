"""The units that measure what networks cost at inference: a study's own, and the paper's.

Part of `plan`, which hands itself over.
"""

from typing import TYPE_CHECKING

from reidlib import agenda, measuring, params
from reidlib.data.hashes import file_hashes
from reidlib.encoders import builder
from reidlib.gates import GATES
from reidlib.methods import parse
from reidlib.params import Runs
from reidlib.peers import peer_files
from reidlib.training import Machine
from reidlib.units import Unit

if TYPE_CHECKING:
    from reidlib.plan import Plan


def of_study(plan: "Plan") -> Unit:
    """The costs of a study's own networks, as they were trained on its first data set, and of its peers."""
    study = plan.params
    dataset, seed, wanted = agenda.ablated(study)[0], study.seeds[0], agenda.measured(study)
    networks = {f"network {method}": plan.network(method, dataset, seed) for method in wanted}
    parents = {"pictures": plan.pixels(dataset, "query")} | {name: unit for name, unit in networks.items() if unit}
    runs = Runs(runs=study.profiling.runs, batch=study.profiling.batch)
    peers = {name: plan.peer_file(parse(name)) for name in agenda.peers(study)}
    identities = {name: file_hashes(peer_files(file), plan.data.hash_cache) for name, file in peers.items()}
    inputs = {"methods": wanted, "peers": identities, "runs": runs, **plan.run_inputs}
    given = {"experts": list(study.experts), "peers": peers, "machine": plan.machine}
    uses = (Machine, *(GATES[gate] for gate in study.moe.gates if gate in GATES))  # the router's is top1's
    keys = {"runs": "profiling"}
    return Unit("costs", "costs", measuring.make_costs, inputs, parents, given, uses, keys=keys)


def of_paper(plan: "Plan") -> Unit:
    """The costs of the networks of params/paper.yaml, with random weights, which change no speed."""
    paper = params.load(plan.root / "params" / "paper.yaml")
    router = paper.moe.router
    networks = {f"expert:{name}": expert.encoder for name, expert in paper.experts.items()}
    networks |= {"student": paper.student.encoder} | ({"moe:router": router.encoder} if router else {})
    networks = {name: encoder.model_copy(update={"weights": None}) for name, encoder in networks.items()}
    inputs = {
        "networks": networks, "width": paper.moe.width, "size": next(iter(paper.datasets.values())).size,
        "runs": plan.params.profiling.paper, **plan.run_inputs,
    }  # fmt: skip
    uses = (Machine, GATES["soft"], GATES["top1"], *{builder(encoder) for encoder in networks.values()})
    given, keys = {"machine": plan.machine}, {"runs": "profiling.paper"}
    label = "costs of the paper's networks"
    return Unit("costs", label, measuring.make_paper_costs, inputs, {}, given, uses, keys=keys)
