"""Attention of new rows over pages: `plan_attention` once a step, `attend` once a layer.

Rows that decode are computed together, in groups of sequences that are about as long as each other, padded to the
longest; a prompt's chunk is computed by itself. `scaled_dot_product_attention` picks the kernel of the device: on CPU
and CUDA none that fills a rows x positions matrix.

NOTE: nothing here has run on a GPU.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

from workers.checkpoints import ModelConfig
from workers.runners.base import IntArray
from workers.runners.torch.pages import PAGE_SIZE, num_pages
from workers.runners.torch.step import Step

_attention = torch.nn.functional.scaled_dot_product_attention


class Heads(NamedTuple):
    """How a row of queries, and of keys, is divided."""

    num_heads: int
    num_kv_heads: int
    head_dim: int

    @property
    def page_elements(self) -> int:
        return PAGE_SIZE * self.num_kv_heads * self.head_dim


def heads_of(config: ModelConfig) -> Heads:
    return Heads(config.num_heads, config.num_kv_heads, config.head_dim)


class Group(NamedTuple):
    """Sequences whose attention is computed in one call, each with the same number of rows.

    `rows`: where theirs are in the batch. `pages`: of all of them, one table behind the other; a slice where they are
    one run, which is then read in place. `mask`: added to the scores.
    """

    rows: slice | torch.Tensor
    num_sequences: int
    pages: slice | torch.Tensor
    mask: torch.Tensor


def plan_attention(step: Step, dtype: torch.dtype, device: torch.device) -> list[Group]:
    decodes = np.flatnonzero(step.counts == 1).astype(np.int32)
    groups = [_decode_group(step, members, dtype, device) for members in _alike(step, decodes)]
    return groups + [_chunk_group(step, int(at), dtype, device) for at in np.flatnonzero(step.counts > 1)]


def attend(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, groups: list[Group], heads: Heads
) -> torch.Tensor:
    """Queries [rows, heads x head_dim], keys and values a layer's pages; the rows' own are in them already."""
    if len(groups) == 1:
        return _attend_group(queries, keys, values, groups[0], heads)
    output = torch.empty_like(queries)
    for group in groups:
        output[group.rows] = _attend_group(queries[group.rows], keys, values, group, heads)
    return output


def _attend_group(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, group: Group, heads: Heads
) -> torch.Tensor:
    key, value = (_gather(memory, group, heads) for memory in (keys, values))
    if queries.shape[0] == group.num_sequences:
        # One row each: the query heads that share a key head are rows of one matrix.
        query = queries.view(group.num_sequences, heads.num_kv_heads, -1, heads.head_dim)
        return _attention(query, key, value, attn_mask=group.mask).reshape(queries.shape)
    query = queries.view(1, -1, heads.num_heads, heads.head_dim).transpose(1, 2)
    output = _attention(query, key, value, attn_mask=group.mask, enable_gqa=True)
    return output.transpose(1, 2).reshape(queries.shape)


def _gather(memory: torch.Tensor, group: Group, heads: Heads) -> torch.Tensor:
    """[sequences, key heads, positions, head_dim]"""
    pages = memory[group.pages] if isinstance(group.pages, slice) else memory.index_select(0, group.pages)
    return pages.view(group.num_sequences, -1, heads.num_kv_heads, heads.head_dim).transpose(1, 2)


def _alike(step: Step, members: IntArray) -> Iterator[IntArray]:
    """Divided so that in each group the longest has less than twice the pages of the shortest."""
    if not len(members):
        return
    pages = (step.lengths[members] + PAGE_SIZE - 1) // PAGE_SIZE
    classes = np.frexp(pages)[1]
    for size_class in np.unique(classes):
        yield members[classes == size_class]


def _decode_group(step: Step, members: IntArray, dtype: torch.dtype, device: torch.device) -> Group:
    lengths = step.lengths[members]
    most = num_pages(int(lengths.max()))
    tables = step.tables[members, :most]
    # Behind its end a table holds leftovers; the mask hides what is in those pages.
    mask = _mask(np.arange(most * PAGE_SIZE) < lengths[:, None], dtype, device)
    return Group(_rows(step.starts[members], device), len(members), _pages(tables, device), mask[:, None, None])


def _chunk_group(step: Step, at: int, dtype: torch.dtype, device: torch.device) -> Group:
    start, count, length = int(step.starts[at]), int(step.counts[at]), int(step.lengths[at])
    tables = step.tables[at : at + 1, : num_pages(length)]
    seen = np.arange(length - count, length)[:, None] >= np.arange(tables.shape[1] * PAGE_SIZE)
    mask = _mask(seen, dtype, device)
    return Group(slice(start, start + count), 1, _pages(tables, device), mask)


def _rows(rows: IntArray, device: torch.device) -> slice | torch.Tensor:
    first, count = int(rows[0]), len(rows)
    if int(rows[-1]) - first + 1 == count:
        return slice(first, first + count)
    return torch.from_numpy(rows).to(device, torch.int64)


def _pages(tables: IntArray, device: torch.device) -> slice | torch.Tensor:
    pages = tables.reshape(-1)
    first = int(pages[0])
    if (pages == np.arange(first, first + len(pages))).all():
        return slice(first, first + len(pages))
    return torch.from_numpy(pages).to(device, torch.int64)


def _mask(is_seen: np.ndarray, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    mask = torch.zeros(is_seen.shape, dtype=dtype)
    mask.masked_fill_(torch.from_numpy(~is_seen), float("-inf"))
    return mask.to(device)
