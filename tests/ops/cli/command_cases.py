"""A call of every command of `inferctl`, with what comes of it: one row for each, or several.

A command without a row fails `test_commands`. In arguments `{fresh}` is a word that no other call has, `{folder}` a
folder of its own, `{letter}` the id of a request that was given up, `{lines}` a file of calls, `{batch}` the id of a
batch that was made of it and has ended, `{running}` that of one that goes on.
"""

from dataclasses import dataclass
from typing import Any

NUMBER = (int, float)
TEXT_OR_NULL = (str, type(None))
NUMBER_OR_NULL = (int, float, type(None))
LATENCY = {"mean": NUMBER_OR_NULL, "p50": NUMBER_OR_NULL, "p95": NUMBER_OR_NULL}
# Bodies of the server may have more names than are told here.
MORE: dict[Any, Any] = {...: object}


def listed(entry: Any) -> dict[Any, Any]:
    return {"object": str, "data": [entry], **MORE}


MODEL = {"id": str, "default": bool, "ready": bool, "backends": list, "max_model_len": NUMBER_OR_NULL, **MORE}
COMPLETION = {"id": str, "object": str, "choices": [{"text": str, "finish_reason": str, **MORE}], "usage": dict, **MORE}
CHAT = {"id": str, "object": str, "choices": [{"message": dict, "finish_reason": str, **MORE}], "usage": dict, **MORE}
CHUNK = {"id": str, "object": str, "choices": list, **MORE}
API_KEY = {"id": str, "name": str, "status": str, "scopes": list, **MORE}
POLICY = {"version": int, **MORE}
STREAM = {
    "name": str, "subjects": list, "retention": str, "storage": str, "messages": int, "bytes": int,
    "max_bytes": NUMBER_OR_NULL, "max_messages_per_subject": NUMBER_OR_NULL, "max_age_s": NUMBER_OR_NULL,
    "first_seq": int, "last_seq": int, "consumers": int, "replicas": int, "leader": TEXT_OR_NULL,
}  # fmt: skip
CONSUMER = {
    "stream": str, "name": str, "model": TEXT_OR_NULL, "priority": TEXT_OR_NULL, "filter_subject": str, "pending": int,
    "ack_pending": int, "redelivered": int, "waiting_pulls": int, "delivered_seq": int, "acked_seq": int,
    "leader": TEXT_OR_NULL,
}  # fmt: skip
MESSAGE = {
    "stream": str, "seq": (int, type(None)), "time": NUMBER, "subject": str, "request_id": TEXT_OR_NULL,
    "kind": TEXT_OR_NULL, "bytes": int, "headers": dict, "body": object, "problem": TEXT_OR_NULL,
}  # fmt: skip
STEP = {"time": NUMBER, "request_id": str, "event": str, "source": str, "model": str, **MORE}
LETTER = {
    "id": str, "time": str, "model": str, "priority": TEXT_OR_NULL, "owner": TEXT_OR_NULL, "tenant": TEXT_OR_NULL,
    "reason": TEXT_OR_NULL, "attempts": NUMBER_OR_NULL,
}  # fmt: skip
BATCH = {
    "id": str, "object": str, "status": str, "input_file_id": str,
    "request_counts": {"total": int, "completed": int, "failed": int}, **MORE,
}  # fmt: skip
TOP = {
    "time": NUMBER, "interval_s": NUMBER,
    "requests": {"per_s": NUMBER, "live": int, "tokens_per_s": NUMBER, "errors_per_s": NUMBER, "errors": dict},
    "ttft_s": LATENCY, "queue_wait_s": LATENCY,
    "queues": [{"model": str, "priority": str, "waiting": int, "in_hand": int, "oldest_age_s": NUMBER}],
    "models": [
        {"model": str, "default": bool, "ready": bool, "workers": int, "workers_desired": int, "slots": int,
         "requests_per_s": NUMBER, "ttft_p50_s": NUMBER_OR_NULL}
    ],
    "workers": [
        {"worker": str, "model": str, "backend": str, "slots": int, "slots_used": NUMBER_OR_NULL,
         "tokens_per_s": NUMBER_OR_NULL, "prompt_tokens_per_s": NUMBER_OR_NULL, "batch_size": NUMBER_OR_NULL}
    ],
    "missing": TEXT_OR_NULL,
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """`says` is a pattern in stdout, or in stderr when it ends with another code than 0.

    `shape` is that of what --json prints, None for a command without it. `lines`: one object a line. `before` are
    command lines that go ahead. `traffic`: others use the server meanwhile.
    """

    command: str
    arguments: tuple[str, ...] = ()
    says: str = ""
    shape: Any = None
    exit_code: int = 0
    stdin: str = ""
    admin: bool = False
    lines: bool = False
    before: tuple[tuple[str, ...], ...] = ()
    traffic: bool = False

    @property
    def words(self) -> tuple[str, ...]:
        return (*self.command.split(), *self.arguments)


ISSUE = ("admin", "api-keys", "issue", "{fresh}")
EXPORT_POLICY = ("admin", "policy", "export", "--out", "{folder}/policy", "--json")
EXPORT_AUDIT = ("admin", "audit", "export", "--file", "{folder}/audit.jsonl", "--json")

USER_CASES = (
    Case("status", says=r"ready\n", shape={"ready": bool, "reason": str, "version": str, "models": [MODEL]}),
    Case("models", says=r"echo +yes +ready +echo", shape=listed(MODEL)),
    Case("completion", ("--prompt", "{fresh}"), says="{fresh}\n", shape=COMPLETION),
    Case("completion", ("--prompt", "-", "--max-tokens", "3"), stdin="stdin\n", says="^std\n$", shape=COMPLETION),
    Case("completion", ("--prompt", "x", "--stream"), says="^x\n$", shape=CHUNK, lines=True),
    Case("completion", ("--prompt", "x", "--model", "absent"), says="absent", exit_code=1),
    Case("chat", ("--prompt", "{fresh}"), says="{fresh}\n", shape=CHAT),
    Case("chat", ("--prompt", "-", "--model", "quick"), stdin="a\nb\n", says="^a\nb\n$", shape=CHAT),
    Case("chat", ("--message", "user:x", "--stream", "--system", "be brief"), says="^x\n$", shape=CHUNK, lines=True),
    Case("chat", exit_code=2, says="nothing to answer"),
    Case("top", ("--once", "--interval", "0.1"), says=r"slots used", shape=TOP, lines=True),
    Case("login", exit_code=1, says="API keys only"),
    Case("logout", says="Not logged in"),
    *(Case("completion-script", (shell,), says="_INFERCTL_COMPLETE") for shell in ("bash", "zsh", "fish")),
)
BATCH_CASES = (
    Case("batch submit", ("{lines}",), says=r"^batch_\w{{32}}\n$", shape=BATCH),
    Case("batch submit", ("{lines}", "--wait", "--metadata", "a=b"), says=r"completed +2 +2 +0", shape=BATCH),
    Case("batch submit", ("{lines}", "--endpoint", "/v1/chat/completions"), exit_code=1, says="^line 1: .*endpoint"),
    Case("batch submit", ("{lines}", "--metadata", "a"), exit_code=2, says="KEY=VALUE"),
    Case("batch status", ("{batch}",), says="{batch} +completed", shape=BATCH),
    Case("batch status", ("{batch}", "--follow"), says="{batch} +completed", shape=BATCH),
    Case("batch status", says="{batch} +completed", shape=listed(BATCH)),
    Case("batch status", ("nonsense",), exit_code=1, says="no such batch"),
    Case("batch list", ("--limit", "1"), says="{batch}", shape=listed(BATCH)),
    Case("batch list", ("--all",), says="{batch}", shape=listed({**BATCH, "tenant": str, "owner": str}), admin=True),
    Case("batch results", ("{batch}",), says='"custom_id": ?"a"'),
    Case("batch results", ("{batch}", "-o", "{folder}/out"), says="^2 lines in", shape={"path": str, "lines": int}),
    Case("batch results", ("{batch}", "--errors"), says="^$"),
    Case("batch cancel", ("{running}",), says="{running} cancel", shape=BATCH),
    Case("batch cancel", ("{batch}",), exit_code=1, says="cannot be cancelled"),
)  # fmt: skip
BUS_CASES = (
    Case("bus env", says="inspector", shape={"description": str, "url": str, "inbox_prefix": str, **MORE}),
    Case("bus streams", says=r"INFERFLUX_REQUESTS +\d+", shape=listed(STREAM)),
    Case("bus consumers", ("requests",), says=r"slow-batch-0 +slow +batch", shape=listed(CONSUMER)),
    Case("bus consumers", says="INFERFLUX_TOKENS", shape=listed(CONSUMER)),
    Case("bus consumers", ("nonsense",), exit_code=1, says="there are INFERFLUX_AUDIT, "),
    Case("bus peek", ("models", "--last", "5"), says=r"\$KV\.models\.slow", shape=MESSAGE, lines=True),
    Case("bus peek", ("inferflux.nonsense.>",), exit_code=1, says="no stream has"),
    Case("bus watch", ("--count", "3", "--model", "echo"), says="model=echo", shape=STEP, lines=True, traffic=True),
    Case("bus dlq list", says=r"{letter} +echo", shape=listed(LETTER)),
    Case("bus dlq show", ("{letter}",), says="prompt.kind: text", shape={**LETTER, "prompt": dict, **MORE}),
    Case("bus dlq retry", ("{letter}",), says=r"^\w{{20,}}\n$", shape={"id": str, "retried": str}),
    Case("bus dlq drop", ("{letter}",), says="dropped {letter}", shape={"id": str, "dropped": bool}),
    Case(
        "bus trim-audit", ("--exported", "{folder}/audit.jsonl"), before=(EXPORT_AUDIT,), admin=True,
        says="blocks removed", shape={"removed_blocks": int, "first_seq": int},
    ),
)  # fmt: skip
ADMIN_CASES = (
    Case("admin api-keys list", says="status", shape=listed(API_KEY), admin=True),
    Case("admin api-keys list", exit_code=1, says="scope"),
    Case("admin api-keys issue", ("{fresh}",), says="^ifx_", shape={**API_KEY, "key": str}, admin=True),
    Case("admin api-keys rotate", ("{fresh}",), before=(ISSUE,), says="^ifx_", shape={**API_KEY, "key": str},
         admin=True),
    Case("admin api-keys update", ("{fresh}", "--scope", "read"), before=(ISSUE,), says="{fresh}", shape=API_KEY,
         admin=True),
    Case("admin api-keys revoke", ("{fresh}",), before=(ISSUE,), says="revoked", shape={"id": str, **MORE}, admin=True),
    Case("admin policy show", before=(ISSUE,), says=r"\w", shape=POLICY, admin=True),
    Case("admin policy versions", before=(ISSUE,), says=r"version", shape=listed({"version": int, **MORE}), admin=True),
    Case("admin policy rollback", ("1",), before=(ISSUE,), says="holds, with the rules of 1", shape=POLICY, admin=True),
    Case("admin policy reset", ("guardrails",), before=(ISSUE,), says="holds", shape=POLICY, admin=True),
    Case("admin policy export", ("--out", "{folder}/policy"), before=(ISSUE,), says="wrote",
         shape={"path": str, "bytes": int}, admin=True),
    Case("admin policy import", ("{folder}/policy",), before=(ISSUE, EXPORT_POLICY), says="holds", shape=POLICY,
         admin=True),
    # Afterwards the server takes no change until it is started again, so that here nothing is given.
    Case("admin policy rotate-passphrase", exit_code=2, says="nothing came", admin=True),
    Case("admin rate-limit", ("--get",), says="each key", shape={"requests_per_minute": int, **MORE}, admin=True),
    Case("admin guardrails", ("--list",), says="blocklist", shape={"blocklist": list, **MORE}, admin=True),
    Case("admin models", ("--list",), says="echo", shape=listed({"id": str, **MORE}), admin=True),
    Case("admin workers", ("--list",), says="serving", shape=listed({"id": str, **MORE}), admin=True),
    Case("admin queues", says="echo", shape=listed({"model": str, **MORE}), admin=True),
    Case("admin requests", ("--list",), shape={"object": str, "data": list, "truncated": bool}, admin=True),
    Case("admin cache", ("--status",), says="echo", shape=listed({"model": str, **MORE}), admin=True),
    Case("admin oidc", ("--get",), says=r"\w", shape=MORE, admin=True),
    Case("admin routing", ("--get",), says=r"\w", shape=MORE, admin=True),
    Case("admin autoscale", says="echo", shape=listed({"model": str, **MORE}), admin=True),
    Case("admin audit list", before=(ISSUE,), says="api_key.issue", shape=listed(MORE), admin=True),
    Case("admin audit verify", says=r"ok\n$", shape={"ok": bool, **MORE}, admin=True),
    Case("admin audit export", ("--file", "{folder}/audit.jsonl"), says="records in",
         shape={"file": str, "records": int}, admin=True),
)  # fmt: skip

CASES = (*USER_CASES, *BATCH_CASES, *BUS_CASES, *ADMIN_CASES)
