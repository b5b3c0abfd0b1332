"""Model files as our own runners read them: one set of names, one configuration, one tokenizer, whatever the source."""

from workers.checkpoints.checkpoint import Checkpoint
from workers.checkpoints.model_config import ModelConfig
from workers.checkpoints.opening import open_checkpoint

__all__ = ["Checkpoint", "ModelConfig", "open_checkpoint"]
