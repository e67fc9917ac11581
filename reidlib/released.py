"""A trained embedder as one small file to hand on: half-precision weights, and how to build the network around them.

model = read_released("results/market1501/weights/student-kd-moe.safetensors")
model(pictures)                     uint8 [B, 3, H, W] of any size -> embeddings [B, D], to be compared by cosine
"""

import copy
import json
import sys
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from reidlib.content import write_atomically
from reidlib.encoders import build
from reidlib.models import Embedder, deployed
from reidlib.params import EncoderParams
from reidlib.sources import PROJECT

DEFAULT = "results/market1501/weights/student-kd-moe.safetensors"


def write_released(file: Path, model: Embedder, encoder: EncoderParams) -> None:
    """The weights that inference needs in float16, with `encoder` and the size in pixels that it sees beside them."""
    state = deployed(copy.deepcopy(model)).state_dict()
    half = {name: value.half().contiguous() if value.is_floating_point() else value for name, value in state.items()}
    spec = encoder.model_copy(update={"weights": None, "size": model.encoder.size})
    write_atomically(file, lambda path: save_file(half, path, metadata={"encoder": spec.model_dump_json()}))


def read_released(file: str | Path) -> Embedder:
    """What `write_released` wrote, in float32, in evaluation mode, on the CPU.

    Raises ValueError where the file is none of these.
    """
    try:
        with safe_open(file, "pt") as opened:
            spec = EncoderParams(**json.loads((opened.metadata() or {})["encoder"]))
            state = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118, it is no dictionary
    except (KeyError, OSError, ValueError, SafetensorError) as error:
        raise ValueError(
            f"{file} is no released network ({error}); `make study` writes them to results/<study>/weights/"
        ) from error
    model = deployed(Embedder(build(spec, spec.size), identities=1))
    model.load_state_dict({name: value.float() if value.is_floating_point() else value for name, value in state.items()})
    return model.eval()


def default() -> Path:
    """The trained student that comes with this project; says so. Raises ValueError where it was taken away."""
    if not (PROJECT / DEFAULT).is_file():
        raise ValueError(f"{DEFAULT}, the student that comes with this project, is not there: name another network's file (a "
                         "study whose params have `release` writes one to results/<study>/weights/)")  # fmt: skip
    print(f"network: {DEFAULT}", file=sys.stderr)
    return PROJECT / DEFAULT
