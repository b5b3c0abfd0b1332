"""What an administrative change can be refused for."""

from schemas.errors import ErrorCode

BODY_REFUSALS = (
    ErrorCode.INVALID_JSON,
    ErrorCode.INVALID_PARAMETER,
    ErrorCode.UNKNOWN_PARAMETER,
    ErrorCode.PAYLOAD_TOO_LARGE,
)
POLICY_REFUSALS = (ErrorCode.POLICY_UNAVAILABLE, ErrorCode.AUDIT_UNAVAILABLE, ErrorCode.BROKER_UNAVAILABLE)
