"""Every arm by the name it has on the command line."""

import sys

from ops.bench.arm import Arm
from ops.bench.llama_server import Q8_0, VARIANTS, LlamaServer
from ops.bench.our_stack import OurStack
from ops.bench.plan import BenchPlan
from ops.bench.vllm_server import VllmServer

ECHO = "echo"
VLLM = "vllm"
# Ours by backend; the first is the one that a user gets without asking.
OURS = {"ours": "auto", "ours-llama": "llama_cpp", "ours-torch": "torch", "ours-mlx": "mlx"}
# Arms that run the same weights as ours.
PEERS = (*VARIANTS, VLLM)
NAMES = (*OURS, *PEERS, ECHO)


def default_names() -> tuple[str, ...]:
    """Every backend and peer once. MLX is made for Apple's processors: elsewhere it must be asked for."""
    mlx = ("ours-mlx",) if sys.platform == "darwin" else ()
    return ("ours-llama", "ours-torch", *mlx, "llama-server", Q8_0, VLLM, ECHO)


def make_arm(name: str, plan: BenchPlan) -> Arm:
    if name == VLLM:
        return VllmServer(name, plan)
    if name in VARIANTS:
        return LlamaServer(name, plan)
    return OurStack(name, plan, OURS.get(name, ECHO))
