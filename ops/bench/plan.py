"""What is measured, as decided by the command line."""

from dataclasses import dataclass
from pathlib import Path

# Before every turn, one request for each sequence: pages of the weights and thread pools come up to temperature.
WARM_UP_TOKENS = 8
# Tokens of an answer where the prompts are long: what is measured there is how they are read.
SHARED_MAX_TOKENS = 32
# The most tokens a prompt has, and some room; the second is that of a prompt behind the shared prefix.
PROMPT_ROOM = 160
SHARED_PROMPT_ROOM = 600


@dataclass(frozen=True, slots=True)
class Load:
    """One closed loop: `concurrency` clients, `num_requests` answers in all, `max_tokens` each. With `shares_prefix`
    all prompts begin with the same 300 words, else no two of them alike."""

    concurrency: int
    num_requests: int
    max_tokens: int
    shares_prefix: bool = False

    @property
    def name(self) -> str:
        return f"shared c={self.concurrency}" if self.shares_prefix else f"c={self.concurrency}"

    @property
    def min_context(self) -> int:
        """Tokens that a sequence needs."""
        return self.max_tokens + (SHARED_PROMPT_ROOM if self.shares_prefix else PROMPT_ROOM)


@dataclass(frozen=True, slots=True)
class PeerPaths:
    """Servers that are installed elsewhere: llama-server's binary (None looks for an installed one), the Python of
    vLLM's environment, and the folder with the model's weights as safetensors that vLLM is given."""

    llama_server: Path | None = None
    vllm: Path | None = None
    vllm_model: Path | None = None


@dataclass(frozen=True, slots=True)
class BenchPlan:
    """`model` is a GGUF file. `shared` are the clients of the load with a shared prefix, 0 leaves it out. `context` is
    tokens per sequence; every arm gets the same."""

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

    @property
    def sequences(self) -> int:
        """As many as the widest load has clients, so that no arm queues."""
        return max(*self.concurrency, self.shared)

    @property
    def loads(self) -> tuple[Load, ...]:
        return loads(self.concurrency, self.shared, self.requests, self.max_tokens)

    @property
    def warm_up(self) -> Load:
        return Load(self.sequences, self.sequences, min(WARM_UP_TOKENS, self.max_tokens))


def loads(concurrency: tuple[int, ...], shared: int, requests: int, max_tokens: int) -> tuple[Load, ...]:
    """At least `requests` answers and two for each client, so that the last ones end at about the same time."""

    def num_requests(count: int) -> int:
        return count * max(2, -(-requests // count))

    found = [Load(count, num_requests(count), max_tokens) for count in concurrency]
    if shared:
        found.append(Load(shared, num_requests(shared), min(SHARED_MAX_TOKENS, max_tokens), shares_prefix=True))
    return tuple(found)
