"""A B A B, and an arm that fails does not stop the others."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from ops.bench.arm import Arm, Server
from ops.bench.errors import ArmFailed
from ops.bench.markdown import markdown
from ops.bench.prompts import shared_prefix
from ops.bench.turns import Results, Turns
from tests.ops.bench.chat_server import ChatServer, running
from tests.ops.bench.figures import plan, report


class DeadProcess:
    """In place of the process of a server that runs inside the test."""

    async def has_ended(self, within_s: float = 1.0) -> bool:
        return True

    def failure(self) -> str:
        return "signal SIGSEGV"


class LocalArm:
    """A chat server of the test's own."""

    def __init__(self, name: str, chats: list[ChatServer], log: list[str]) -> None:
        self.name = name
        self.num_repeats = 1
        self.has_model_tokens = True
        self._chats = chats
        self._log = log

    def check(self) -> None:
        pass

    def describe(self) -> dict[str, str]:
        return {}

    @asynccontextmanager
    async def running(self, folder: Path) -> AsyncIterator[Server]:
        assert os.listdir(folder) == []
        self._log.append(f"start {self.name}")
        if not self._chats:
            raise ArmFailed("no server left")
        async with running(self._chats.pop(0)) as target:
            yield Server(target, DeadProcess(), {}, {"is": self.name})
        self._log.append(f"stop {self.name}")


async def test_arms_take_turns() -> None:
    log: list[str] = []
    results = Results()
    arms = [LocalArm(name, [ChatServer(), ChatServer()], log) for name in ("a", "b")]
    await Turns(plan(rounds=2), results, lambda _: None).run(arms)
    assert log == ["start a", "stop a", "start b", "stop b"] * 2
    assert {arm: {count: len(each) for count, each in loads.items()} for arm, loads in results.rounds.items()} == {
        "a": {"c=1": 2, "c=8": 2},
        "b": {"c=1": 2, "c=8": 2},
    }
    assert results.facts == {"a": {"is": "a"}, "b": {"is": "b"}}
    assert results.failures == {}


async def test_every_turn_has_the_same_prompts_each_once() -> None:
    chats = [ChatServer(), ChatServer()]
    await Turns(plan(rounds=2), Results(), lambda _: None).run([LocalArm("a", [*chats], [])])
    first, second = (sorted(request["prompt"] for request in chat.requests) for chat in chats)
    assert first == second
    # 8 to warm up, then 4 at c=1 and two for each of 8 clients
    assert len(first) == len(set(first)) == 8 + 4 + 16


async def test_the_last_load_shares_a_prefix_that_nobody_has_seen() -> None:
    chat, results = ChatServer(cached_tokens=3), Results()
    await Turns(plan(rounds=1, shared=2), results, lambda _: None).run([LocalArm("a", [chat], [])])
    shares = [request["prompt"].startswith(shared_prefix()) for request in chat.requests]
    assert shares == [False] * (8 + 4 + 16) + [True] * 4
    assert len({request["prompt"] for request in chat.requests}) == len(shares)
    (summary,) = results.rounds["a"]["shared c=2"]
    assert (summary.num_requests, summary.cached_tokens) == (4, 3)


async def test_a_failed_arm_is_left_out_of_later_rounds() -> None:
    log: list[str] = []
    results = Results()
    broken = ChatServer(failing={8 + 4: b""})
    arms = [LocalArm("a", [broken, ChatServer()], log), LocalArm("b", [ChatServer(), ChatServer()], log)]
    await Turns(plan(rounds=2), results, lambda _: None).run(arms)
    assert log == ["start a", "start b", "stop b", "start b", "stop b"]
    assert results.failures["a"].startswith("round 1: c=8: the connection broke in mid-answer")
    assert results.failures["a"].endswith("(signal SIGSEGV)")
    assert list(results.rounds["a"]) == ["c=1"]
    assert len(results.rounds["b"]["c=8"]) == 2


async def test_an_arm_that_does_not_start_fails() -> None:
    results = Results()
    await Turns(plan(), results, lambda _: None).run([LocalArm("a", [], [])])
    assert results.failures == {"a": "round 1: no server left"}
    assert results.rounds == {}


async def test_a_quick_arm_gets_more_requests() -> None:
    arm = LocalArm("a", [ChatServer()], [])
    arm.num_repeats = 3
    results = Results()
    await Turns(plan(rounds=1), results, lambda _: None).run([arm])
    assert {count: each[0].num_requests for count, each in results.rounds["a"].items()} == {"c=1": 12, "c=8": 48}


def test_facts_that_differ_between_starts_are_all_told() -> None:
    results = Results()
    for context in ("256", "1864", "256"):
        results.note_facts("ours", {"backend": "torch", "context": context})
    assert results.facts["ours"] == {"backend": "torch", "context": "256 / 1864"}


async def test_a_load_whose_prompts_have_another_length_does_not_count() -> None:
    results, said = Results(), list[str]()
    turns = Turns(plan(rounds=1), results, said.append, count_tokens=lambda text: 100)
    await turns.run([LocalArm("a", [ChatServer()], [])])
    assert results.rounds == {}
    assert list(results.rejected) == ["a at c=1", "a at c=8"]
    assert results.rejected["a at c=1"].endswith("not 100: the model's tokenizer counts so many")
    assert any("DOES NOT COUNT" in line for line in said)
    text = markdown(report(results))
    assert "- a at c=1: prompts of" in text
    assert report(results).has_failed


async def test_an_arm_with_other_tokens_is_not_held_to_the_models() -> None:
    arm, results = LocalArm("echo", [ChatServer()], []), Results()
    arm.has_model_tokens = False
    await Turns(plan(rounds=1), results, lambda _: None, count_tokens=lambda text: 100).run([arm])
    assert results.rejected == {}
    (summary,) = results.rounds["echo"]["c=1"]
    assert summary.expected_prompt_tokens == 100


async def test_an_arm_is_asked_once_more_when_all_is_measured() -> None:
    asked: list[str] = []

    async def ask(arm: Arm, server: Server) -> None:
        asked.append(f"{arm.name} {len(results.rounds[arm.name])}")

    results = Results()
    arms = [LocalArm(name, [ChatServer(), ChatServer()], []) for name in ("a", "b")]
    await Turns(plan(rounds=2), results, lambda _: None, afterwards=ask).run(arms)
    assert asked == ["a 2", "b 2"]
