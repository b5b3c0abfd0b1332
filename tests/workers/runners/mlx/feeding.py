"""Batches for a session, built from what each handle is to get."""

from typing import NamedTuple

import numpy as np

from workers.runners.base import Batch, FloatArray, ForwardStatus, Handle
from workers.runners.mlx.session import Session


class Piece(NamedTuple):
    handle: Handle
    tokens: list[int]


def new_handle(session: Session) -> Handle:
    handle = session.table.create()
    assert handle is not None
    return handle


def batch(session: Session, *pieces: Piece, all_rows: bool = True) -> Batch:
    """Logits are wanted for all rows, or none."""
    starts = [session.table.get(piece.handle).length for piece in pieces]
    num_rows = sum(len(piece.tokens) for piece in pieces)
    return Batch(
        tokens=np.array([token for piece in pieces for token in piece.tokens], np.int32),
        handle_ids=np.array([piece.handle.id for piece in pieces for _ in piece.tokens], np.int32),
        positions=np.array(
            [start + n for start, piece in zip(starts, pieces, strict=True) for n in range(len(piece.tokens))], np.int32
        ),
        logit_rows=np.arange(num_rows if all_rows else 0, dtype=np.int32),
    )


def feed(session: Session, *pieces: Piece) -> list[FloatArray]:
    """For each piece its logits; the pass must succeed."""
    result = session.forward(batch(session, *pieces))
    assert result.status is ForwardStatus.OK and result.logits is not None
    ends = np.cumsum([len(piece.tokens) for piece in pieces])
    return [rows.copy() for rows in np.split(result.logits, ends[:-1])]


def tokens(num_tokens: int, seed: int, vocab_size: int = 101) -> list[int]:
    drawn: list[int] = np.random.default_rng(seed).integers(vocab_size, size=num_tokens).tolist()
    return drawn
