"""A change is told once it is over, by events or by looking."""

import asyncio
from pathlib import Path

import pytest

from ops.watch import file_watch
from ops.watch.file_watch import NOTHING_SEEN, FileWatch, mark_of
from tests.support.waiting import until

LONG_S = 3600.0


class Followed:
    """A watch that runs, and what the file held whenever it told of a change."""

    def __init__(self, path: Path, watch: FileWatch) -> None:
        self.seen: list[str | None] = []
        self._path = path
        self._task = asyncio.create_task(watch.run(self._note))

    def _note(self) -> None:
        self.seen.append(self._path.read_text() if self._path.exists() else None)

    async def close(self) -> None:
        assert not self._task.done()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


@pytest.mark.parametrize("poll_s", [LONG_S, 0.01])
async def test_files_that_come_go_and_are_replaced_are_told(
    tmp_path: Path, poll_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    if poll_s != LONG_S:  # a file system that tells nothing

        async def tells_nothing(_: FileWatch) -> None:
            await asyncio.Event().wait()

        monkeypatch.setattr(FileWatch, "_follow_events", tells_nothing)
    path = tmp_path / "models.yaml"
    path.write_text("first")
    followed = Followed(path, FileWatch(path, poll_s, NOTHING_SEEN, settle_s=0.01))
    await until(lambda: followed.seen == ["first"])

    def is_watched() -> bool:
        """The folder may not be watched yet: something moves until it is."""
        path.write_text("second" if path.read_text() == "first" else "first")
        return len(followed.seen) > 1

    await until(is_watched, every_s=0.2)
    (tmp_path / "new").write_text("replaced")
    (tmp_path / "new").replace(path)
    await until(lambda: followed.seen[-1] == "replaced")
    path.unlink()
    await until(lambda: followed.seen[-1] is None)
    (tmp_path / "..data").write_text("mounted")
    path.symlink_to("..data")
    await until(lambda: followed.seen[-1] == "mounted")
    (tmp_path / "..other").write_text("mounted elsewhere")
    (tmp_path / "..link").symlink_to("..other")
    (tmp_path / "..link").replace(path)
    await until(lambda: followed.seen[-1] == "mounted elsewhere")
    await followed.close()


async def test_what_is_still_being_written_is_not_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, pieces = tmp_path / "models.yaml", list("abcdefgh")
    path.write_text("")
    settle, real = 12.5, asyncio.sleep

    async def sleep(delay_s: float) -> None:
        if delay_s == settle and pieces:  # while it waits whether the file stays, the writer goes on
            with path.open("a") as file:
                file.write(pieces.pop(0))
        await real(0)

    monkeypatch.setattr(file_watch.asyncio, "sleep", sleep)
    followed = Followed(path, FileWatch(path, LONG_S, NOTHING_SEEN, settle_s=settle))
    while not followed.seen:
        await real(0.001)
    assert followed.seen == ["abcdefgh"]
    await followed.close()


async def test_a_folder_that_does_not_exist_yet_is_looked_for(tmp_path: Path) -> None:
    path = tmp_path / "later" / "models.yaml"
    assert mark_of(path) is None
    followed = Followed(path, FileWatch(path, 0.01, None, settle_s=0.01))
    path.parent.mkdir()
    path.write_text("there")
    await until(lambda: followed.seen == ["there"])
    await followed.close()
