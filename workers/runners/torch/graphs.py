"""Steps that only decode, recorded once per size and played back: on a GPU, launching a thousand small kernels from
Python takes longer than running them.

A recorded step reads its inputs where they were when it was recorded, so those are buffers that are filled before each
run, and sizes are rounded up: rows that stand for nobody write to the spare page and read from it.

NOTE: recording has not run on a GPU. Without it the same buffers and sizes are used on any device, which is what the
tests run.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from workers.runners.torch.attention import Group
from workers.runners.torch.pages import PAGE_SIZE
from workers.runners.torch.step import Step

MAX_ROWS = 64
# Of a recorded step, in pages for all rows together: beyond that launching is no longer what counts.
MAX_PAGES = 8192


class StepTensors(NamedTuple):
    """A step on the device. `cos` and `sin` are [rows, 1, head_dim / 2]."""

    tokens: torch.Tensor
    cos: torch.Tensor
    sin: torch.Tensor
    slots: torch.Tensor
    groups: list[Group]
    logit_rows: torch.Tensor


Compute = Callable[[StepTensors], torch.Tensor]
Record = Callable[[Callable[[], torch.Tensor]], Callable[[], torch.Tensor]]


def record_cuda(function: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
    """Run a few times, as what is allocated lazily must be there, then record."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):
            function()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = function()

    def play() -> torch.Tensor:
        graph.replay()
        return output

    return play


class Size(NamedTuple):
    rows: int
    pages: int


@dataclass(frozen=True, slots=True)
class Recorded:
    tensors: StepTensors
    play: Callable[[], torch.Tensor]


class DecodeGraphs:
    """Owns the buffers. `rope` is (cos, sin) by position."""

    def __init__(
        self,
        compute: Compute,
        rope: tuple[torch.Tensor, torch.Tensor],
        dtype: torch.dtype,
        spare_page: int,
        record: Record = record_cuda,
    ) -> None:
        self._compute = compute
        self._rope = rope
        self._device = rope[0].device
        self._dtype = dtype
        self._spare_page = spare_page
        self._record = record
        self._recorded: dict[Size, Recorded] = {}

    def size_of(self, step: Step) -> Size | None:
        """The size that a step is rounded up to; None for one that is not to be recorded."""
        num_rows, num_pages = step.tables.shape
        if len(step.tokens) != num_rows or len(step.logit_rows) != num_rows:
            return None
        size = Size(_power_of_two(num_rows), _power_of_two(num_pages))
        return size if size.rows <= MAX_ROWS and size.rows * size.pages <= MAX_PAGES else None

    def run(self, step: Step, size: Size) -> torch.Tensor:
        """Logits of the step's rows, valid until the next run."""
        recorded = self._recorded.get(size)
        if recorded is None:
            tensors = self._buffers(size)
            self._fill(tensors, step, size)
            recorded = Recorded(tensors, self._record(lambda: self._compute(tensors)))
            self._recorded[size] = recorded
        self._fill(recorded.tensors, step, size)
        return recorded.play()[: len(step.tokens)]

    def _buffers(self, size: Size) -> StepTensors:
        def indices(count: int) -> torch.Tensor:
            return torch.zeros(count, dtype=torch.int64, device=self._device)

        half = self._rope[0].shape[1]
        cos, sin = (torch.zeros((size.rows, 1, half), device=self._device) for _ in range(2))
        mask = torch.zeros((size.rows, 1, 1, size.pages * PAGE_SIZE), dtype=self._dtype, device=self._device)
        group = Group(slice(0, size.rows), size.rows, indices(size.rows * size.pages), mask)
        rows = torch.arange(size.rows, device=self._device)
        return StepTensors(indices(size.rows), cos, sin, indices(size.rows), [group], rows)

    def _fill(self, tensors: StepTensors, step: Step, size: Size) -> None:
        num_rows, num_pages = step.tables.shape
        tables = np.full(size, self._spare_page, np.int64)
        tables[:num_rows, :num_pages] = step.tables
        lengths = np.ones(size.rows, np.int64)
        lengths[:num_rows] = step.lengths
        slots = np.full(size.rows, self._spare_page * PAGE_SIZE, np.int64)
        slots[:num_rows] = step.slots
        self._copy(tensors.tokens, _padded(step.tokens, size.rows))
        self._copy(tensors.slots, slots)
        positions = torch.from_numpy(lengths - 1).to(self._device)
        for target, table in zip((tensors.cos, tensors.sin), self._rope, strict=True):
            target.copy_(table.index_select(0, positions)[:, None])
        [group] = tensors.groups
        assert isinstance(group.pages, torch.Tensor)
        self._copy(group.pages, tables.reshape(-1))
        places = torch.arange(size.pages * PAGE_SIZE, device=self._device)
        is_hidden = places >= torch.from_numpy(lengths).to(self._device)[:, None]
        group.mask.zero_().masked_fill_(is_hidden[:, None, None], float("-inf"))

    def _copy(self, target: torch.Tensor, array: np.ndarray) -> None:
        source = torch.from_numpy(array)
        if self._device.type == "cuda":
            source = source.pin_memory()
        target.copy_(source, non_blocking=True)


def _padded(array: np.ndarray, size: int) -> np.ndarray:
    padded = np.zeros(size, np.int64)
    padded[: len(array)] = array
    return padded


def _power_of_two(number: int) -> int:
    return 1 << (number - 1).bit_length()
