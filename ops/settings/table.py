"""The one table of settings: loader, `--help`, environment scan and docs/config.md all read it.

The order is that of the reference page. A feature that is not there yet stands here too, with `available=False`, so
that setting it is refused by name and not overlooked.
"""

from pathlib import Path
from typing import Any

from ops.settings import api_keys, limits, model_list, oidc
from ops.settings.kinds import boolean, choice, http_url, listing, nats_url, optional, origin, path, text
from ops.settings.number_kinds import fraction, integer, seconds, size_bytes
from ops.settings.setting import Setting
from schemas.oidc_rules import ALGORITHMS, DEFAULT_ALGORITHMS, MAX_LEEWAY_S, TOKEN_TYPES

_MANY = 10**15

BACKENDS = ("llama_cpp", "torch", "mlx", "echo")

# fmt: off

# Server
HOST = Setting("server.host", text("a host name or address"), "localhost",
    "Where the HTTP server listens; `localhost` means 127.0.0.1 and ::1.", "--host", "INFERFLUX_HOST_OVERRIDE")
HTTP_PORT = Setting("server.http_port", integer(0, 65535), 8080,
    "Port of the HTTP server; 0 takes a free one.", "--port", "INFERFLUX_PORT_OVERRIDE")
MAX_CONCURRENT = Setting("server.max_concurrent", integer(1, 1_000_000), 4096,
    "Generation calls that one edge holds at a time, waiting and streaming together, each prompt of a call counted; "
    "more are refused with 429.")
MAX_BODY_BYTES = Setting("server.max_body_bytes", size_bytes(1024, 2**31), 8 * 2**20,
    "Largest request body; a larger one is refused with 413.")
MAX_UPLOAD_BYTES = Setting("server.max_upload_bytes", size_bytes(1024, 2**31), 100 * 2**20,
    "Largest file that `/v1/files` takes; a larger one is refused with 413.")
BODY_TIMEOUT_S = Setting("server.body_timeout_s", seconds(1, 600), 60.0,
    "How long a request body may take to arrive; a slower one is refused with 400, and one that comes with less than "
    "4 KiB a second after 15 s.")
HEADER_TIMEOUT_S = Setting("server.header_timeout_s", seconds(1, 600), 30.0,
    "How long the headers of a request may take to arrive.")
REQUEST_TIMEOUT_S = Setting("server.request_timeout_s", seconds(1, 2700), 600.0,
    "Deadline of a request that names none.")
STATUS_HOLD_S = Setting("server.status_hold_s", seconds(0, 300), 10.0,
    "How long the HTTP status waits for the first token, so that a failure before it is a real 4xx or 5xx.")
DRAIN_TIMEOUT_S = Setting("server.drain_timeout_s", seconds(0, 3600), 30.0,
    "How long streams may run out after SIGTERM; those left are told where to read on.")
MAX_PROMPTS = Setting("server.max_prompts", integer(1, 1024), 64,
    "Prompts that one call to /v1/completions may carry.")
CORS_ORIGINS = Setting("server.cors_origins", listing(origin()), (),
    "Further origins whose pages may call the API from a browser; `*` is all. Pages of this machine always may.")
BODY_BUFFER_BYTES = Setting("server.body_buffer_bytes", size_bytes(1024, 2**36), 64 * 2**20,
    "Bytes of request bodies that one edge holds at a time, from the first byte until their requests are queued; "
    "what would go beyond is refused with 429. Never less than `server.max_body_bytes`.")
STREAM_BUFFER_BYTES = Setting("server.stream_buffer_bytes", size_bytes(32 * 2**10, 2**28), 256 * 2**10,
    "What one stream may hold that its client has not taken yet, in the edge and in the system's socket together.")
SLOW_READER_TIMEOUT_S = Setting("server.slow_reader_timeout_s", seconds(1, 600), 60.0,
    "How long a client may leave that buffer full before its stream is cut. The request goes on, and can be resumed.")
TLS_CERT = Setting("server.tls.cert", optional(path()), None,
    "Certificate of the HTTP server, with its chain (PEM). With it the server speaks TLS 1.2 or later, and no "
    "plain HTTP.")
TLS_KEY = Setting("server.tls.key", optional(path()), None,
    "Its key (PEM, not encrypted). Both are read again when they change, and on SIGHUP.")
TLS_CLIENT_CA = Setting("server.tls.client_ca", optional(path()), None,
    "Only clients with a certificate that these (PEM) have signed get in. They need an API key besides.")
UNKNOWN_PARAMETERS = Setting("server.unknown_parameters", choice("refuse", "ignore"), "refuse",
    "What happens to a request with a parameter nobody knows: 400, or served with X-InferFlux-Ignored.")

# NATS
NATS_URL = Setting("nats.url", optional(nats_url()), None,
    "An external NATS, all servers of a cluster with commas between them; without it `up` runs its own.",
    "--nats-url", "INFERFLUX_NATS_URL")
NATS_PORT = Setting("nats.port", integer(0, 65535), 4222,
    "Port of the embedded nats-server; 0 takes a free one, and the default moves on when it is taken.", "--nats-port")
NATS_EMBEDDED = Setting("nats.embedded", boolean(), True,
    "Whether `up` may run its own nats-server when no URL is given.")
NATS_REPLICAS = Setting("nats.replicas", integer(1, 5), 1,
    "Copies of every stream: 1 on one server, 3 on a cluster.")
NATS_MAX_FILE = Setting("nats.max_file_bytes", optional(size_bytes(512 * 2**20, 2**50)), None,
    "Disk that one nats-server may fill with streams; about half of it holds journals. Without it the embedded server "
    "takes what is free, less a GiB; of an external one it is taken to be the account's limit, else 8 GiB.")
NATS_CREDENTIALS = Setting("nats.credentials", optional(path()), None,
    "Folder of role files, or one file (also .creds), for an external NATS.", "--nats-credentials")
NATS_TLS_CA = Setting("nats.tls.ca", optional(path()), None,
    "Who signed the certificate of an external NATS (PEM); without it the system's authorities. The url is `tls://…`.")
NATS_TLS_CERT = Setting("nats.tls.cert", optional(path()), None,
    "Certificate to show to a NATS that asks for one (PEM).")
NATS_TLS_KEY = Setting("nats.tls.key", optional(path()), None,
    "Its key (PEM, not encrypted).")

# Models, one row per field of a model
MODEL_SOURCE = Setting("models.<id>.source", text("a model source"), "",
    "A GGUF file, a folder with safetensors, `pkg:<package>`, `hf:<org>/<repo>[/<file>][@<revision>]`, or `echo`. "
    "Required.")
MODEL_BACKEND = Setting("models.<id>.backend", choice("auto", *BACKENDS), "auto",
    "What runs it; `auto` goes by the model's format, this machine's device and what is installed, and where that "
    "leaves several, by which of them is the fastest here.")
MODEL_DEFAULT = Setting("models.<id>.default", boolean(), False,
    "Whether it answers requests that name no model. Without any, the first model does.")
MODEL_ALIASES = Setting("models.<id>.aliases", listing(text("a name")), (),
    "Other names it answers to, such as gpt-4o-mini.")
MODEL_CONTEXT = Setting("models.<id>.context", optional(integer(16, 2**24)), None,
    "Tokens a sequence may have, prompt and answer together. Empty: what model and memory allow.")
MODEL_SEQUENCES = Setting("models.<id>.sequences", optional(integer(1, 1024)), None,
    "Sequences that run at once on one worker. Empty: the backend's choice.")
MODEL_THREADS = Setting("models.<id>.threads", optional(integer(1, 1024)), None,
    "Threads of a CPU backend. Empty: one per processor; on llama.cpp fewer where that was measured to be faster at the"
    " first start with the model, which is remembered.")
MODEL_GPU_LAYERS = Setting("models.<id>.gpu_layers", optional(integer(-1, 100_000)), None,
    "Layers on the GPU; -1 is all. Empty: all where the backend was built for one.")
MODEL_KV_TYPE = Setting("models.<id>.kv_type", optional(choice("f32", "f16", "bf16", "q8_0", "q4_0")), None,
    "Number format of the KV memory. Empty: the backend's choice.")
MODEL_BATCH_TOKENS = Setting("models.<id>.batch_tokens", optional(integer(16, 2**16)), None,
    "Most tokens in one forward pass. Empty: the backend's choice.")
MODEL_CHAT_TEMPLATE = Setting("models.<id>.chat_template", optional(text("a path or Jinja text")), None,
    "Chat template instead of the one in the model: a file, or the Jinja text itself.")
MODEL_MAX_OUTPUT = Setting("models.<id>.max_output_tokens", integer(1, 2**20), 1024,
    "Most tokens of an answer when the request does not say.")
MODEL_QUEUE_MAX = Setting("models.<id>.queue_max", integer(0, 10_000_000), 256,
    "Requests of one priority class that may wait for it; more are refused with 429.")
MODEL_QUEUE_MAX_TOKENS = Setting("models.<id>.queue_max_tokens", optional(integer(0, 10**12)), 131_072,
    "Estimated prompt tokens of the requests of one class that may wait for it; more are refused with 429. 0 or empty: "
    "no bound. The default is about ten minutes of prompts, the usual deadline, where a machine reads 200 tokens a "
    "second, as two cores do with a small model; raise it where prompts are read faster.")
MODEL_NO_WORKER = Setting("models.<id>.no_worker", choice("refuse", "queue"), "refuse",
    "What happens while no worker serves it: 503, or waiting in the queue.")
MODEL_PATH = Setting("", optional(text("a model source")), None,
    "Serve this model alone; its id is the file's stem.", "--model", "INFERFLUX_MODEL_PATH")
MODEL_LIST = Setting("", model_list.KIND, (),
    "The models in one variable, `id=…,path=…,backend=…,default=true;…`, instead of those of the file.",
    None, "INFERFLUX_MODELS")
DEFAULT_MODEL_ID = Setting("", optional(text("a model id")), None,
    "Which model is the default, instead of the one marked so.", None, "INFERFLUX_DEFAULT_MODEL_ID")

# Runtime
BACKEND = Setting("", choice("auto", *BACKENDS), "auto",
    "Backend of every model; `auto` leaves each to its own setting.", "--backend")
BACKEND_PRIORITY = Setting("runtime.backend_priority", listing(choice(*BACKENDS[:-1])), (),
    "Backends that `auto` tries, in this order. Empty: all, those that use this machine's device first.",
    None, "INFERFLUX_BACKEND_PRIORITY")
PREFER_NATIVE = Setting("runtime.backend_exposure.prefer_native", boolean(), False,
    "Try torch and mlx before llama_cpp where both can serve.", None, "INFERFLUX_BACKEND_PREFER_NATIVE")
ALLOW_LLAMA_FALLBACK = Setting("runtime.backend_exposure.allow_llama_fallback", boolean(), True,
    "With false, a model that torch and mlx cannot serve stops the start.",
    None, "INFERFLUX_BACKEND_ALLOW_LLAMA_FALLBACK")
CALIBRATE = Setting("runtime.calibrate", boolean(), True,
    "Whether `auto` tries the backends that can serve a model for some seconds before the first start with it, takes "
    "the fastest and remembers that in the data directory. Off, or where `runtime.backend_priority` or "
    "`prefer_native` is set: the first that can.", None, "INFERFLUX_CALIBRATE")
CALIBRATE_LIMIT_S = Setting("runtime.calibrate_limit_s", seconds(1, 3600), 120.0,
    "How long that may take for one model, the compiling of a kernel aside. A model that is too large for it is not "
    "tried.")
ENABLE_PREEMPTION = Setting("runtime.fairness.enable_preemption", boolean(), False,
    "Whether a request of class high may take the place of a running one of a lower class, which goes on later.",
    None, "INFERFLUX_FAIRNESS_ENABLE_PREEMPTION")
HIGH_PRIORITY_THRESHOLD = Setting("runtime.fairness.high_priority_threshold", integer(-10, 11), 5,
    "A request's `priority` from which on it is in class high, which alone may preempt.",
    None, "INFERFLUX_FAIRNESS_PRIORITY_THRESHOLD")
MAX_TIMESLICE_TOKENS = Setting("runtime.fairness.max_timeslice_tokens", integer(0), 0,
    "Tokens after which a sequence makes room for one of its class, or a higher one, that waits; 0 is never.",
    None, "INFERFLUX_FAIRNESS_MAX_TIMESLICE")
PARKED_KV_BYTES = Setting("runtime.parked_kv_bytes", size_bytes(0, 2**40), 256 * 2**20,
    "Host memory of a model for the KV of requests that made room for others; what is beyond is computed again.")
STUCK_STEP_S = Setting("runtime.stuck_step_s", seconds(1, 3600), 60.0,
    "A step that takes longer means that the device hangs: the worker gives its work back and ends with an error.")
MEMORY_BYTES = Setting("runtime.memory_bytes", optional(size_bytes(2**16, 2**50)), None,
    "Memory that the models of one worker may take together, weights and KV by their estimates; one that would go "
    "beyond is not loaded, and the others go on. Empty: no bound but what the machine has.", "--memory")
SPECULATIVE_ENABLED = Setting("runtime.speculative_decoding.enabled", boolean(), False,
    "Whether tokens are drafted and verified several at a time.",
    None, "INFERFLUX_SPECULATIVE_ENABLED", available=False)
SPECULATIVE_DRAFT_MODEL = Setting("runtime.speculative_decoding.draft_model", optional(text("a model source")), None,
    "Model that drafts; empty drafts from the prompt.", None, "INFERFLUX_SPEC_DRAFT_MODEL", available=False)
SPECULATIVE_MAX_PREFILL = Setting("runtime.speculative_decoding.max_prefill_tokens", optional(integer(1)), None,
    "Longest prompt that is drafted for.", None, "INFERFLUX_SPEC_MAX_PREFILL", available=False)
SPECULATIVE_CHUNK_SIZE = Setting("runtime.speculative_decoding.chunk_size", optional(integer(1)), None,
    "Tokens drafted at a time.", None, "INFERFLUX_SPEC_CHUNK_SIZE", available=False)
KV_CPU_PAGES = Setting("runtime.paged_kv.cpu_pages", integer(0), 0,
    "Pages of KV, 16 tokens each, that a `torch` model keeps in memory; 0: room for all sequences, as far as a share of"
    " the memory holds it.", None, "INFERFLUX_KV_CPU_PAGES")
KV_EVICTION = Setting("runtime.paged_kv.eviction", choice("lru", "clock"), "lru",
    "Which KV of ended sequences goes first when its room is needed: what was unused for longest, or second chance.",
    None, "INFERFLUX_KV_EVICTION")
PREFIX_CACHE_ENABLED = Setting("runtime.prefix_cache.enabled", boolean(), True,
    "Whether KV is kept when a sequence ends, and prompts that begin alike share it.")
PREFIX_CACHE_SCOPE = Setting("runtime.prefix_cache.scope", choice("global", "tenant"), "global",
    "Among whom they share it; with `tenant` nobody can tell by the speed of an answer what other tenants asked.")
NVME_PATH = Setting("runtime.nvme_offload.path", optional(path()), None,
    "Folder for KV that no longer fits in memory.", None, "INFERFLUX_NVME_OFFLOAD_PATH", available=False)
NVME_WORKERS = Setting("runtime.nvme_offload.workers", optional(integer(1)), None,
    "Threads that write it.", None, "INFERFLUX_NVME_WORKERS", available=False)
NVME_QUEUE_DEPTH = Setting("runtime.nvme_offload.queue_depth", optional(integer(1)), None,
    "Pages that wait to be written.", None, "INFERFLUX_NVME_QUEUE_DEPTH", available=False)

# Trust
API_KEYS = Setting("auth.api_keys", api_keys.DOCUMENT, (),
    "API keys: a map by name, or a list of `{key, scopes}`. `key_file` instead of `key` reads it from a file. "
    "Further fields: `tenant`, `models`, `ceiling` (highest priority class), `limits` (instead of those for all keys).")
MORE_API_KEYS = Setting("", api_keys.LIST, (),
    "Further keys, `key[:scope+scope],…`, with `generate+read` when no scope is named; they add to the file's.",
    None, "INFERFLUX_API_KEYS", secret=True)
OIDC_ISSUER = Setting("auth.oidc.issuer", optional(oidc.issuer()), None,
    "OpenID Connect issuer whose access tokens (JWT) are taken beside the keys.", None, "INFERFLUX_OIDC_ISSUER")
OIDC_AUDIENCE = Setting("auth.oidc.audience", optional(text("a name")), None,
    "Audience that the tokens must name; required with an issuer.", None, "INFERFLUX_OIDC_AUDIENCE")
OIDC_ALGORITHMS = Setting("auth.oidc.algorithms", listing(choice(*ALGORITHMS), empty=False), DEFAULT_ALGORITHMS,
    "Signatures that count. `HS…` and `none` never do.")
OIDC_TOKEN_TYPES = Setting("auth.oidc.token_types", listing(text("a type"), empty=False), TOKEN_TYPES,
    "What `typ` in a token's header may be; one without is a JWT.")
OIDC_SUBJECT_CLAIM = Setting("auth.oidc.subject_claim", text("a claim"), "sub",
    "Claim that says who it is. Of all claims: the name, or a path such as `realm_access.roles`.")
OIDC_TENANT_CLAIM = Setting("auth.oidc.tenant_claim", text("a claim"), "tenant",
    "Claim with the tenant; without the claim it is `default`.")
OIDC_SCOPES_CLAIM = Setting("auth.oidc.scopes_claim", text("a claim"), "scope",
    "Claim with scopes, groups or roles: a list, or words with spaces between them.")
OIDC_MODELS_CLAIM = Setting("auth.oidc.models_claim", text("a claim"), "models",
    "Claim with the models that may be used, as globs; without the claim all may.")
OIDC_SCOPE_MAP = Setting("auth.oidc.scope_map", oidc.SCOPE_MAP, {},
    "Words of the scopes claim and what they open, `{llm-users: [generate, read]}`. Without it the words `generate`, "
    "`read` and `admin` count.")
OIDC_ALLOW_ADMIN = Setting("auth.oidc.allow_admin", boolean(), False,
    "Whether tokens can open the scope admin.")
OIDC_CEILING = Setting("auth.oidc.ceiling", optional(choice("high", "normal", "low", "batch")), None,
    "Highest priority class of tokens. Empty: high with the scope admin, else normal.")
OIDC_LEEWAY_S = Setting("auth.oidc.leeway_s", seconds(0, MAX_LEEWAY_S), 30.0,
    "How far the issuer's clock may be from ours.")
OIDC_CLIENT_ID = Setting("auth.oidc.client_id", optional(text("a client id")), None,
    "Public client that `inferctl login` is at the issuer.")
OIDC_LOGIN_SCOPES = Setting("auth.oidc.login_scopes", listing(text("a scope")), ("openid", "offline_access"),
    "Scopes that it asks for; `offline_access` lets it renew its token.")
OIDC_RESOURCE = Setting("auth.oidc.resource", optional(oidc.public_url()), None,
    "Public address of this service. Empty: `http://` and what the client calls it.")
RATE_LIMIT = Setting("auth.rate_limit_per_minute", integer(0, _MANY), 0,
    "Requests that a key may make in any 60 seconds, unless it has `limits` of its own; each prompt counts. 0 is no "
    "limit.", None, "INFERFLUX_RATE_LIMIT_PER_MINUTE")
LIMIT_TOKENS = Setting("limits.tokens_per_minute", integer(0, _MANY), 0,
    "Tokens of prompts and answers that a key may use in any 60 seconds. A call reserves what it may come to, and gets "
    "back the rest at its end. 0 is no limit.", None, "INFERFLUX_LIMIT_TOKENS_PER_MINUTE")
LIMIT_CONCURRENT = Setting("limits.concurrent_requests", integer(0, _MANY), 0,
    "Requests that a key may have in the queue and running at a time; 0 is no limit.",
    None, "INFERFLUX_LIMIT_CONCURRENT_REQUESTS")
LIMIT_TOKENS_PER_DAY = Setting("limits.tokens_per_day", integer(0, _MANY), 0,
    "Tokens that a key may use in a day of UTC; 0 is no limit.", None, "INFERFLUX_LIMIT_TOKENS_PER_DAY")
LIMITS_OF_TENANTS = Setting("limits.tenants", limits.DOCUMENT, (),
    "Limits over all keys of a tenant, by its name: `{requests_per_minute, tokens_per_minute, concurrent_requests, "
    "tokens_per_day}`.")
LIMITS_OF_MODELS = Setting("limits.models", limits.DOCUMENT, (),
    "The same over all that use a model, by its id.")
KEY_PEPPER = Setting("", optional(text("a text")), None,
    "Secret that key hashes are made with, instead of `<data-dir>/pepper`.", None, "INFERFLUX_KEY_PEPPER", secret=True)
BLOCKLIST = Setting("guardrails.blocklist", listing(text("a word")), (),
    "Words and phrases that neither prompts nor answers may hold, in any case and spacing.", None,
    "INFERFLUX_GUARDRAIL_BLOCKLIST")
PATTERNS = Setting("guardrails.patterns", listing(text("an RE2 expression")), (),
    "Regular expressions (RE2) that match in neither; those with a comma can stand in the file only.")
OPA_ENDPOINT = Setting("guardrails.opa_endpoint", optional(text("a URL")), None,
    "Who decides on requests: `file:///….rego`, `file:///….json`, or the URL of a decision in an OPA server.", None,
    "INFERFLUX_OPA_ENDPOINT")
OPA_TIMEOUT_S = Setting("guardrails.opa_timeout_s", seconds(0.01, 60), 1.0,
    "How long an OPA server may take to decide.")
GUARDRAILS_FAIL_OPEN = Setting("guardrails.fail_open", boolean(), False,
    "Whether requests pass on which the policy gave no decision, and prompts of token ids; else they are refused.")
POLICY_STORE = Setting("policy.store", optional(path()), None,
    "File with a copy of the stored policy, encrypted; without one in the broker it is taken from there. "
    "Empty: `<data-dir>/policy.store`.", None, "INFERFLUX_POLICY_STORE")
POLICY_PASSPHRASE = Setting("", optional(text("a text")), None,
    "What the stored policy is encrypted with, the same for every edge. Without it `up` uses a random key in "
    "`<data-dir>/policy.key`; with an external NATS it is needed for the first change.",
    None, "INFERFLUX_POLICY_PASSPHRASE", secret=True)
POLICY_MAX_STALE_S = Setting("policy.max_stale_s", seconds(1, 86400), 300.0,
    "How long an edge that cannot open the newest policy goes on by the one before; then it is not ready, and refuses "
    "every key with 503.")

# Autoscaling
AUTOSCALE_WAIT_S = Setting("autoscale.target_queue_wait_s", seconds(0.1, 3600), 5.0,
    "How long a request may wait for a worker before the hint asks for more of them.")
AUTOSCALE_MIN = Setting("autoscale.min_workers", integer(1, 10_000), 1,
    "Fewest workers of a model that is in use.")
AUTOSCALE_MAX = Setting("autoscale.max_workers", integer(1, 10_000), 64,
    "Most workers of a model.")
AUTOSCALE_IDLE_S = Setting("autoscale.idle_to_zero_s", optional(seconds(1, 30 * 86400)), None,
    "After so long without a request a model should have no worker; the next call wakes one. Empty: never. With "
    "`no_worker: queue` that call waits, else it is refused and counts all the same.")
AUTOSCALE_STABILIZATION_S = Setting("autoscale.stabilization_s", seconds(0, 86400), 300.0,
    "How long fewer workers must have been enough before the hint falls. It rises at once.")

# Registry, metrics, traces, logs
REGISTRY_PATH = Setting("registry.path", optional(path()), None,
    "File (YAML or JSON) with `models` as here, followed while running; every edge needs the same one.",
    None, "INFERFLUX_REGISTRY_PATH")
REGISTRY_POLL_MS = Setting("registry.poll_interval_ms", integer(100, 3_600_000), 5000,
    "How often it, and the configuration file, is looked at where the system does not tell of changes.")
ALLOW_DOWNLOADS = Setting("registry.allow_downloads", boolean(), True,
    "Whether models with an `hf:` source may be downloaded, from `HF_ENDPOINT` and with the token in `HF_TOKEN`. With "
    "false those serve that are in `<data-dir>/models` already.")
METRICS_HOST = Setting("metrics.host", text("a host name or address"), "127.0.0.1",
    "Where the scrape ports listen (edge 9191, workers from 9101); they ask for no key.")
TRACING_ENDPOINT = Setting("tracing.endpoint", optional(http_url()), None,
    "Base URL of an OpenTelemetry collector (OTLP over HTTP), such as `http://localhost:4318`; without it nothing is "
    "traced. Needs the extra `otel`.", None, "OTEL_EXPORTER_OTLP_ENDPOINT")
TRACING_SAMPLE_RATIO = Setting("tracing.sample_ratio", fraction(), 1.0,
    "Share of the traces that begin here which is recorded, 0 to 1; a caller's `traceparent` decides on its own.")
TRACING_SERVICE_NAME = Setting("tracing.service_name", text("a name"), "inferflux",
    "Name of this service in traces; edges and workers differ in `service.instance.id`.", None, "OTEL_SERVICE_NAME")
LOG_LEVEL = Setting("logging.level", choice("debug", "info", "warning", "error"), "info",
    "Least important lines that are logged.", None, "INFERFLUX_LOG_LEVEL")
LOG_FORMAT = Setting("logging.format", choice("console", "json"), "console",
    "Lines for people, or one JSON object each.", None, "INFERFLUX_LOG_FORMAT")
AUDIT_LOG = Setting("logging.audit_log", optional(path()), None,
    "File that gets, line by line, what this edge records for the audit; without it the record is in the broker alone.",
    None, "INFERFLUX_AUDIT_LOG")
AUDIT_LEVEL = Setting("audit.level", choice("changes", "denials", "requests"), "denials",
    "What is recorded: changes that administrators make; refused credentials and requests that a rule forbids too; or "
    "every request.")
AUDIT_CONTENT = Setting("audit.content", choice("hash", "none", "full"), "hash",
    "What a recorded request says of its prompt and answer: a keyed hash, nothing, or the text itself.")

# Processes: flags without a key
CONFIG = Setting("", optional(path()), None, "Configuration file (YAML).", "--config")
DATA_DIR = Setting("", path(), Path("~/.inferflux"),
    "Where state lives: NATS data, credentials, run.json.", "--data-dir", "INFERFLUX_DATA_DIR")
WORKERS = Setting("", integer(0, 64), 1, "Workers that `up` runs for each model.", "--workers")
NO_EDGE = Setting("", boolean(), False, "Run no edge, only broker and workers.", "--no-edge")

# fmt: on


def _rows() -> tuple[Setting[Any], ...]:
    return tuple(value for value in globals().values() if isinstance(value, Setting))


TABLE: tuple[Setting[Any], ...] = _rows()
MODEL_FIELDS = {row.key.removeprefix("models.<id>."): row for row in TABLE if row.key.startswith("models.<id>.")}
PLAIN = {row.key: row for row in TABLE if row.key and not row.key.startswith("models.<id>.")}
