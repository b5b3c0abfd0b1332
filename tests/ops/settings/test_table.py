"""The table holds everything the contract promises."""

import pytest

from ops.settings.table import MODEL_FIELDS, PLAIN, TABLE

KEYS = """
server.host server.http_port server.max_concurrent server.max_body_bytes server.request_timeout_s server.status_hold_s
server.max_prompts server.cors_origins server.unknown_parameters server.body_buffer_bytes server.stream_buffer_bytes
server.slow_reader_timeout_s nats.url nats.embedded nats.replicas nats.credentials
runtime.backend_priority runtime.backend_exposure.prefer_native runtime.backend_exposure.allow_llama_fallback
runtime.fairness.enable_preemption runtime.fairness.high_priority_threshold runtime.fairness.max_timeslice_tokens
runtime.parked_kv_bytes
runtime.speculative_decoding.enabled runtime.speculative_decoding.draft_model
runtime.speculative_decoding.max_prefill_tokens runtime.speculative_decoding.chunk_size runtime.paged_kv.cpu_pages
runtime.paged_kv.eviction runtime.prefix_cache.enabled runtime.prefix_cache.scope runtime.nvme_offload.path
runtime.nvme_offload.workers runtime.nvme_offload.queue_depth auth.api_keys auth.oidc.issuer auth.oidc.audience
auth.rate_limit_per_minute limits.tokens_per_minute limits.concurrent_requests limits.tokens_per_day limits.tenants
limits.models guardrails.blocklist guardrails.opa_endpoint policy.store registry.path
registry.poll_interval_ms logging.level logging.format logging.audit_log metrics.host
"""
FIELDS_OF_A_MODEL = """
source backend default aliases context sequences threads gpu_layers kv_type batch_tokens chat_template
max_output_tokens queue_max queue_max_tokens no_worker
"""
VARIABLES = """
HOST_OVERRIDE PORT_OVERRIDE NATS_URL MODEL_PATH MODELS DEFAULT_MODEL_ID BACKEND_PRIORITY BACKEND_PREFER_NATIVE
BACKEND_ALLOW_LLAMA_FALLBACK FAIRNESS_ENABLE_PREEMPTION FAIRNESS_PRIORITY_THRESHOLD FAIRNESS_MAX_TIMESLICE
SPECULATIVE_ENABLED SPEC_DRAFT_MODEL SPEC_MAX_PREFILL SPEC_CHUNK_SIZE KV_CPU_PAGES KV_EVICTION NVME_OFFLOAD_PATH
NVME_WORKERS NVME_QUEUE_DEPTH API_KEYS OIDC_ISSUER OIDC_AUDIENCE RATE_LIMIT_PER_MINUTE GUARDRAIL_BLOCKLIST
OPA_ENDPOINT POLICY_STORE POLICY_PASSPHRASE REGISTRY_PATH LOG_LEVEL LOG_FORMAT AUDIT_LOG DATA_DIR KEY_PEPPER
"""
FLAGS = "--config --host --port --nats-url --nats-port --data-dir --workers --no-edge --backend --model"


@pytest.mark.parametrize("key", KEYS.split())
def test_key_is_there(key: str) -> None:
    assert key in PLAIN


def test_all_fields_of_a_model_are_there() -> None:
    assert list(MODEL_FIELDS) == FIELDS_OF_A_MODEL.split()


def test_all_variables_and_flags_are_there() -> None:
    assert {row.env for row in TABLE} >= {f"INFERFLUX_{name}" for name in VARIABLES.split()}
    assert {row.flag for row in TABLE} >= set(FLAGS.split())


def test_defaults_the_contract_names() -> None:
    defaults = {key: row.default for key, row in PLAIN.items()}
    assert defaults["server.request_timeout_s"] == 600
    assert defaults["server.status_hold_s"] == 10
    assert defaults["server.max_prompts"] == 64
    assert defaults["runtime.fairness.high_priority_threshold"] == 5
    assert defaults["runtime.fairness.enable_preemption"] is False
    assert defaults["runtime.fairness.max_timeslice_tokens"] == 0
    assert MODEL_FIELDS["max_output_tokens"].default == 1024
