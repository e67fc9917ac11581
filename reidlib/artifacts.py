"""Where finished and half-finished work lives.

A unit of work is kept in a folder named by what it is and by a hash of all it depends on (its key): params, data, the
units it builds on, and the code that makes it. Ask for it again and it is loaded; change anything it depends on and
it is made anew, the old one left in place. Two processes asking for the same unit make it once; processes that were
launched together train it together, and the first of them writes it.

    store = Store("artifacts/demo")
    store.fit("expert-clip", key, model, train)      # a trained network
    store.arrays("embeddings", key, compute)         # named arrays
"""

import ast
import hashlib
import importlib
import inspect
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from filelock import FileLock
from pydantic import BaseModel
from safetensors.numpy import load_file, save_file
from safetensors.torch import load_model, save_model
from torch import nn

from reidlib import processes
from reidlib.provenance import origin

# the modules whose code decides what a trained network is; figures or tables don't
TRAINING_CODE = ("data.store", "data.batches", "data.augment", "encoders", "models", "losses", "processes", "training")


def digest(key) -> str:
    """Short hash of a JSON-like key; pydantic models count by their content."""
    plain = lambda x: x.model_dump(mode="json") if isinstance(x, BaseModel) else str(x)  # noqa: E731
    return hashlib.sha256(json.dumps(key, sort_keys=True, default=plain).encode()).hexdigest()[:12]


@cache
def code_version(modules: tuple[str, ...] = TRAINING_CODE) -> str:
    """Hash of what the named modules do, those of reidlib without its name: comments, docstrings, layout don't count."""
    full = [name if name.startswith("toydata.") else f"reidlib.{name}" for name in modules]
    return digest([_skeleton(inspect.getsource(importlib.import_module(name))) for name in full])


def _skeleton(source: str) -> str:
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return ast.dump(tree)


@dataclass(frozen=True)
class Store:
    """A folder of units of work."""

    root: Path

    def folder(self, name: str, key: dict) -> Path:
        """The unit's folder, made if need be, with its key in key.json for the curious."""
        folder = Path(self.root) / name / digest(key)
        folder.mkdir(parents=True, exist_ok=True)
        plain = lambda x: x.model_dump(mode="json") if isinstance(x, BaseModel) else str(x)  # noqa: E731
        (folder / "key.json").write_text(json.dumps(key, indent=1, sort_keys=True, default=plain))
        return folder

    def fit(self, name: str, key: dict, model: nn.Module, train: Callable[[nn.Module, Path], pd.DataFrame]) -> Path:
        """Bring `model` to its trained state: load it if it was trained before, else train it.

        Args:
            name, key: what it is, and all it depends on.
            model: freshly built; its weights are replaced.
            train: called as train(model, folder); keeps its checkpoints in folder (so that an interrupted run goes
                on where it stopped) and returns the history, one row an epoch.
        Returns:
            The unit's folder, with weights.safetensors, history.csv and made.json: seconds (since it was resumed, if it
            was), resumed, processes, finished, and what `provenance.origin` says.
        """
        folder = self.folder(name, key)
        with processes.holding(FileLock(folder / "lock")):
            weights = folder / "weights.safetensors"
            if not weights.exists():
                start, resumed = time.perf_counter(), any(folder.glob("checkpoint*"))
                history = train(model, folder)
                if processes.first():
                    history.to_csv(folder / "history.csv", index=False)
                    self._made(folder, start, resumed=resumed, processes=processes.count())
                    whole(weights, lambda path: save_model(model, str(path)))
                    for checkpoint in folder.glob("checkpoint*"):
                        checkpoint.unlink()
                processes.wait()
            load_model(model, str(weights))
        return folder

    def arrays(self, name: str, key: dict, compute: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """Named arrays: loaded if they were computed before, else computed and kept.

        Of processes that were launched together one computes while the others wait: `compute` must not train.
        """
        folder = self.folder(name, key)
        with FileLock(folder / "lock"):
            file = folder / "arrays.safetensors"
            if not file.exists():
                start = time.perf_counter()
                arrays = {k: np.ascontiguousarray(v) for k, v in compute().items()}
                self._made(folder, start)
                whole(file, lambda path: save_file(arrays, str(path)))
            return load_file(file)

    @staticmethod
    def _made(folder: Path, start: float, **more) -> None:
        record = {"seconds": round(time.perf_counter() - start, 2), "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
        (folder / "made.json").write_text(json.dumps(record | more | origin(), indent=1))


def whole(path: Path, write: Callable[[Path], None]) -> None:
    """write(file) a file under another name first, so that one named `path` is always whole, whoever writes it too."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    write(partial)
    os.replace(partial, path)
