"""Counting denials."""

from producer.audit.denials import OTHERS, Denials
from schemas.audit import AuditEvent, Outcome


def fail(reason: str = "invalid_api_key") -> AuditEvent:
    return AuditEvent("auth.fail", Outcome.DENIED, reason=reason, request_id="r1")


def test_the_first_is_told_at_once_and_the_rest_by_number() -> None:
    told: list[AuditEvent] = []
    denials = Denials(told.append)
    for _ in range(10_000):
        denials.add(fail(), "10.0.0.1")
    denials.add(fail("expired_token"), "10.0.0.1")
    assert [each.details["count"] for each in told] == [1, 1]
    denials.flush()
    denials.flush()
    assert [each.details["count"] for each in told] == [1, 1, 9999]
    assert (told[0].request_id, told[2].request_id) == ("r1", "")


def test_a_flood_from_everywhere_is_bounded_and_counted_all_the_same() -> None:
    told: list[AuditEvent] = []
    denials = Denials(told.append)
    for number in range(10_000):
        denials.add(fail(), f"2001:db8::{number:x}")
    denials.flush()
    assert len(told) < 300
    assert sum(int(each.details["count"]) for each in told) == 10_000
    assert told[-1].details["peer"] == OTHERS


def test_each_interval_begins_anew() -> None:
    told: list[AuditEvent] = []
    denials = Denials(told.append)
    for _ in range(3):
        denials.add(fail(), "10.0.0.1")
        denials.flush()
    assert [each.details["count"] for each in told] == [1, 1, 1]
