"""The memory behind the pages."""

import mmap
from collections.abc import Sequence
from typing import NamedTuple

import torch

from workers.runners.base import IntArray
from workers.runners.torch.page_tables import PageCopy


class KvShape(NamedTuple):
    num_layers: int
    page_elements: int
    dtype: torch.dtype

    @property
    def page_bytes(self) -> int:
        """Keys and values of a page in all layers."""
        return 2 * self.num_layers * self.page_elements * int(self.dtype.itemsize)


class KvMemory:
    """Keys and values, each [layers, pages, page elements], and one page more to which nothing ever belongs.

    How elements lie within a page is the attention's affair.
    """

    def __init__(self, shape: KvShape, num_pages: int, device: torch.device) -> None:
        self.shape = shape
        self.spare_page = num_pages
        sizes = (shape.num_layers, num_pages + 1, shape.page_elements)
        self.keys = _zeros(sizes, shape.dtype, device)
        self.values = _zeros(sizes, shape.dtype, device)

    def copy(self, copies: Sequence[PageCopy]) -> None:
        for source, target in copies:
            for memory in (self.keys, self.values):
                memory[:, target] = memory[:, source]

    def save(self, pages: IntArray) -> bytes:
        index = torch.from_numpy(pages).to(self.keys.device, torch.int64)
        both = torch.stack([memory.index_select(1, index) for memory in (self.keys, self.values)])
        return bytes(both.view(torch.uint8).cpu().numpy())

    def num_bytes(self, num_pages: int) -> int:
        """What `save` gives for so many pages."""
        return self.shape.page_bytes * num_pages

    def load(self, pages: IntArray, data: bytes) -> None:
        """The reverse of `save`, into other pages, as many."""
        index = torch.from_numpy(pages).to(self.keys.device, torch.int64)
        sizes = (2, self.shape.num_layers, len(pages), self.shape.page_elements)
        both = torch.frombuffer(bytearray(data), dtype=self.shape.dtype).view(sizes).to(self.keys.device)
        for memory, part in zip((self.keys, self.values), both, strict=True):
            memory.index_copy_(1, index, part)


def _zeros(sizes: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    if device.type != "cpu":
        return torch.zeros(sizes, dtype=dtype, device=device)
    # Mapped, so that memory is taken when a page is first written and not before.
    num_elements = sizes[0] * sizes[1] * sizes[2]
    mapped = mmap.mmap(-1, num_elements * dtype.itemsize)
    return torch.frombuffer(mapped, dtype=dtype).view(sizes)
