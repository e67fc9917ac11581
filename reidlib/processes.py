"""Training by several processes that ends, but for rounding, where training by one process ends.

`accelerate launch` starts the processes. All of them draw the same global batch and work out its outputs together: each
puts its share of the pictures through the network, in which batch norms and dropout act as on the whole batch. Then each
has all outputs and computes the same loss, so that triplets and pairs are formed across the whole batch. A process that
runs alone passes through all of this untouched.

One thing is not as with one process: stochastic depth other than dropout (timm's drop_path, off unless a network
has it by default) draws for the share alone.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
import torch.nn.functional as F
from accelerate.utils import recursively_apply
from filelock import FileLock
from torch import nn
from torch.overrides import TorchFunctionMode


def launched() -> int:
    """How many processes this one was launched with, itself included."""
    return int(os.environ.get("WORLD_SIZE", 1))


def count() -> int:
    """How many processes work together.

    Raises RuntimeError in one of several that have not met, where each would do all of the work, or wait for ever.
    """
    if dist.is_available() and dist.is_initialized():
        return dist.get_world_size()
    if launched() > 1:
        raise RuntimeError(
            f"this is one of {launched()} processes, but they have not met: launch scripts/train.py, which lets them"
        )
    return 1


def first() -> bool:
    """Whether this process is the one that writes."""
    return count() == 1 or dist.get_rank() == 0


def wait() -> None:
    """Until all processes are here."""
    if count() > 1:
        dist.barrier()


@contextmanager
def holding(lock: FileLock) -> Iterator[None]:
    """All processes together hold `lock`, which one of them has."""
    if not first():
        wait()
        yield
        return
    with lock:
        wait()
        yield


def share(batch):
    """This process's share of nested tensors [B, ...]: [B / processes, ...]. ValueError where it does not come out even."""

    def own(batch: torch.Tensor) -> torch.Tensor:
        if len(batch) % count():
            raise ValueError(
                f"{count()} processes can't share batches of {len(batch)} evenly: make the recipe's p x k (of pretraining: "
                "batch) a multiple of the number of processes, or launch another number"
            )
        return batch.chunk(count())[dist.get_rank()]

    return recursively_apply(own, batch) if count() > 1 else batch


def forward_shared(model, inputs: tuple):
    """model(*inputs) for a batch that all processes have, each having worked on its share; gradients flow through.

    Of the outputs, tensors [B, ...] come from all processes, in order; scalars are each process's own. Raises ValueError
    where the batch can't be shared evenly.
    """
    if count() == 1:
        return model(*inputs)
    with _WholeBatch():
        output = model(*share(inputs))
    return recursively_apply(lambda part: _Gather.apply(part) if part.ndim else part, output)


def average_gradients(model: nn.Module) -> None:
    """Turn the gradients that backward() left in each process into those of the whole batch.

    Each process differentiates the whole loss, and what it hands back through `forward_shared` is the sum over processes;
    so their mean is what one process has. Parameters without a gradient stay without, as with one process and unlike with
    torch's DistributedDataParallel.
    """
    if count() == 1:
        return
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    flat = torch.cat([g.reshape(-1) for g in gradients])
    dist.all_reduce(flat)
    for gradient, mean in zip(gradients, (flat / count()).split([g.numel() for g in gradients])):
        gradient.copy_(mean.view(gradient.shape))


class _Gather(torch.autograd.Function):
    """Shares [B / processes, ...] -> all of them in order, [B, ...]; their gradients are summed over processes."""

    @staticmethod
    def forward(ctx, own: torch.Tensor) -> torch.Tensor:
        parts = [torch.empty_like(own, memory_format=torch.contiguous_format) for _ in range(count())]
        dist.all_gather(parts, own.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> torch.Tensor:
        gradient = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(gradient)
        return gradient.chunk(count())[dist.get_rank()]


class _WholeBatch(TorchFunctionMode):
    """Within it, functions that look at a batch as a whole or draw for it act as if they saw all processes' shares.

    It stands where every batch norm calls torch, of whatever class (timm and transformers have their own), on CPU and
    GPU; torch's SyncBatchNorm does it for the GPU alone and as another class.
    """

    def __torch_function__(self, function, types, args=(), kwargs=None):
        return _OF_ALL_SHARES.get(function, function)(*args, **(kwargs or {}))


def _batch_norm(
    x, running_mean, running_var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5
) -> torch.Tensor:
    """F.batch_norm with the mean and variance of all shares; x: [B / processes, C, ...]."""
    if not training:  # frozen
        return F.batch_norm(x, running_mean, running_var, weight, bias, False, momentum, eps)
    own = torch.stack(torch.var_mean(x.float(), [0, *range(2, x.ndim)], correction=0))
    variances, means = _Gather.apply(own[None]).unbind(1)  # [processes, C]
    mean, variance = means.mean(0), variances.mean(0) + means.var(0, correction=0)  # shares are of equal size
    if running_mean is not None:
        n = x.numel() // x.shape[1] * count()
        running_mean.lerp_(mean.detach(), momentum)
        running_var.lerp_(variance.detach() * n / (n - 1), momentum)
    channels = (1, -1, *[1] * (x.ndim - 2))
    scale = (variance + eps).rsqrt() if weight is None else (variance + eps).rsqrt() * weight
    out = (x.float() - mean.view(channels)) * scale.view(channels)
    return (out if bias is None else out + bias.view(channels)).to(x.dtype)


def _dropout(x, p=0.5, training=True, inplace=False) -> torch.Tensor:
    """F.dropout that draws for all shares, as one process would, and keeps what falls on this one."""
    if not training or p == 0:
        return x
    return x * share(F.dropout(torch.ones_like(torch.cat([x.detach()] * count())), p))


_OF_ALL_SHARES = {F.batch_norm: _batch_norm, F.dropout: _dropout}
