"""What a method costs once trained: parameters, MACs, latency, throughput, memory, file size."""

import copy
import json
import os
import platform
import re
import tempfile
import time
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
from reidlib.training import Machine

METRICS = ("parameters", "macs", "latency_ms", "throughput", "peak_memory_mb", "file_mb")
WARM_UP = 3


def profile(
    models: dict[str, nn.Module], size: tuple[int, int], machine: Machine, runs: int, batch: int
) -> pd.DataFrame:
    """What each model costs as it would be deployed: a copy without what only training needs.

    parameters: their number.
    macs: multiply-adds per picture in convolutions, linear layers and attention, with those of resizing, normalisation
        and activations left out: half of what torch's FlopCounterMode counts.
    latency_ms: median time of one picture that lies ready on the device.
    throughput: pictures per second in batches of `batch`, median.
    peak_memory_mb: MB (10^6 bytes) of the weights and of the most a batch of `batch` allocates on top, as torch's
        allocator counts it; what a backend takes by itself (scratch space, the CUDA context) is not in it.
    file_mb: MB (10^6 bytes) of the weights in float32 as a safetensors file.

    The models take turns, A B C A B C, so that whatever else the machine does falls on all of them alike.

    Args:
        models: by method; they are left as they are.
        size: (height, width) in pixels of the pictures.
        runs: timed runs of each model, after a warm-up.
    Returns:
        Columns method, metric, value, spread: the interquartile range over the runs, NaN where nothing varies.
    """
    accelerator = machine.accelerator()
    device = accelerator.device
    pictures = torch.randint(0, 256, (batch, 3, *size), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    pictures = pictures.to(device)
    ready = {name: deployed(copy.deepcopy(model)).to(device) for name, model in models.items()}
    with torch.no_grad(), accelerator.autocast():
        seconds = {n: _interleaved(ready, pictures[:n], runs, device) for n in {1, batch}}
        rows = []
        for name, model in ready.items():
            rates = batch / seconds[batch][name]
            rows += [
                (name, "parameters", sum(p.numel() for p in model.parameters()), np.nan),
                (name, "macs", count_macs(model, pictures[:1]), np.nan),
                (name, "latency_ms", 1e3 * np.median(seconds[1][name]), 1e3 * _spread(seconds[1][name])),
                (name, "throughput", np.median(rates), _spread(rates)),
                (name, "peak_memory_mb", (_weights(model) + _rise(model, pictures, device)) / 1e6, np.nan),
                (name, "file_mb", _file_size(model) / 1e6, np.nan),
            ]
    return pd.DataFrame(rows, columns=["method", "metric", "value", "spread"])


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


def machine_name(machine: Machine) -> str:
    """What the times were measured on, e.g. "Intel Xeon Platinum 8488C, 2 threads, torch 2.8.0"."""
    version = f"torch {torch.__version__.partition('+')[0]}"
    if machine.torch_device().type == "cuda":
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}, {version}"
    cpuinfo = Path("/proc/cpuinfo")
    named = re.search(r"model name\s*:\s*(.+)", cpuinfo.read_text()) if cpuinfo.exists() else None
    cpu = re.sub(r"\((R|TM)\)|CPU|@.*", "", named[1]) if named else platform.processor() or platform.machine()
    return f"{' '.join(cpu.split())}, {torch.get_num_threads()} threads, {version}"


def _interleaved(models: dict[str, nn.Module], pictures: torch.Tensor, runs: int, device) -> dict[str, np.ndarray]:
    """Seconds of each run, float [runs] for each model."""
    seconds = {name: np.zeros(runs) for name in models}
    for run in range(-WARM_UP, runs):
        for name, model in models.items():
            _synchronize(device)
            start = time.perf_counter()
            model(pictures)
            _synchronize(device)
            if run >= 0:
                seconds[name][run] = time.perf_counter() - start
    return seconds


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _spread(values: np.ndarray) -> float:
    return float(np.subtract(*np.percentile(values, [75, 25])))


def _weights(model: nn.Module) -> int:
    return sum(t.numel() * t.element_size() for t in [*model.parameters(), *model.buffers()])


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
