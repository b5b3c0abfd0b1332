"""Records of batch jobs survive their wire form."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.batch import BatchJob, LineError, decode_job, encode_job
from schemas.codec import CodecError

TEXTS = st.text(max_size=20)
COUNTS = st.none() | st.integers(0, 50_000)
ERRORS = st.builds(LineError, code=TEXTS, message=TEXTS, line=st.none() | st.integers(1, 50_000))


@given(
    st.builds(
        BatchJob,
        job=st.from_regex(r"[A-Za-z0-9_-]{1,40}", fullmatch=True),
        tenant=TEXTS,
        owner=TEXTS,
        models=st.lists(TEXTS, max_size=3).map(tuple),
        metadata=st.dictionaries(TEXTS, TEXTS, max_size=3),
        total=COUNTS,
        num_queued=COUNTS,
        errors=st.lists(ERRORS, max_size=3).map(tuple),
        created_at=st.integers(0, 2**33),
        expires_at=st.integers(0, 2**33),
        cancelled_at=st.none() | st.integers(0, 2**33),
    )
)
def test_a_record_is_read_as_it_was_written(job: BatchJob) -> None:
    assert decode_job(encode_job(job)) == job


@given(st.binary(max_size=50))
def test_anything_else_is_refused(payload: bytes) -> None:
    with pytest.raises(CodecError):
        decode_job(payload)
