"""Every arm by the name it has on the command line."""

from pathlib import Path

from ops.bench.arm import Arm
from ops.bench.llama_server import VARIANTS, LlamaServer
from ops.bench.our_stack import OurStack
from ops.bench.plan import BenchPlan

OURS = "ours"
ECHO = "echo"
# Arms that run the same weights as ours.
PEERS = tuple(VARIANTS)
NAMES = (OURS, *PEERS, ECHO)
DEFAULT_NAMES = (OURS, "llama-server", ECHO)


def make_arm(name: str, plan: BenchPlan, llama_server: Path | None) -> Arm:
    """`llama_server` is the binary, None to look for an installed one."""
    if name in PEERS:
        return LlamaServer(name, plan, llama_server)
    return OurStack(name, plan, is_echo=name == ECHO)
