"""The route table. Access control, the API document and the tests of both read it."""

from producer.edge.operation import Route
from producer.edge.routes import chat, completions, health, metrics, models, requests, well_known
from producer.edge.routes.admin import api_keys, audit, guardrails, policy, rate_limit

ROUTES: tuple[Route, ...] = (
    Route("POST", "/v1/chat/completions", chat.create_chat_completion),
    Route("POST", "/v1/completions", completions.create_completion),
    Route("GET", "/v1/models", models.list_models),
    Route("GET", "/v1/models/{id:path}", models.retrieve_model),
    Route("DELETE", "/v1/requests/{id}", requests.cancel_request),
    Route("GET", "/v1/requests/{id}/events", requests.resume_request),
    Route("GET", "/v1/admin/audit", audit.list_audit),
    Route("GET", "/v1/admin/audit/verify", audit.verify_audit),
    Route("POST", "/v1/admin/audit/verify", audit.verify_audit_file),
    Route("GET", "/v1/admin/audit/export", audit.export_audit),
    Route("GET", "/v1/admin/api_keys", api_keys.list_api_keys),
    Route("POST", "/v1/admin/api_keys", api_keys.issue_api_key),
    Route("POST", "/v1/admin/api_keys/{id}/rotate", api_keys.rotate_api_key),
    Route("PATCH", "/v1/admin/api_keys/{id}", api_keys.update_api_key),
    Route("DELETE", "/v1/admin/api_keys/{id}", api_keys.revoke_api_key),
    Route("GET", "/v1/admin/guardrails", guardrails.show_guardrails),
    Route("PUT", "/v1/admin/guardrails", guardrails.put_guardrails),
    Route("GET", "/v1/admin/policy", policy.show_policy),
    Route("GET", "/v1/admin/policy/versions", policy.list_policy_versions),
    Route("POST", "/v1/admin/policy/rollback", policy.roll_back_policy),
    Route("POST", "/v1/admin/policy/reset", policy.reset_policy),
    Route("POST", "/v1/admin/policy/export", policy.export_policy),
    Route("POST", "/v1/admin/policy/import", policy.import_policy),
    Route("POST", "/v1/admin/policy/passphrase", policy.rotate_policy_passphrase),
    Route("GET", "/v1/admin/rate_limit", rate_limit.show_rate_limit),
    Route("PUT", "/v1/admin/rate_limit", rate_limit.set_rate_limit),
    Route("GET", "/v1/admin/rate_limit/use", rate_limit.show_use),
    Route("GET", "/healthz", health.healthz),
    Route("GET", "/health", health.health),
    Route("GET", "/livez", health.livez),
    Route("GET", "/readyz", health.readyz),
    Route("GET", "/version", health.version),
    Route("GET", "/.well-known/oauth-protected-resource", well_known.protected_resource),
    Route("GET", "/openapi.json", health.openapi),
    Route("GET", "/metrics", metrics.metrics),
    Route("GET", "/", health.welcome),
)
