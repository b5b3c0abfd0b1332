"""Somebody must be able to call."""

from producer.config import EdgeConfig
from producer.policy.effective import lay_over
from producer.policy.errors import NoKeys
from schemas.policy import PolicyDocument


def require_callers(config: EdgeConfig, document: PolicyDocument) -> None:
    """Raises NoKeys when neither the configuration nor the stored document lets anybody in."""
    policy = lay_over(config, document)
    if not policy.file_keys and not document.decides_on_keys and policy.oidc is None:
        raise NoKeys(
            f"no API key is configured, none is stored, and {config.host} is not a loopback host: "
            "set auth.api_keys or INFERFLUX_API_KEYS"
        )
