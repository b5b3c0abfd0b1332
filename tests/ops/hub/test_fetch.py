"""Models of a hub: which files, once, whole, and without it when it is not needed."""

import hashlib
import logging
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ops.hub.errors import HubError, HubUnreachable, NotHere, WrongBytes
from ops.hub.hub import Hub
from tests.support.fake_hub import FakeHub

HubAt = Callable[..., Hub]
GGUF = b"GGUF" + bytes(range(256)) * 4000
OTHER = b"GGUF" + b"other" * 4000
FOLDER = {
    "config.json": b'{"model_type": "llama"}',
    "model-00001-of-00002.safetensors": b"first" * 100,
    "model-00002-of-00002.safetensors": b"second" * 100,
    "model.safetensors.index.json": b"index" * 100,
    "consolidated.safetensors": b"a copy" * 100,
    "tokenizer.json": b"tokens" * 100,
    "chat_template.jinja": b"{{ messages }}",
    "pytorch_model.bin": b"pickled" * 100,
    "onnx/model.onnx": b"onnx" * 100,
    "README.md": b"read me",
}


def test_the_one_gguf_file_is_downloaded_once(fake_hub: FakeHub, hub_at: HubAt, tmp_path: Path) -> None:
    commit = fake_hub.repo("org/repo").commit({"model.gguf": GGUF, "mmproj-model.gguf": OTHER, "README.md": b"hello"})
    seen: list[tuple[int, int]] = []
    path = hub_at().fetch("hf:org/repo", lambda done, total: seen.append((done, total)))
    assert path == tmp_path / "org/repo" / commit / "model.gguf" and path.read_bytes() == GGUF
    digest = hashlib.sha256(GGUF).hexdigest()
    assert path.with_name("model.gguf.sha256").read_text() == f"{digest}  model.gguf\n"
    assert seen[0] == (0, len(GGUF)) and seen[-1] == (len(GGUF), len(GGUF)) and seen == sorted(seen)
    assert hub_at().fetch("hf:org/repo/model.gguf") == path
    assert len(fake_hub.downloads()) == 1
    assert not list(tmp_path.rglob("*.partial"))


def test_a_folder_is_what_a_runner_needs_of_it(fake_hub: FakeHub, hub_at: HubAt) -> None:
    fake_hub.repo("org/repo", FOLDER)
    folder = hub_at().fetch("hf:org/repo")
    there = {path.name for path in folder.iterdir() if path.suffix != ".sha256"}
    assert there == set(FOLDER) - {"consolidated.safetensors", "pytorch_model.bin", "onnx/model.onnx", "README.md"}
    assert all((folder / name).read_bytes() == FOLDER[name] for name in there)


def test_a_file_in_parts_is_had_whole(fake_hub: FakeHub, hub_at: HubAt) -> None:
    parts = {f"q8/m-{number:05d}-of-00003.gguf": GGUF[:-number] for number in (1, 2, 3)}
    fake_hub.repo("org/parts", parts)
    for source in ("hf:org/parts", "hf:org/parts/q8/m-00002-of-00003.gguf"):
        first = hub_at().fetch(source)
        assert first.name == "m-00001-of-00003.gguf" and len(list(first.parent.glob("*.gguf"))) == 3
    del parts["q8/m-00003-of-00003.gguf"]
    fake_hub.repo("org/less", parts)
    with pytest.raises(HubError, match="of 3 parts 1 are missing"):
        hub_at().fetch("hf:org/less")


def test_a_pinned_model_needs_nobody_once_it_is_here(fake_hub: FakeHub, hub_at: HubAt) -> None:
    commit = fake_hub.repo("org/repo").commit({"model.gguf": GGUF})
    path = hub_at().fetch(f"hf:org/repo@{commit}")
    fake_hub.requests.clear()
    assert hub_at().fetch(f"hf:org/repo@{commit}") == path
    assert hub_at(allow_downloads=False).fetch(f"hf:org/repo@{commit}") == path
    assert fake_hub.requests == []


def test_a_branch_is_followed_and_what_it_was_last_serves_while_the_hub_is_away(
    fake_hub: FakeHub, hub_at: HubAt, caplog: pytest.LogCaptureFixture
) -> None:
    repo = fake_hub.repo("org/repo")
    first = repo.commit({"model.gguf": GGUF}, "refs/pr/1")
    hub = hub_at()
    assert hub.fetch("hf:org/repo@refs/pr/1").parent.name == first
    second = repo.commit({"model.gguf": OTHER}, "refs/pr/1")
    path = hub.fetch("hf:org/repo/model.gguf@refs/pr/1")
    assert path.parent.name == second and path.read_bytes() == OTHER
    fake_hub.statuses = [503]
    assert hub.fetch("hf:org/repo@refs/pr/1") == path
    fake_hub.stop()
    with caplog.at_level(logging.WARNING):
        assert hub.fetch("hf:org/repo@refs/pr/1") == path
    assert f"taking what it was last, commit {second}" in caplog.text
    assert hub_at(allow_downloads=False).fetch("hf:org/repo@refs/pr/1") == path
    with pytest.raises(HubUnreachable, match="cannot be reached"):
        hub.fetch("hf:org/repo@main")


def test_downloads_can_be_forbidden(fake_hub: FakeHub, hub_at: HubAt) -> None:
    commit = fake_hub.repo("org/repo").commit({"a.gguf": GGUF, "b.gguf": OTHER})
    hub_at().fetch(f"hf:org/repo/a.gguf@{commit}")
    fake_hub.requests.clear()
    for source in ("hf:org/repo/a.gguf", f"hf:org/repo/b.gguf@{commit}", "hf:org/else"):
        with pytest.raises(NotHere, match=r"not on this machine, and registry.allow_downloads is false"):
            hub_at(allow_downloads=False).fetch(source)
    assert fake_hub.requests == []


def test_a_connection_that_breaks_off_goes_on_where_it_was(fake_hub: FakeHub, hub_at: HubAt) -> None:
    fake_hub.repo("org/repo", {"model.gguf": GGUF})
    fake_hub.cuts = [1000, 5000, 1]
    assert hub_at().fetch("hf:org/repo").read_bytes() == GGUF
    assert [each.start for each in fake_hub.downloads()] == [0, 1000, 6000, 6001]


def test_a_storage_without_ranges_begins_again(fake_hub: FakeHub, hub_at: HubAt) -> None:
    fake_hub.repo("org/repo", {"model.gguf": GGUF})
    fake_hub.cuts, fake_hub.ignores_ranges = [1000], True
    assert hub_at().fetch("hf:org/repo").read_bytes() == GGUF


def test_wrong_bytes_are_thrown_away_and_asked_for_once_more(fake_hub: FakeHub, hub_at: HubAt, tmp_path: Path) -> None:
    fake_hub.repo("org/repo", {"model.gguf": GGUF, "config.json": b"{}", "x.safetensors": b"x" * 100})
    fake_hub.wrong = 1
    assert hub_at().fetch("hf:org/repo/model.gguf").read_bytes() == GGUF
    fake_hub.wrong = 2
    with pytest.raises(WrongBytes, match=r"config.json came twice with other bytes"):
        hub_at().fetch("hf:org/repo")
    assert not list(tmp_path.rglob("*.partial")) and not list(tmp_path.rglob("config.json"))
    assert (hub_at().fetch("hf:org/repo") / "config.json").read_bytes() == b"{}"


def test_more_bytes_than_the_hub_speaks_of_are_wrong_too(fake_hub: FakeHub, hub_at: HubAt) -> None:
    fake_hub.repo("org/repo", {"model.gguf": GGUF})
    fake_hub.claimed = {"model.gguf": len(GGUF) - 1000}
    with pytest.raises(WrongBytes):
        hub_at().fetch("hf:org/repo")


def test_a_file_that_was_damaged_or_is_not_vouched_for_is_looked_at(fake_hub: FakeHub, hub_at: HubAt) -> None:
    commit = fake_hub.repo("org/repo").commit({"model.gguf": GGUF})
    path = hub_at().fetch(f"hf:org/repo@{commit}")
    note = path.with_name("model.gguf.sha256")
    note.unlink()
    assert hub_at().fetch(f"hf:org/repo@{commit}") == path and note.exists()
    assert len(fake_hub.downloads()) == 1
    path.write_bytes(GGUF[:-1])
    assert hub_at().fetch(f"hf:org/repo@{commit}").read_bytes() == GGUF
    note.unlink()
    path.write_bytes(bytes(len(GGUF)))
    assert hub_at().fetch(f"hf:org/repo@{commit}").read_bytes() == GGUF


def test_a_hub_that_stays_away_is_given_up(fake_hub: FakeHub, hub_at: HubAt) -> None:
    fake_hub.repo("org/repo", {"model.gguf": GGUF})
    fake_hub.cuts = [1000] + [0] * 20
    with pytest.raises(HubUnreachable):
        hub_at().fetch("hf:org/repo")
    fake_hub.cuts = []
    assert hub_at().fetch("hf:org/repo").read_bytes() == GGUF
    assert fake_hub.downloads()[-1].start == 1000  # what had come was kept


def test_a_silent_connection_is_left(fake_hub: FakeHub, hub_at: HubAt) -> None:
    fake_hub.repo("org/repo", {"model.gguf": GGUF})
    fake_hub.held.clear()
    with ThreadPoolExecutor() as pool:
        fetching = pool.submit(hub_at(timeout_s=0.5).fetch, "hf:org/repo")
        assert fake_hub.is_holding.wait(60)
        while len(fake_hub.downloads()) < 2:  # it asks again without being answered
            fetching.exception(0.05) if fetching.done() else threading.Event().wait(0.01)
        fake_hub.held.set()
        assert fetching.result(60).read_bytes() == GGUF


def test_two_that_want_the_same_download_it_once(fake_hub: FakeHub, hub_at: HubAt) -> None:
    fake_hub.repo("org/repo", {"model.gguf": GGUF})
    fake_hub.held.clear()
    waits, seen = threading.Event(), []

    def progress(done: int, total: int) -> None:
        seen.append(done)
        if len(seen) > 3:
            waits.set()

    with ThreadPoolExecutor() as pool:
        first = pool.submit(hub_at().fetch, "hf:org/repo")
        assert fake_hub.is_holding.wait(60)
        second = pool.submit(hub_at().fetch, "hf:org/repo", progress)
        assert waits.wait(60)  # it is told how far the other is
        fake_hub.held.set()
        assert first.result(60) == second.result(60)
    assert len(fake_hub.downloads()) == 1


def test_whoever_watches_can_end_it(fake_hub: FakeHub, hub_at: HubAt) -> None:
    fake_hub.repo("org/repo", {"model.gguf": GGUF})

    class EnoughError(Exception):
        pass

    def enough(done: int, total: int) -> None:
        if done:
            raise EnoughError

    with pytest.raises(EnoughError):
        hub_at().fetch("hf:org/repo", enough)
    assert hub_at().fetch("hf:org/repo").read_bytes() == GGUF
    assert fake_hub.downloads()[-1].start > 0


def test_the_token_goes_to_the_hub_and_not_to_the_storage(
    fake_hub: FakeHub, hub_at: HubAt, caplog: pytest.LogCaptureFixture
) -> None:
    repo = fake_hub.repo("org/gated", {"model.gguf": GGUF})
    repo.token, repo.is_gated = "hf_secret", True
    with pytest.raises(HubError, match=r"gated: accept its terms at .*/org/gated; set HF_TOKEN"):
        hub_at().fetch("hf:org/gated")
    with pytest.raises(HubError, match="the token in HF_TOKEN does not open it") as refusal:
        hub_at(token="hf_wrong").fetch("hf:org/gated")
    assert "hf_wrong" not in str(refusal.value)
    fake_hub.requests.clear()
    with caplog.at_level(logging.DEBUG):
        assert hub_at(token="hf_secret").fetch("hf:org/gated").read_bytes() == GGUF
    assert {(each.token, each.path.startswith("/storage/")) for each in fake_hub.requests} == {
        ("hf_secret", False),
        (None, True),
    }
    assert "hf_secret" not in caplog.text


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("hf:org/none", "no such repository at .*, or a private one; set HF_TOKEN"),
        ("hf:org/repo/none.gguf", "no file 'none.gguf' in it; there are a.gguf, b/c.gguf"),
        ("hf:org/repo@none", "no revision 'none' in it"),
        ("hf:org/repo", "2 GGUF files are in it; name one of them: a.gguf, b/c.gguf"),
        ("hf:org/repo/README.md", "only a GGUF file can be named"),
        ("hf:org/bare", "neither a GGUF file in it, nor config.json"),
        ("hf:org", r"is written hf:<org>/<repo>\[/<file>\]\[@<revision>\]"),
        ("hf:org/../../etc", "is written hf:"),
        ("hf:org/repo/../../x.gguf", "is written hf:"),
        ("hf:org/repo@../x", "is no revision"),
    ],
)
def test_what_is_not_there_is_named_in_one_line(
    fake_hub: FakeHub, hub_at: HubAt, tmp_path: Path, source: str, words: str
) -> None:
    fake_hub.repo("org/repo", {"a.gguf": GGUF, "b/c.gguf": OTHER, "README.md": b"hello"})
    fake_hub.repo("org/bare", {"README.md": b"hello", "../x.gguf": GGUF})
    with pytest.raises(HubError, match=words) as error:
        hub_at().fetch(source)
    assert "\n" not in str(error.value) and str(error.value).startswith(source)


def test_a_disk_without_room_is_said_before_anything_is_downloaded(fake_hub: FakeHub, hub_at: HubAt) -> None:
    fake_hub.repo("org/repo", {"model.gguf": GGUF})
    fake_hub.claimed = {"model.gguf": 2**60}
    with pytest.raises(HubError, match="the disk is too full: 1,099,511,627,776 MiB are to come"):
        hub_at().fetch("hf:org/repo")
    assert fake_hub.downloads() == []


def test_something_else_than_a_hub_is_no_crash(fake_hub: FakeHub, hub_at: HubAt) -> None:
    fake_hub.repo("org/repo", {"model.gguf": GGUF})
    for endpoint in (f"{fake_hub.endpoint}/storage/a/b/c", "nonsense", "http://[", "http://127.0.0.1:1"):
        with pytest.raises(HubError):
            hub_at(endpoint=endpoint).fetch("hf:org/repo")
    fake_hub.statuses = [418]
    with pytest.raises(HubError, match="answers 418"):
        hub_at().fetch("hf:org/repo")


def test_a_process_killed_while_it_downloads_leaves_what_it_had(
    fake_hub: FakeHub, hub_at: HubAt, tmp_path: Path
) -> None:
    fake_hub.repo("org/repo", {"model.gguf": GGUF})
    fake_hub.hold_after = 10_000
    fake_hub.held.clear()
    script = (
        "import sys; from pathlib import Path; from ops.hub.hub import Hub, HubConfig\n"
        "def tell(done, total): print(done, flush=True)\n"
        "Hub(HubConfig(Path(sys.argv[1]), endpoint=sys.argv[2])).fetch('hf:org/repo', tell)"
    )
    command = [sys.executable, "-c", script, str(tmp_path), fake_hub.endpoint]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        while process.stdout.readline().strip() != "10000":
            assert process.poll() is None
        process.kill()
    fake_hub.held.set()
    assert hub_at().fetch("hf:org/repo").read_bytes() == GGUF
    assert fake_hub.downloads()[-1].start == 10_000
