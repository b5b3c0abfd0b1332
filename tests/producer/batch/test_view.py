"""What a batch is follows from its record and its counts, whatever they are."""

from hypothesis import given
from hypothesis import strategies as st
from openai.types import Batch

from producer.edge.batch.view import BatchStatus, Standing, batch_object, status_of
from schemas.batch import BatchJob, LineError

CREATED = 1_000_000
EXPIRES = CREATED + 86_400
TIMES = st.integers(CREATED, EXPIRES + 86_400)
ENDED = {BatchStatus.COMPLETED, BatchStatus.CANCELLED, BatchStatus.EXPIRED, BatchStatus.FAILED}


@st.composite
def jobs(draw: st.DrawFn) -> BatchJob:
    total = draw(st.integers(0, 20))
    return BatchJob(
        job="batch_1",
        tenant="t",
        owner="o",
        total=total,
        num_queued=draw(st.integers(0, total)),
        errors=draw(st.sampled_from([(), (LineError(code="c", message="m", line=1),)])),
        created_at=CREATED,
        expires_at=EXPIRES,
        cancelled_at=draw(st.none() | st.integers(CREATED, EXPIRES)),
        metadata=draw(st.sampled_from([{}, {"a": "b"}])),
    )


@st.composite
def cases(draw: st.DrawFn) -> tuple[BatchJob, Standing]:
    job = draw(jobs())
    done = draw(st.integers(0, job.total or 0))
    failed = draw(st.integers(0, (job.total or 0) - done))
    now = draw(TIMES)
    last_at = float(draw(st.integers(CREATED, now))) if done + failed else None
    return job, Standing(done, failed, last_at, float(now))


@given(cases())
def test_it_has_ended_when_each_line_has_its_result_and_not_before(case: tuple[BatchJob, Standing]) -> None:
    job, standing = case
    has_ended = status_of(job, standing) in ENDED
    assert has_ended is (bool(job.errors) or standing.done + standing.failed == job.total)


@given(cases(), st.integers(0, 10**7))
def test_an_end_stays_as_it_is(case: tuple[BatchJob, Standing], later_s: int) -> None:
    job, standing = case
    status = status_of(job, standing)
    if status in ENDED:
        assert status_of(job, standing._replace(now=standing.now + later_s)) is status


@given(cases())
def test_it_is_a_batch_of_openais(case: tuple[BatchJob, Standing]) -> None:
    job, standing = case
    shown = batch_object(job, standing)
    assert shown.keys() <= set(Batch.model_fields)
    batch = Batch.model_validate(shown)
    assert batch.request_counts is not None
    assert (batch.output_file_id is not None) is (batch.request_counts.completed > 0)
    assert (batch.error_file_id is not None) is (batch.request_counts.failed > 0)
    named = {name.removesuffix("_at") for name in ("completed_at", "failed_at", "expired_at", "cancelled_at")}
    times = {name for name in named if shown[f"{name}_at"] is not None}
    assert times <= {batch.status}
    assert (batch.errors is not None) is (batch.status == "failed")


def test_what_was_over_before_it_could_be_cancelled_is_complete() -> None:
    job = BatchJob(job="j", tenant="t", owner="o", total=1, created_at=1, expires_at=100, cancelled_at=50)
    assert status_of(job, Standing(1, 0, 49.0, 60.0)) is BatchStatus.COMPLETED
    assert status_of(job, Standing(0, 1, 50.5, 60.0)) is BatchStatus.CANCELLED
    assert status_of(job, Standing(0, 0, None, 60.0)) is BatchStatus.CANCELLING
