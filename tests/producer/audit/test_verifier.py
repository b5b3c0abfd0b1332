"""Whatever is done to records, whoever verifies them is told, and where."""

import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producer.audit.export import FileVerifier, end_line, head_line
from producer.audit.keys import AuditKeys
from producer.audit.line import parse, with_place
from producer.audit.record import Link, Seen, Writer, write_line
from producer.audit.report import Report
from producer.audit.verifier import STREAM, Verifier
from schemas.audit import AuditEvent, Outcome

KEYS = AuditKeys(b"pepper")
Stored = list[tuple[int, bytes]]


def stored(*blocks: tuple[str, int]) -> Stored:
    """Lines and their sequences: for each block its writer and how many records it has."""
    found: Stored = []
    ends: dict[str, Link] = {}
    for seq, (writer, count) in enumerate(blocks, start=1):
        behind = end = ends.get(writer, Link())
        seen = Seen(seq - 1, parse(found[-1][1]).mac) if found else None
        for index in range(count):
            event = AuditEvent("limits.set", Outcome.ALLOWED, actor="root", target=f"{seq}.{index}")
            line = write_line(KEYS, Writer(writer, "run"), end, event, 1_800_000_000 + seq, seen)
            end, seen = Link(end.number + 1, parse(line).mac, behind.seq), None
            found.append((seq, line))
        ends[writer] = end._replace(seq=seq)
    return found


THREE = (("a", 2), ("b", 1), ("a", 1), ("c", 3), ("b", 2), ("a", 1), ("c", 1))


def verify_stream(lines: Stored, first_seq: int = 1, **ending: object) -> Report:
    verifier = Verifier(KEYS, STREAM, first_seq=first_seq)
    for seq, line in lines:
        verifier.feed(line, seq=seq)
    return verifier.finish(**ending)  # type: ignore[arg-type]


def export(lines: Stored) -> list[bytes]:
    head = head_line(KEYS, lines[0][0], lines[-1][0], 1_800_000_100)
    return [head, *log(lines), end_line(KEYS, head, len(lines))]


def log(lines: Stored) -> list[bytes]:
    return [with_place(KEYS, line, seq) for seq, line in lines]


def verify_file(lines: list[bytes]) -> Report:
    verifier = FileVerifier(KEYS)
    for line in lines:
        verifier.feed(line)
    return verifier.finish()


def text_of(lines: list[bytes]) -> bytes:
    return b"".join(line + b"\n" for line in lines)


def verify_text(text: bytes) -> Report:
    """As a file is read."""
    lines = text.split(b"\n")
    return verify_file(lines[:-1] if not lines[-1] else lines)


KINDS: dict[str, Callable[[Stored], list[bytes]]] = {"export": export, "log": log}
kinds = pytest.mark.parametrize("kind", KINDS)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 3)), min_size=1, max_size=12))
def test_what_nobody_touched_is_genuine(blocks: list[tuple[str, int]]) -> None:
    lines = stored(*blocks)
    for report in (verify_stream(lines), verify_file(export(lines)), verify_file(log(lines))):
        assert (report.problems, report.num_records) == ([], len(lines))


@kinds
@pytest.mark.parametrize("flip", [0x01, 0x20, 0x80])
def test_every_flipped_byte_is_found(kind: str, flip: int) -> None:
    lines = KINDS[kind](stored(("a", 2), ("b", 1), ("a", 1)))
    text = text_of(lines)
    for position in range(len(text)):
        changed = bytearray(text)
        changed[position] ^= flip
        report = verify_text(bytes(changed))
        assert not report.is_ok, position
        line = text.count(b"\n", 0, position) + 1
        assert report.problems[0].line in (line, line + 1, len(lines), len(lines) + 1), (position, report.problems)


def test_every_byte_flipped_in_a_stored_block_is_found() -> None:
    lines = stored(("a", 2), ("b", 1), ("a", 1))
    for index, (seq, line) in enumerate(lines):
        for position in range(len(line)):
            changed = bytes([*line[:position], line[position] ^ 0x01, *line[position + 1 :]])
            report = verify_stream([*lines[:index], (seq, changed), *lines[index + 1 :]])
            assert report.problems[0].seq == seq


def test_every_line_taken_out_of_an_export_is_named() -> None:
    lines = export(stored(*THREE))
    for index in range(len(lines)):
        report = verify_file(lines[:index] + lines[index + 1 :])
        assert not report.is_ok
        if 0 < index < len(lines) - 2:
            assert report.problems[0].line in (index + 1, index + 2), (index, report.problems)


def test_lines_taken_out_of_a_log_are_named_unless_they_are_its_beginning_or_its_end() -> None:
    lines = log(stored(*[("a", count) for count in (1, 3, 1, 2)]))
    for index in range(1, len(lines) - 1):
        report = verify_file(lines[:index] + lines[index + 1 :])
        assert report.problems[0].line == index + 1
        assert f"number {index + 1} of its chain is not there" in report.problems[0].reason


@kinds
def test_swapped_lines_are_named(kind: str) -> None:
    lines = KINDS[kind](stored(*[("a", count) for count in (1, 3, 1, 2)]))
    first = 1 if kind == "export" else 0
    for one in range(first, len(lines) - first):
        for other in range(one + 1, len(lines) - first):
            swapped = list(lines)
            swapped[one], swapped[other] = lines[other], lines[one]
            report = verify_file(swapped)
            assert not report.is_ok
            assert report.problems[0].line in (one + 1, one + 2), (one, other, report.problems)


def test_swapped_lines_of_different_writers_are_found_in_an_export() -> None:
    lines = export(stored(*THREE))
    for one in range(1, len(lines) - 1):
        swapped = list(lines)
        swapped[one], swapped[-2] = lines[-2], lines[one]
        assert verify_file(swapped).is_ok == (one == len(lines) - 2)


def test_a_truncated_export_is_found_wherever_it_ends() -> None:
    text = text_of(export(stored(*THREE)))
    assert verify_text(text[:-1]).is_ok
    for length in range(text.index(b"\n") + 1, len(text) - 1):
        assert not verify_text(text[:length]).is_ok, length


def test_a_line_that_a_crash_cut_off_is_no_problem_when_it_was_written_again() -> None:
    whole = log(stored(("a", 1), ("a", 1), ("a", 1)))
    report = verify_file([whole[0], whole[1][:50], whole[1], whole[2]])
    assert (report.is_ok, report.num_torn) == (True, 1)
    assert verify_file([whole[0], whole[1][:50], whole[2]]).problems[0].line == 2
    assert verify_file([*whole, whole[2][:50]]).problems[0].line == 4


def test_a_repeated_line_is_named() -> None:
    whole = log(stored(("a", 1), ("a", 1)))
    assert verify_file([*whole, whole[1]]).problems[0].line == 3


def test_a_block_taken_out_of_the_stream_is_a_hole() -> None:
    lines = stored(*THREE)
    report = verify_stream([each for each in lines if each[0] != 4])
    assert (report.problems[0].seq, report.problems[0].reason) == (5, "sequence 4 is not there, 1 in all")


def renumbered(lines: Stored, without: set[int]) -> Stored:
    """As somebody would store them who writes the stream anew."""
    kept = sorted({seq for seq, _ in lines} - without)
    return [(kept.index(seq) + 1, line) for seq, line in lines if seq in kept]


def test_a_stream_written_anew_without_a_writer_contradicts_the_others() -> None:
    lines = stored(*THREE)
    for writer in "abc":
        without = {seq for seq, line in lines if parse(line).writer == writer}
        assert not verify_stream(renumbered(lines, without)).is_ok


def test_what_is_cut_off_behind_the_last_named_block_is_not_found_by_itself() -> None:
    lines = stored(*THREE)
    # Nobody but the writer itself knows that there was more.
    cut = [each for each in lines if each[0] < 7]
    assert verify_stream(cut).is_ok
    last = parse(lines[-1][1])
    report = verify_stream(cut, end=Link(last.number, last.mac, 7), writer="c")
    assert "the end is cut off" in report.problems[0].reason


def test_a_stream_that_was_trimmed_at_its_beginning_is_whole_from_there() -> None:
    lines = [each for each in stored(*THREE) if each[0] > 3]
    assert verify_stream(lines, first_seq=4).is_ok
    assert verify_file(export(lines)).is_ok
    # Nobody else's beginning may be missing.
    assert not verify_stream(lines, first_seq=1).is_ok


def test_records_of_another_pepper_are_told_as_such() -> None:
    line = log(stored(("a", 1)))[0]
    verifier = FileVerifier(AuditKeys(b"another"))
    verifier.feed(line)
    assert "another pepper" in verifier.finish().problems[0].reason


@given(st.binary(max_size=200), st.integers(0, 2))
def test_anything_may_be_fed(junk: bytes, where: int) -> None:
    lines = log(stored(("a", 1), ("a", 1)))
    junk = junk.replace(b"\n", b"")
    is_torn = where < len(lines) and lines[where].startswith(junk)  # as a crash leaves it
    lines.insert(where, junk)
    assert junk == b"" or verify_file(lines).is_ok == is_torn


def test_a_random_forger_without_the_pepper_changes_nothing_unseen() -> None:
    chances = random.Random(1)
    text = text_of(export(stored(*THREE)))
    for _ in range(300):
        changed = bytearray(text)
        for _ in range(chances.randint(1, 8)):
            position = chances.randrange(len(changed))
            changed[position : position + chances.randint(0, 3)] = chances.randbytes(chances.randint(0, 3))
        if bytes(changed) != text:
            assert not verify_text(bytes(changed)).is_ok or bytes(changed) == text[:-1]
