"""A trained student where there is no torch: one ONNX file with everything inside, in float32 or int8.

export(model, "student.onnx")                        uint8 [B, 3, H, W] of any size in, unit vectors [B, D] out
quantize("student.onnx", "student-int8.onnx", pictures)
OnnxNetwork("student.onnx")(pictures)                as a network of torch, for comparing and measuring
"""

import copy
import io
import tempfile
from collections.abc import Iterator
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn.functional import normalize

from reidlib.data.hashes import file_hashes
from reidlib.models import Embedder, deployed
from reidlib.profiling import interleaved
from reidlib.released import default, read_released
from reidlib.retrieval import EmbeddingSet, evaluate
from reidlib.training import Machine, embed

CALIBRATION = 64  # pictures that show int8 which values occur
BATCH = 32  # pictures at once: onnxruntime keeps the memory of the most it has seen, gigabytes for some hundred
FLOAT = 6  # convolutions that int8 leaves as they are, input first: few channels of very unlike ranges, and few weights
COARSE = (
    20  # dB: what int8 tells with an error above a tenth of its size, as where some channels are far larger than others
)


class DeployError(RuntimeError):
    """A file that can't be read, written or run; the message names it and what to do."""


class Ready(nn.Module):
    """An embedder with all that surrounds it: pictures as they are in, unit vectors out, in operations that ONNX has."""

    def __init__(self, model: Embedder):
        super().__init__()
        model = deployed(copy.deepcopy(model))
        self.network, self.norm, self.size = model.encoder.network, model.neck.norm, model.encoder.size
        self.register_buffer("scale", model.encoder.scale.clone())
        self.register_buffer("shift", model.encoder.shift.clone())

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 [B, 3, H, W] -> float [B, D], of length 1."""
        rows, columns = (bicubic(images.shape[side], length) for side, length in ((2, self.size[0]), (3, self.size[1])))
        x = (rows @ images.float() @ columns.T).clamp(0, 255)
        return normalize(self.norm(self.network(x * self.scale + self.shift)), dim=1)


def bicubic(length: int, wanted: int) -> torch.Tensor:
    """The antialiased bicubic filter (Keys 1981, a = -0.5, as Pillow and torch have it) as a matrix [wanted, length].

    ONNX has no such resizing that all runtimes round alike; a product of matrices is the same everywhere.
    """
    scale = (
        torch.ones(length).sum() / wanted
    )  # a tensor: what is reckoned with a size that isn't known yet can't be exported
    stretch = scale.clamp(min=1)
    centres = (torch.arange(wanted) + 0.5) * scale
    x = ((torch.arange(length) + 0.5)[None] - centres[:, None]).abs() / stretch
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    weights = torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))
    return weights / weights.sum(1, keepdim=True)


def export(model: Embedder, file: str | Path) -> Path:
    """Write an embedder as ONNX. Raises TypeError where it is none: a mixture of experts is no one network."""
    if not isinstance(model, Embedder):
        raise TypeError(
            f"an expert or a student can be exported, this is a {type(model).__name__}: distil it into a student"
        )
    dims = torch.export.Dim
    shape = {0: dims("pictures", min=1), 2: dims("height", min=2), 3: dims("width", min=2)}
    example = torch.zeros(2, 3, model.encoder.size[0] + 3, model.encoder.size[1] + 1, dtype=torch.uint8)
    program = torch.onnx.export(
        Ready(model).eval(), (example,), dynamo=True, dynamic_shapes=(shape,), verbose=False,
        input_names=["images"], output_names=["embeddings"], external_data=False,
    )  # fmt: skip
    program.model.metadata_props["size"] = " ".join(map(str, model.encoder.size))
    program.save(str(file))
    return Path(file)


def quantize(file: str | Path, target: str | Path, pictures: np.ndarray) -> Path:
    """An exported network in int8: weights by channel, activations calibrated on some `pictures`, uint8 [N, 3, h, w].

    Only convolutions and linear layers are, where nearly all time goes; resizing, the first convolutions and the last norm
    stay in float32, and so does a convolution that reads or writes what 256 steps tell too coarsely. One in ten thousand of
    the activations may be cut off, so that a stray value does not coarsen the rest.
    """
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    some = pictures[:: -(-len(pictures) // CALIBRATION)]
    with tempfile.TemporaryDirectory() as folder:
        ready = Path(folder) / "ready.onnx"
        quant_pre_process(str(file), str(ready), skip_symbolic_shape=True)
        convolutions = [node for node in onnx.load(str(ready)).graph.node if node.op_type == "Conv"]
        in_float = [node.name for node in convolutions[:FLOAT]]

        def write() -> None:
            with redirect_stdout(io.StringIO()):  # calibration tells of its progress there
                quantize_static(
                    str(ready), str(target), _reader(some), quant_format=QuantFormat.QDQ, per_channel=True,
                    nodes_to_exclude=in_float, op_types_to_quantize=["Conv", "Gemm"], weight_type=QuantType.QInt8,
                    activation_type=QuantType.QUInt8, calibrate_method=CalibrationMethod.Percentile,
                    extra_options={"CalibPercentile": 99.99},
                    reduce_range=True,  # weights of 7 bits: with 8, sums overflow on CPUs without VNNI, and nothing says so
                )  # fmt: skip

        write()
        coarse = _coarse(ready, Path(target), some, Path(folder))
        if found := [node.name for node in convolutions if {node.input[0], node.output[0]} & coarse]:
            in_float += found
            write()
    return Path(target)


def _reader(pictures: np.ndarray):
    """Pictures, one at a time, as onnxruntime's tools read them."""
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):
        def __init__(self):
            self.batches: Iterator = ({"images": np.ascontiguousarray(pictures[i : i + 1])} for i in range(len(pictures)))

        def get_next(self):
            return next(self.batches, None)

    return Reader()


def _coarse(ready: Path, quantized: Path, pictures: np.ndarray, folder: Path) -> set[str]:
    """Names of the activations whose own rounding to int8 is above COARSE: noise against signal, over some pictures."""
    from onnxruntime.quantization import qdq_loss_debug as debug

    found = []
    for file in (quantized, ready):
        watched = folder / f"watched-{len(found)}.onnx"
        debug.modify_model_output_intermediate_tensors(str(file), str(watched))
        found.append(debug.collect_activations(str(watched), _reader(pictures[::4])))
    errors = debug.compute_activation_error(debug.create_activation_matching(*found))
    return {name for name, error in errors.items() if error["qdq_err"] < COARSE}


class OnnxNetwork(nn.Module):
    """An exported network as the study's own are: uint8 [B, 3, H, W], RGB -> embedding [B, D], on the CPU.

    Raises DeployError where the file is none that `export` or `quantize` wrote.
    """

    def __init__(self, file: str | Path, threads: int = 1):
        super().__init__()
        import onnxruntime

        self.file = Path(file)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3
        try:
            self.session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
            size = self.session.get_modelmeta().custom_metadata_map["size"]
        except Exception as error:  # onnxruntime has a class for each kind of damage and no common one
            raise DeployError(f"{file} is no exported network ({str(error).splitlines()[0]}): python -m reidlib export writes one") from error  # fmt: skip
        self.size = tuple(map(int, size.split()))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        parts = [self.session.run(None, {"images": some.numpy()})[0] for some in images.cpu().split(BATCH)]
        return torch.from_numpy(np.concatenate(parts))


def comparison(
    networks: dict[str, nn.Module],
    query: EmbeddingSet,
    gallery: EmbeddingSet,
    pixels: dict[str, np.ndarray],
    runs: int = 20,
) -> pd.DataFrame:
    """What networks of one student are worth beside each other: a row each, in turns where time is measured.

    networks: by what to call them; the first is what the others are compared with. query, gallery: of any features, for
    their identities and cameras. pixels: of "query" and "gallery", uint8 [N, 3, h, w].

    Columns network, mAP (%), rank-1 (%), cosine (to the first network's embeddings: the least and the mean), latency (ms, of one
    picture), throughput (pictures a second, BATCH at once), both medians over the runs, size (MB, of the file; of a network of
    torch, of its weights without what only training needs). Of torch with one thread, as `OnnxNetwork` has by default.
    """
    machine, rows, first = Machine("cpu"), [], None
    networks = {n: x if isinstance(x, OnnxNetwork) else deployed(copy.deepcopy(x)) for n, x in networks.items()}
    one, many = tensor(pixels["query"][:1]), tensor(pixels["gallery"][:BATCH])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            latency, batch = (
                interleaved({name: partial(network, some) for name, network in networks.items()}, runs, some.device)
                for some in (one, many)
            )
    finally:
        torch.set_num_threads(threads)
    for name, network in networks.items():
        found = {part: embed(network, pixels[part], machine) for part in ("query", "gallery")}
        first = found if first is None else first
        cosine = torch.nn.functional.cosine_similarity(*(torch.from_numpy(x["gallery"]) for x in (found, first)))
        scores = evaluate(
            *(EmbeddingSet(found[part], of.pid, of.camid) for part, of in (("query", query), ("gallery", gallery)))
        )
        size = (
            network.file.stat().st_size
            if isinstance(network, OnnxNetwork)
            else sum(t.nbytes for t in [*network.parameters(), *network.buffers()])
        )
        rows.append((name, 100 * scores.mAP, 100 * scores.cmc[0], f"{cosine.min():.4f}, {cosine.mean():.4f}",
                     1e3 * np.median(latency[name]), len(many) / np.median(batch[name]), size / 1e6))  # fmt: skip
    columns = ["network", "mAP (%)", "rank-1 (%)", "cosine, least and mean", "latency (ms)", "throughput (pictures/s)", "size (MB)"]  # fmt: skip
    return pd.DataFrame(rows, columns=columns).round(dict(zip(columns, (0, 1, 1, 0, 2, 0, 2))))


def tensor(pixels: np.ndarray) -> torch.Tensor:
    """Pictures uint8 [N, 3, h, w] of a store as a network takes them."""
    return torch.from_numpy(np.array(pixels))  # a copy, for the store is read-only


def open_network(file: str | Path | None = None, threads: int = 1) -> nn.Module:
    """A network that was handed on: released weights (.safetensors) or an exported file (.onnx); its `origin` says which.

    file: None is the student that comes with this project. Raises DeployError or ValueError naming the file where it is neither.
    """
    file = Path(file or default())
    if not file.is_file():
        raise DeployError(f"{file}: no such file; a network is a .safetensors of results/<study>/weights/ or an .onnx")
    network = OnnxNetwork(file, threads) if file.suffix == ".onnx" else read_released(file)
    network.origin = f"{file.name} ({file_hashes([file])[0][:12]})"
    return network


def picture_size(network: nn.Module) -> tuple[int, int]:
    """Height and width in pixels of the pictures that a network of `open_network` was trained on."""
    return tuple(network.size if isinstance(network, OnnxNetwork) else network.encoder.size)
