"""The rows of a step that can be drawn together."""

import math

import numpy as np

from workers.engine.sampler import SamplerKind, SamplerScratch
from workers.engine.sequence import Sequence
from workers.runners.base import FloatArray


def draw_together(logits: FloatArray, sequences: list[Sequence], scratch: SamplerScratch) -> list[int | None]:
    """A token for every sequence that needs only the largest logit or a plain draw; None where its sampler must do it.

    `logits` has a row for each sequence. Rows that are not finite are left to the samplers too, which complain.
    """
    if len(sequences) == 1 and sequences[0].sampler.kind is SamplerKind.GREEDY:
        token_id = int(logits[0].argmax())
        return [token_id if math.isfinite(logits[0, token_id]) else None]
    drawn: list[int | None] = [None] * len(sequences)
    kinds = [sequence.sampler.kind for sequence in sequences]
    if all(kind is SamplerKind.EDITED for kind in kinds):
        return drawn
    best = logits.argmax(axis=1)
    tops = logits[np.arange(len(best)), best]
    best_ids, is_finite = best.tolist(), np.isfinite(tops).tolist()
    plain = []
    for row, kind in enumerate(kinds):
        if is_finite[row] and kind is SamplerKind.GREEDY:
            drawn[row] = best_ids[row]
        elif is_finite[row] and kind is SamplerKind.PLAIN:
            plain.append(row)
    if plain:
        samplers = [sequences[row].sampler for row in plain]
        uniforms = [sequences[row].sampler.uniform(sequences[row].num_output) for row in plain]
        ids = scratch.block_draws.draw(
            logits if len(plain) == len(logits) else logits[plain],
            tops[plain],
            np.array([sampler.temperature for sampler in samplers], np.float32),
            np.array(uniforms),
        )
        for row, token_id in zip(plain, ids, strict=True):
            drawn[row] = token_id
    return drawn
