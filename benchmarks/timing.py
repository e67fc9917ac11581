"""How every case is measured: methods take turns in one process; memory is that of one call in a process of its own."""

import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from benchmarks import retrieval
from benchmarks.retrieval import OURS
from reidlib.profiling import interleaved
from reidlib.provenance import device_name
from reidlib.sources import PROJECT
from reidlib.training import Machine

SLOW = 20  # seconds
SMALL = 10e6  # bytes: memory is not measured where the matrix of distances is smaller than what start-up leaves
TIMES = ["seconds", "low", "high"]  # median and quartiles
COLUMNS = ["case", "method", "size", *TIMES, "peak_memory_mb", "runs", "items", "difference", "apart", "machine"]


def rows(case: str, size: str, seconds: dict[str, np.ndarray], machine: Machine, **more: dict) -> pd.DataFrame:
    """Tidy rows of one size, a row a method.

    Args:
        seconds: of each run, float [runs]; the median and the quartiles are kept. None of a method left out.
        more: further columns, by method: peak_memory_mb, MB (10^6 bytes) that one call takes beyond its inputs; items,
            the pictures that one call handles; difference, how far the method's answer is from reidlib's at most;
            apart, the share of its numbers that is more than 1e-4 away.
    """
    named = machine_name(machine)
    table = []
    for method, values in seconds.items():
        low, median, high = np.percentile(values, [25, 50, 75]) if len(values) else 3 * [np.nan]
        row = {"case": case, "method": method, "size": size, "seconds": median, "low": low, "high": high}
        row |= {"runs": len(values), "machine": named}
        table.append(row | {name: by_method[method] for name, by_method in more.items() if method in by_method})
    return pd.DataFrame(table, columns=COLUMNS)


def in_turns(
    calls: dict[str, Callable[[], object]], runs: int, machine: Machine, warm_up: int = 1
) -> tuple[dict[str, np.ndarray], dict]:
    """Seconds of each call, float [runs], one after the other in this process; and what each returned last."""
    answers = {}

    def kept(name: str, call: Callable[[], object]) -> None:
        answers[name] = call()

    ready = {name: partial(kept, name, call) for name, call in calls.items()}
    return interleaved(ready, runs, machine.torch_device(), warm_up), answers


def alone(
    case: str, size: str, methods: list[str], runs: int
) -> tuple[dict[str, np.ndarray], dict[str, float], dict[str, np.ndarray]]:
    """Each method of `retrieval` in fresh processes, in turns: its seconds, the most MB of a call, its answer.

    One that takes longer than SLOW seconds is called once.
    """
    results, answers = {method: [] for method in methods}, {}
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder) / "answer.npy")
        for _ in range(runs):
            for method in methods:
                if any(seconds > SLOW for seconds, _ in results[method]):
                    continue
                command = [sys.executable, "-m", "benchmarks.retrieval", case, method, size, file]
                done = subprocess.run(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True, check=True)
                results[method].append([float(word) for word in done.stdout.split()[-2:]])
                answers[method] = np.load(file)
    seconds = {method: np.array(values)[:, 0] for method, values in results.items()}
    return seconds, {method: float(np.max(values, axis=0)[1]) for method, values in results.items()}, answers


def beside_peers(case: str, machine: Machine, quick: bool = False) -> pd.DataFrame:
    """Rows of a case of `retrieval`, of every size.

    A method that would take longer than PATIENCE, judged by the largest size at which it was called, is left out.
    """
    table, methods, pace = [], retrieval.methods(case), {}
    warm = retrieval.draw(next(iter(retrieval.QUICK)))
    for call in methods.values():
        call(warm)  # compiles, starts threads: on a small input, because some take long on a large one
    for size, runs in (retrieval.QUICK if quick else retrieval.SIZES[case]).items():
        n_query, n_gallery, _ = retrieval.numbers(size)
        wanted = [n for n in methods if pace.get(n, 0) * n_query * n_gallery <= retrieval.PATIENCE[case]]
        if (case, size) in retrieval.APART:
            seconds, memory, answers = alone(case, size, wanted, runs)
        else:
            # first, and so while this process holds nothing large
            measured = not quick and 4 * n_query * n_gallery > SMALL
            memory = alone(case, size, wanted, 1)[1] if measured else {}
            sets = retrieval.draw(size)
            seconds, answers = in_turns({n: partial(methods[n], sets) for n in wanted}, runs, machine, warm_up=0)
        pace |= {name: np.median(values) / (n_query * n_gallery) for name, values in seconds.items()}
        away = {n: np.abs(np.asarray(answers[n], float) - answers[OURS]) for n in wanted}
        away = {n: distance for n, distance in away.items() if not np.isnan(distance).any()}  # some answer nothing
        more = {"difference": {n: float(distance.max()) for n, distance in away.items()}}
        if case == "reranking":
            more["apart"] = {n: float((distance > 1e-4).mean()) for n, distance in away.items()}
        seconds = {name: seconds.get(name, np.empty(0)) for name in methods}
        table.append(rows(case, size, seconds, machine, peak_memory_mb=memory, **more))
    return pd.concat(table, ignore_index=True)


def machine_name(machine: Machine) -> str:
    """What the times were measured on, e.g. "Intel Xeon Platinum 8488C, 2 threads, torch 2.8.0"."""
    device = device_name(machine.torch_device().type == "cuda")
    threads = "" if machine.torch_device().type == "cuda" else f"{torch.get_num_threads()} threads, "
    return f"{device}, {threads}torch {torch.__version__.partition('+')[0]}"
