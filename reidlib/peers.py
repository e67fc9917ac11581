"""Peers: published networks that a user could take instead of the student, run as they come, in OpenVINO on the CPU.

They are OpenVINO's intermediate representation, <name>.xml with <name>.bin beside it, that takes one batch of pictures, BGR
from 0 to 255, and gives their embeddings, as the person-reidentification networks of Intel's Open Model Zoo do. The package
openvino is imported where one is read, for no study needs it that has no peers.
"""

from math import prod
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from reidlib.weights import WeightsError


def peer_files(file: Path) -> list[Path]:
    """The graph and its weights. Raises WeightsError where one is missing."""
    files = [file, file.with_suffix(".bin")]
    if missing := [str(path.resolve()) for path in files if not path.is_file()]:
        remedy = "Put it there, set REIDLIB_PEERS to the folder that holds it, or leave peers out of the params"
        raise WeightsError(f"there is no {' and no '.join(missing)}. {remedy}")
    return files


class PeerNetwork(nn.Module):
    """A peer as the study's own networks are: uint8 [B, 3, H, W], RGB -> embedding [B, D].

    It computes in float32, whatever its file holds and the processor can do, as the others do; pictures of another size than
    it was made for are resized as theirs are. threads: that OpenVINO works with.

    Raises WeightsError where its files are missing or no such network, and where openvino is not installed.
    """

    def __init__(self, file: Path, threads: int):
        super().__init__()
        self.files, self.threads = peer_files(file), threads
        graph = self._graph()
        shapes = [list(end.get_partial_shape()) for end in (*graph.inputs, *graph.outputs)]
        colours, *sides = shapes[0][1:]
        if [len(shape) for shape in shapes] != [4, 2] or colours != 3 or any(side.is_dynamic for side in sides):
            raise WeightsError(f"{file} is no peer: one takes pictures [N, 3, h, w] and gives embeddings [N, D]")
        self.size = tuple(side.get_length() for side in sides)
        self._compiled = {}  # by the number of pictures: a network for that many is faster than one for any

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        pictures = images.cpu()
        if pictures.shape[-2:] != self.size:
            pictures = F.interpolate(pictures, self.size, mode="bicubic", antialias=True)
        if len(pictures) not in self._compiled:
            # with its input, for gigabytes of memory go to pieces where each batch takes one anew
            self._compiled[len(pictures)] = self._compile(len(pictures)), np.empty(pictures.shape, np.float32)
        network, bgr = self._compiled[len(pictures)]
        bgr[:] = pictures.numpy()[:, ::-1]
        (embeddings,) = network(bgr).values()
        return torch.from_numpy(embeddings).to(images.device)

    def costs(self) -> dict[str, float]:
        """What `profiling.profile` counts of a network of torch, read from graph and files; memory can't be told so."""
        graph = self._graph(1).get_ordered_ops()
        weights = [op for op in graph if op.get_type_name() == "Constant" and op.get_element_type().is_real()]
        return {
            "parameters": sum(prod(op.shape) for op in weights), "macs": sum(map(_macs, graph)),
            "file_mb": sum(file.stat().st_size for file in self.files) / 1e6,
        }  # fmt: skip

    def _graph(self, pictures: int | None = None):
        """Freshly read; for a number of pictures."""
        try:
            import openvino
        except ImportError:
            missing = f"{self.files[0].name} runs in the package openvino, which is not installed"
            remedy = "install it with .venv/bin/pip install --editable '.[peers]', or leave peers out of the params"
            raise WeightsError(f"{missing}: {remedy}") from None
        try:
            graph = openvino.Core().read_model(self.files[0])
            if pictures is not None:
                graph.reshape([pictures, 3, *self.size])
        except RuntimeError as error:
            said = str(error).strip().splitlines()[-1]
            raise WeightsError(f"{self.files[0]} can't be used ({said}); fetch it and its .bin again") from error
        return graph

    def _compile(self, pictures: int):
        import openvino

        settings = {
            "INFERENCE_NUM_THREADS": self.threads, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32",
            "ENABLE_CPU_PINNING": False,  # or two processes would share a core while another is idle
        }  # fmt: skip
        return openvino.Core().compile_model(self._graph(pictures), "CPU", settings)


def _macs(op) -> int:
    """Multiply-adds of one operation of a graph: its outputs, times how many products each is the sum of."""
    match op.get_type_name():
        case "Convolution":
            summed = op.get_input_shape(1)[1:]
        case "GroupConvolution":  # weights [groups, outputs, inputs, h, w]
            summed = op.get_input_shape(1)[2:]
        case "MatMul":
            summed = [op.get_input_shape(0)[-2 if op.get_attributes()["transpose_a"] else -1]]
        case _:
            return 0
    return prod(op.get_output_shape(0)) * prod(summed)
