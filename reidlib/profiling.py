"""What a method costs once trained: parameters, MACs, latency, throughput, memory, file size."""

import copy
import json
import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save_model
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity
from torch.utils.flop_counter import FlopCounterMode

from reidlib.models import deployed
from reidlib.peers import PeerNetwork
from reidlib.training import Machine

WARM_UP = 1
FEW = 8  # pictures whose time one by one is a latency's mean


def profile(models: dict[str, nn.Module], pictures: np.ndarray, machine: Machine, runs: int, batch: int) -> pd.DataFrame:
    """What each model costs as it would be deployed: a copy without what only training needs; see `results.COSTS`.

    parameters: their number.
    macs: multiply-adds per picture in convolutions, linear layers and attention, with those of resizing, normalisation
        and activations left out: half of what torch's FlopCounterMode counts. The mean over the first few of `pictures`.
    latency_ms: time of one picture that lies ready on the device: the mean over the first few of `pictures`, one by
        one (a router's time depends on the picture), the median over the runs.
    throughput: pictures per second in batches of `batch`, median.
    peak_memory_mb: MB (10^6 bytes) of the weights and of the most a batch of `batch` allocates on top, as torch's
        allocator counts it; what a backend takes by itself (scratch space, the CUDA context) is not in it.
    file_mb: MB (10^6 bytes) of the weights in float32 as a safetensors file.
    A peer's parameters and macs are counted in its graph, file_mb is of its files as they were published, and what memory
    its runtime takes is not told.

    The models take turns, A B C A B C, so that whatever else the machine does falls on all of them alike.

    models: by method; they are left as they are. pictures: uint8 [N, 3, h, w]; repeated where they don't fill a batch.
    runs: timed runs of each model, after a warm-up.
    Returns columns method, metric, value, spread: the interquartile range over the runs, NaN where nothing varies.
    """
    accelerator = machine.accelerator()
    device = accelerator.device
    pictures = torch.from_numpy(np.resize(pictures[:batch], (batch, *pictures.shape[1:]))).to(device)
    alone = pictures[:FEW].split(1)
    ready = {name: deployed(copy.deepcopy(model)).to(device) for name, model in models.items()}
    with torch.no_grad(), accelerator.autocast():
        one = interleaved({n: partial(_each, model, alone) for n, model in ready.items()}, runs, device)
        rises = {n: _rise(model, pictures, device) for n, model in ready.items()}  # and each has seen a batch: warm
        many = interleaved({n: partial(model, pictures) for n, model in ready.items()}, runs, device, warm_up=0)
        rows = []
        for name, model in ready.items():
            latency, rates = 1e3 * one[name] / len(alone), batch / many[name]
            timed = {"latency_ms": (np.median(latency), _spread(latency)), "throughput": (np.median(rates), _spread(rates))}
            peer = isinstance(model, PeerNetwork)
            counted = model.costs() if peer else _counted(model, pictures[:FEW], rises[name])
            rows += [(name, metric, *values) for metric, values in timed.items()]
            rows += [(name, metric, value, np.nan) for metric, value in counted.items()]
    return pd.DataFrame(rows, columns=["method", "metric", "value", "spread"])


def _counted(model: nn.Module, pictures: torch.Tensor, rise: int) -> dict[str, float]:
    weights = sum(t.nbytes for t in [*model.parameters(), *model.buffers()])
    return {
        "parameters": sum(p.numel() for p in model.parameters()), "macs": count_macs(model, pictures) / len(pictures),
        "peak_memory_mb": (weights + rise) / 1e6, "file_mb": _file_size(model) / 1e6,
    }  # fmt: skip


def count_macs(model: nn.Module, pictures: torch.Tensor) -> int:
    """Multiply-adds of one call, see `profile`."""
    # fused attention hides its products from the counter
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            model(pictures)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return counter.get_total_flops() // 2


def interleaved(
    calls: dict[str, Callable[[], object]], runs: int, device: torch.device, warm_up: int = WARM_UP
) -> dict[str, np.ndarray]:
    """Seconds of each call, float [runs]; they take turns, A B C A B C, after `warm_up` such rounds that don't count."""
    seconds = {name: np.zeros(runs) for name in calls}
    for run in range(-warm_up, runs):
        for name, call in calls.items():
            _synchronize(device)
            start = time.perf_counter()
            call()
            _synchronize(device)
            if run >= 0:
                seconds[name][run] = time.perf_counter() - start
    return seconds


def _each(model: nn.Module, batches: list[torch.Tensor]) -> None:
    for pictures in batches:
        model(pictures)


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _spread(values: np.ndarray) -> float:
    return float(np.subtract(*np.percentile(values, [75, 25])))


def _rise(model: nn.Module, pictures: torch.Tensor, device: torch.device) -> int:
    """Bytes that a call allocates at its peak, beyond what was allocated before."""
    if device.type == "cuda":
        torch.clear_autocast_cache()  # its copies of the weights count too
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        model(pictures)
        return torch.cuda.max_memory_allocated() - before
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # it complains of every GPU that is not there
    with torch.profiler.profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        model(pictures)
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(trace))
        events = [e for e in json.loads(trace.read_text())["traceEvents"] if e.get("name") == "[memory]"]
    allocated = np.cumsum([e["args"]["Bytes"] for e in sorted(events, key=lambda e: e["ts"])] or [0])
    return int(max(allocated.max(), 0))


def _file_size(model: nn.Module) -> int:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "weights.safetensors"
        save_model(model.float(), str(file))
        return file.stat().st_size
