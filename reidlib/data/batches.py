"""Which images make a batch: as many of each identity as of any other."""

from collections.abc import Sequence

import numpy as np


def identity_batches(pids: Sequence[int] | np.ndarray, p: int, k: int, seed: int, epoch: int) -> np.ndarray:
    """One epoch of P x K batches: int64 indices into `pids`, [n_batches, p * k].

    A batch has `k` images of each of `p` different identities (Hermans et al. 2017), identity after identity. Each
    identity's images are shuffled and dealt in chunks of `k`; what is left over waits for another epoch, and one with
    fewer than `k` images repeats them as little as possible. (seed, epoch) alone decide, so a resumed run sees the
    same batches. Raises ValueError where p or k is too small or there are fewer than `p` identities.
    """
    pids = np.asarray(pids)
    if p < 2 or k < 1:
        raise ValueError(f"P x K batches need p >= 2 and k >= 1, not p={p}, k={k}")
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(len(pids))
    order = order[np.argsort(pids[order], kind="stable")]
    values, starts = np.unique(pids[order], return_index=True)
    if len(values) < p:
        raise ValueError(f"A batch needs p={p} different identities, but there are only {len(values)}; lower p")
    chunks = []
    for identity, images in enumerate(np.split(order, starts[1:])):
        dealt = np.resize(images, (max(1, len(images) // k), k))
        chunks += [(identity, chunk) for chunk in dealt]
    # Each chunk goes to the first open batch without its identity. The last few, never filled, are dropped.
    full, opened = [], []
    for i in rng.permutation(len(chunks)):
        identity, chunk = chunks[i]
        batch = next((b for b in opened if identity not in b), None)
        if batch is None:
            batch = {}
            opened.append(batch)
        batch[identity] = chunk
        if len(batch) == p:
            opened = [b for b in opened if b is not batch]
            full.append(np.concatenate(list(batch.values())))
    return np.stack(full)
