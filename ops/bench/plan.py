"""What is measured, as decided by the command line."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from ops.bench.cells import LONG_LOADS, SHORT_LOADS, Cell

# Before every turn, one request for each sequence: pages of the weights and thread pools come up to temperature.
WARM_UP_TOKENS = 8
# Tokens of an answer where the prompts are long: what is measured there is how they are read.
SHARED_MAX_TOKENS = 32
LONG_PROMPT_MAX_TOKENS = 64
LONG_ANSWER_TOKENS = 512
MIN_CONTEXT = 256


class Kind(StrEnum):
    """What the prompts are like: about 51 tokens, no two of them alike; the same 300 words before each; about 1,500
    tokens, no two alike."""

    SHORT = "short"
    SHARED = "shared"
    LONG = "long"


# The most tokens a prompt of each kind has, and some room.
PROMPT_ROOM = {Kind.SHORT: 160, Kind.SHARED: 600, Kind.LONG: 1800}


@dataclass(frozen=True, slots=True)
class Load:
    """One closed loop: `concurrency` clients, `num_requests` answers in all, `max_tokens` each. `prefix` is what its
    name begins with."""

    concurrency: int
    num_requests: int
    max_tokens: int
    kind: Kind = Kind.SHORT
    prefix: str = ""

    @property
    def name(self) -> str:
        return f"{self.prefix} c={self.concurrency}".strip()

    @property
    def min_context(self) -> int:
        """Tokens that a sequence needs."""
        return self.max_tokens + PROMPT_ROOM[self.kind]


@dataclass(frozen=True, slots=True)
class PeerPaths:
    """Servers that are installed elsewhere: llama-server's binary (None looks for an installed one), the Python of
    vLLM's environment, and the folder with the model's weights as safetensors that vLLM is given (None makes one)."""

    llama_server: Path | None = None
    vllm: Path | None = None
    vllm_model: Path | None = None


@dataclass(frozen=True, slots=True)
class BenchPlan:
    """`model` is a GGUF file. `shared` are the clients of the load with a shared prefix, 0 leaves it out; those of the
    long loads are in `long_concurrency`. `context` is tokens per sequence; every arm gets the same. `converted` is the
    folder for the model in the formats that peers want.
    """

    model: Path | None
    arms: tuple[str, ...]
    concurrency: tuple[int, ...]
    shared: int
    rounds: int
    requests: int
    max_tokens: int
    threads: int
    context: int
    peers: PeerPaths = PeerPaths()
    cells: tuple[Cell, ...] = SHORT_LOADS
    long_concurrency: tuple[int, ...] = (4, 8)
    converted: Path = Path()

    @property
    def sequences(self) -> int:
        """As many as the widest load has clients, so that no arm queues."""
        return max((load.concurrency for load in self.loads), default=1)

    @property
    def loads(self) -> tuple[Load, ...]:
        return (*self._short_loads(), *self._long_loads())

    @property
    def min_context(self) -> int:
        return max((load.min_context for load in self.loads), default=MIN_CONTEXT)

    @property
    def warm_up(self) -> Load:
        return Load(self.sequences, self.sequences, min(WARM_UP_TOKENS, self.max_tokens))

    def settings(self, context: int | None) -> "tuple[BenchPlan, ...]":
        """Plans whose servers are started apart: what long texts need would weigh on the short loads."""
        parts = (self.only(SHORT_LOADS), self.only(LONG_LOADS))
        return tuple(
            replace(part, context=context or max(part.min_context, MIN_CONTEXT)) for part in parts if part.loads
        )

    def only(self, cells: Collection[Cell]) -> "BenchPlan":
        """The part with these of its cells."""
        return replace(self, cells=tuple(cell for cell in self.cells if cell in cells))

    def _short_loads(self) -> list[Load]:
        """At least `requests` answers and two for each client, so that the last ones end at about the same time."""

        def num_requests(count: int) -> int:
            return count * max(2, -(-self.requests // count))

        found = []
        if Cell.CHAT in self.cells:
            found += [Load(count, num_requests(count), self.max_tokens) for count in self.concurrency]
        if Cell.SHARED in self.cells and self.shared:
            most = min(SHARED_MAX_TOKENS, self.max_tokens)
            found.append(Load(self.shared, num_requests(self.shared), most, Kind.SHARED, Cell.SHARED))
        return found

    def _long_loads(self) -> list[Load]:
        """Half as many answers, as each takes many times as long, and one for each client at least."""
        found = []
        for count in self.long_concurrency:
            num_requests = count * -(-self.requests // (2 * count))
            if Cell.LONG_PROMPTS in self.cells:
                most = min(LONG_PROMPT_MAX_TOKENS, self.max_tokens)
                found.append(Load(count, num_requests, most, Kind.LONG, Cell.LONG_PROMPTS))
            if Cell.LONG_ANSWERS in self.cells:
                found.append(Load(count, num_requests, LONG_ANSWER_TOKENS, prefix=Cell.LONG_ANSWERS))
        return sorted(found, key=lambda load: LONG_LOADS.index(Cell(load.prefix)))
