"""How every case is measured: methods take turns in one process; memory is that of one call in a process of its own."""

import subprocess
import sys
from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd

from benchmarks import retrieval
from benchmarks.retrieval import OURS
from reidlib.profiling import interleaved, machine_name
from reidlib.provenance import CODE
from reidlib.training import Machine

TIMES = ["seconds", "low", "high"]  # median and quartiles
COLUMNS = ["case", "method", "size", *TIMES, "peak_memory_mb", "runs", "items", "difference", "machine"]


def rows(case: str, size: str, seconds: dict[str, np.ndarray], machine: Machine, **more: dict) -> pd.DataFrame:
    """Tidy rows of one size, a row a method.

    Args:
        seconds: of each run, float [runs]; the median and the quartiles are kept.
        more: further columns, by method: peak_memory_mb, MB (10^6 bytes) that one call takes beyond its inputs; items,
            the pictures that one call handles; difference, how far the method's answer is from reidlib's.
    """
    named = machine_name(machine)
    table = []
    for method, values in seconds.items():
        low, median, high = np.percentile(values, [25, 50, 75])
        row = {"case": case, "method": method, "size": size, "seconds": median, "low": low, "high": high}
        row |= {"runs": len(values), "machine": named}
        table.append(row | {name: by_method[method] for name, by_method in more.items() if method in by_method})
    return pd.DataFrame(table, columns=COLUMNS)


def in_turns(calls: dict[str, Callable[[], object]], runs: int, machine: Machine) -> tuple[dict[str, np.ndarray], dict]:
    """Seconds of each call, float [runs], one after the other in this process; and what each returned last."""
    answers = {}

    def kept(name: str, call: Callable[[], object]) -> None:
        answers[name] = call()

    ready = {name: partial(kept, name, call) for name, call in calls.items()}
    return interleaved(ready, runs, machine.torch_device(), warm_up=1), answers


def alone(case: str, size: str, methods: list[str], runs: int) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Each method of `retrieval` in fresh processes, in turns: its seconds, float [runs], and the most MB of a call."""
    results = {method: [] for method in methods}
    for _ in range(runs):
        for method in methods:
            command = [sys.executable, "-m", "benchmarks.retrieval", case, method, size]
            done = subprocess.run(command, cwd=CODE, stdout=subprocess.PIPE, text=True, check=True)
            results[method].append([float(word) for word in done.stdout.split()[-2:]])
    seconds = {method: np.array(values)[:, 0] for method, values in results.items()}
    return seconds, {method: float(np.max(values, axis=0)[1]) for method, values in results.items()}


def beside_peers(case: str, machine: Machine, quick: bool = False) -> pd.DataFrame:
    """Rows of a case of `retrieval`, of every size. How far an answer is from reidlib's: in mAP, or in a distance."""
    table = []
    for size, runs in (retrieval.QUICK if quick else retrieval.SIZES[case]).items():
        methods = retrieval.methods(case, size)
        if (case, size) in retrieval.SLOW:
            seconds, memory = alone(case, size, list(methods), runs)
            table.append(rows(case, size, seconds, machine, peak_memory_mb=memory))
            continue
        sets = retrieval.draw(size)
        seconds, answers = in_turns({name: partial(call, sets) for name, call in methods.items()}, runs, machine)
        away = {n: float(np.abs(a - answers[OURS]).max()) for n, a in answers.items() if a is not None}
        memory = {} if quick else alone(case, size, list(methods), 1)[1]
        table.append(rows(case, size, seconds, machine, peak_memory_mb=memory, difference=away))
    return pd.concat(table, ignore_index=True)
