"""The units that make miniatures: the drawn, captioned pictures, and the encoders pretrained on them contrastively.

Part of `plan`, which hands itself over.
"""

from typing import TYPE_CHECKING

from reidlib import making
from reidlib.encoders import builder
from reidlib.units import Unit

if TYPE_CHECKING:
    from reidlib.plan import Plan


def captioned(plan: "Plan", size: tuple[int, int]) -> Unit:
    """The drawn pictures and captions that miniatures are pretrained on, at one size (height, width)."""
    import toydata  # here, for no real study needs it

    wanted = plan.params.pretraining
    domains = sorted({d.builtin.domain for d in plan.params.datasets.values() if d.builtin} or toydata.DOMAINS)
    inputs = {"domains": domains, "n": wanted.pictures, "size": tuple(size), "seed": wanted.seed}
    label, uses = f"captioned {size[0]}x{size[1]}", (toydata.captioned,)
    keys = {"n": "pretraining.pictures", "seed": "pretraining.seed"}
    return Unit("captioned", label, making.make_captioned, inputs, uses=uses, keys=keys)


def pretrained(plan: "Plan", expert: str) -> Unit:
    """An expert's miniature, pretrained contrastively."""
    spec = plan.params.experts[expert].encoder
    inputs = {"encoder": spec, "plan": plan.params.pretraining, **plan.run_inputs}
    parents = {"captioned": captioned(plan, spec.size)}
    label, given, uses = f"pretrain {expert}", {"machine": plan.machine}, (builder(spec),)
    keys = {"encoder": f"experts.{expert}.encoder", "plan": "pretraining"}
    return Unit("pretrained", label, making.make_pretrained, inputs, parents, given, uses, keys=keys)
