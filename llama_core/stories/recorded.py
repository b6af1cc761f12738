"""Loss and gradients as a CUDA graph: recorded once for each shape of batch, then replayed.

A small model's step is hundreds of kernels of a few microseconds each. Launching them one by one takes many times as
long as running them; a replayed graph launches them all at once.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from llama_core.model import Llama

from .data import END, IGNORED

#: From inputs and targets [B, S] to the loss and a gradient for every parameter.
Gradients = Callable[[Llama, Tensor, Tensor], tuple[Tensor, tuple[Tensor, ...]]]


class _Recording(NamedTuple):
    graph: torch.cuda.CUDAGraph
    inputs: Tensor
    targets: Tensor
    loss: Tensor
    gradients: tuple[Tensor, ...]


class RecordedGradients:
    """Computes what ``compute`` computes, from a recording. What it returns holds until the next call.

    Batches are padded to multiples of ``ROWS`` and ``LENGTH``, so that a few dozen recordings serve for all.
    """

    ROWS, LENGTH = 16, 32

    def __init__(self, compute: Gradients):
        self.compute = compute
        self.pool = torch.cuda.graph_pool_handle()
        self.recordings: dict[tuple[int, int], _Recording] = {}

    def __call__(self, model: Llama, inputs: Tensor, targets: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Loss and gradients of one batch."""
        inputs, targets = self.padded(inputs, END), self.padded(targets, IGNORED)
        shape = (inputs.shape[0], inputs.shape[1])
        if shape not in self.recordings:
            self.recordings[shape] = self._record(model, inputs, targets)
        recording = self.recordings[shape]
        recording.inputs.copy_(inputs)
        recording.targets.copy_(targets)
        recording.graph.replay()
        return recording.loss, recording.gradients

    @classmethod
    def padded(cls, ids: Tensor, filler: int) -> Tensor:
        """More rows and positions, at the end, of what is not learnt."""
        rows, length = ids.shape
        whole = torch.full((rows + -rows % cls.ROWS, length + -length % cls.LENGTH), filler)
        whole[:rows, :length] = ids
        return whole

    def _record(self, model: Llama, inputs: Tensor, targets: Tensor) -> _Recording:
        inputs, targets = inputs.to(model.device), targets.to(model.device)
        ahead = torch.cuda.Stream()
        ahead.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(ahead):  # what is made at the first call must not be part of the recording
            for _ in range(2):
                self.compute(model, inputs, targets)
        torch.cuda.current_stream().wait_stream(ahead)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.pool):
            loss, gradients = self.compute(model, inputs, targets)
        return _Recording(graph, inputs, targets, loss, gradients)
