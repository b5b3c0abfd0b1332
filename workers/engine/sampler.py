"""From a row of logits to a token."""

import math
from collections.abc import Iterable
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from schemas.errors import ErrorCode, ServingError
from schemas.requests import SamplingParams
from workers.engine.block_draws import BlockDraws
from workers.engine.draws import CounterDraws
from workers.engine.penalties import LogitEdits
from workers.runners.base import FloatArray

# Below this temperature the most likely token is taken, as in vLLM: division by less overflows.
_GREEDY_BELOW = 1e-5
# How far below the top, in natural logarithms, to look for the likeliest tokens, before sorting everything.
_LADDER = (2.0, 4.0, 7.0, 11.0, 16.0)
# A set of this size, or a threshold known this closely, is not worth narrowing down further before it is sorted.
_FEW = 256
_CLOSE = 0.25

IndexArray = npt.NDArray[np.intp]


class SamplerKind(StrEnum):
    """GREEDY takes the largest logit as it came, PLAIN draws from all of them, EDITED changes or filters them first."""

    GREEDY = "greedy"
    PLAIN = "plain"
    EDITED = "edited"


class SamplerScratch:
    """Buffers and random sources that all samplers of an engine share, on its thread."""

    __slots__ = ("block_draws", "draws", "edited")

    def __init__(self, vocab_size: int) -> None:
        self.draws = CounterDraws()
        self.block_draws = BlockDraws(vocab_size)
        self.edited = np.empty(vocab_size, np.float32)


class Sampler:
    """Draws one sequence's tokens.

    Order as in vLLM: logit bias and penalties, temperature, min-p, top-k, top-p over what is left. Ties go to the lower
    id. The draw for output token `index` depends on the row, the seed and the index, never on earlier draws.
    """

    __slots__ = ("_edits", "_params", "_scratch", "kind")

    def __init__(self, params: SamplingParams, prompt_ids: Iterable[int], scratch: SamplerScratch) -> None:
        self._params = params
        self._scratch = scratch
        edits = LogitEdits(params, prompt_ids)
        self._edits = None if edits.is_neutral else edits
        has_filters = params.top_k > 0 or params.top_p < 1 or params.min_p > 0
        if self._edits is not None or (has_filters and not self._is_greedy):
            self.kind = SamplerKind.EDITED
        else:
            self.kind = SamplerKind.GREEDY if self._is_greedy else SamplerKind.PLAIN

    @property
    def temperature(self) -> float:
        return self._params.temperature

    @property
    def _is_greedy(self) -> bool:
        return self._params.temperature < _GREEDY_BELOW or self._params.top_k == 1

    def uniform(self, index: int) -> float:
        """The random number in [0, 1) that decides output token `index`."""
        return self._scratch.draws.uniform(self._params.seed, index)

    def observe(self, token_id: int) -> None:
        """Note an output token, drawn here or replayed."""
        if self._edits is not None:
            self._edits.observe(token_id)

    def sample(self, row: FloatArray, index: int) -> int:
        """The output token number `index` from `row` (vocab_size,), which is left as it is. Raises ServingError."""
        if self._edits is not None:
            np.copyto(self._scratch.edited, row)
            row = self._scratch.edited
            self._edits.apply(row)
        best = int(row.argmax())
        top = float(row[best])
        if not np.isfinite(top):
            raise ServingError(ErrorCode.INTERNAL, "the model computed logits that are not finite", retryable=True)
        if self._is_greedy:
            return best
        return self._draw(row, top, index)

    def _draw(self, row: FloatArray, top: float, index: int) -> int:
        params = self._params
        uniform = self.uniform(index)
        if params.top_k:
            ids = _likeliest(row, top, params.top_k)
            if params.min_p > 0:
                ids = ids[row[ids] >= _min_p_floor(params, top)]
        elif params.min_p > 0:
            ids = _descending(row, np.flatnonzero(row >= _min_p_floor(params, top)))
        elif params.top_p < 1:
            return self._draw_nucleus(row, top, uniform)
        else:
            return self._draw_plain(row, top, uniform)
        weights = np.exp((row[ids].astype(np.float64) - top) / params.temperature)
        return _pick(ids, weights, params.top_p * float(weights.sum()), params.top_p, uniform)

    def _draw_plain(self, row: FloatArray, top: float, uniform: float) -> int:
        temperature = np.full(1, self._params.temperature, np.float32)
        [token_id] = self._scratch.block_draws.draw(
            row[None], np.full(1, top, np.float32), temperature, np.full(1, uniform)
        )
        return token_id

    def _draw_nucleus(self, row: FloatArray, top: float, uniform: float) -> int:
        """Top-p over the whole vocabulary: sort only the tokens above a threshold that leaves enough of the mass."""
        weights = self._scratch.block_draws.weigh(row, top, self._params.temperature)
        mass = self._params.top_p * float(weights.sum())
        ids = _descending(row, _heaviest(weights, mass))
        return _pick(ids, weights[ids].astype(np.float64), mass, self._params.top_p, uniform)


def _likeliest(row: FloatArray, top: float, count: int) -> IndexArray:
    """Ids of the `count` largest logits, largest first."""
    for depth in _LADDER:
        ids = np.flatnonzero(row >= top - depth)
        if len(ids) >= count:
            return _descending(row, ids)[:count]
    return _descending(row, np.arange(len(row)))[:count]


def _heaviest(weights: FloatArray, mass: float) -> IndexArray:
    """Ids of all weights above some threshold that leaves at least `mass`, and few more than needed."""
    low = 0.0
    for high in _LADDER:
        ids = np.flatnonzero(weights >= math.exp(-high))
        kept = weights[ids]
        if float(kept.sum()) >= mass:
            break
        low = high
    else:
        return np.arange(len(weights))
    while len(ids) > _FEW and high - low > _CLOSE:
        middle = (low + high) / 2
        few = np.flatnonzero(kept >= math.exp(-middle))
        if float(kept[few].sum()) < mass:
            low = middle
        else:
            ids, kept, high = ids[few], kept[few], middle
    return ids


def _min_p_floor(params: SamplingParams, top: float) -> float:
    """The logit whose probability is `min_p` times the largest."""
    return top + params.temperature * math.log(params.min_p)


def _descending(row: FloatArray, ids: IndexArray) -> IndexArray:
    order = np.argsort(-row[ids], kind="stable")
    return ids[order]


def _pick(ids: IndexArray, weights: npt.NDArray[np.float64], mass: float, top_p: float, uniform: float) -> int:
    """Draw from the shortest beginning of `ids` (by descending weight) whose weights reach `mass`."""
    sums = np.cumsum(weights)
    last = len(ids) - 1
    if top_p < 1:
        last = min(int(np.searchsorted(sums, mass, side="left")), last)
    place = int(np.searchsorted(sums, uniform * float(sums[last]), side="right"))
    return int(ids[min(place, last)])
