"""Configuration of a nats-server: one account and its users, and around them what the embedded one needs.

The users stand in a file of their own, which can be written anew while the server runs.
"""

import json
import shutil
from collections.abc import Iterable
from pathlib import Path

from broker.credentials import Login
from broker.roles import FIXED_USERS, User, permissions

MAX_PAYLOAD_BYTES = 8 << 20
MAX_MEMORY_BYTES = 256 << 20
_SPARE_BYTES = 1 << 30
USERS_FILE = "users.conf"


def available_bytes(store: Path) -> int:
    """JetStream's share of the disk: what it uses, and what is free less a gigabyte (half of it when little is left).

    Below free space, so that a full stream is answered with an error; a full disk is not answered at all.
    """
    used = sum(path.stat().st_size for path in store.rglob("*") if path.is_file())
    free = shutil.disk_usage(store).free
    return used + max(free - _SPARE_BYTES, free // 2)


def render_config(
    *,
    name: str,
    store_dir: str,
    listen: str,
    http: str,
    max_file: int,
    ports_dir: str | None = None,
) -> str:
    """The text of a nats-server configuration. `listen` and `http` are host:port; port -1 is a free one.

    It includes `users.conf`, which lies beside it.
    """
    ports = f"ports_file_dir: {json.dumps(ports_dir)}\n" if ports_dir else ""
    return f"""# Written at every start.
server_name: {json.dumps(name)}
listen: {json.dumps(listen)}
http: {json.dumps(http)}
{ports}max_payload: {MAX_PAYLOAD_BYTES}
jetstream {{
  store_dir: {json.dumps(store_dir)}
  max_mem: {MAX_MEMORY_BYTES}
  max_file: {max_file}
  # A burst of unacked tokens beyond these is dropped without a word to the publisher.
  max_buffered_msgs: 200000
  max_buffered_size: 268435456
}}
accounts {{
  # The limits are repeated here, since only an account's own are visible to the topology, which sizes streams by them.
  INFERFLUX: {{
    jetstream: {{ max_mem: {MAX_MEMORY_BYTES}, max_file: {max_file} }}
    include {USERS_FILE}
  }}
}}
"""


def render_users(logins: Iterable[tuple[User, Login]]) -> str:
    """The users of the account, each with what it may do."""
    lines = ",\n".join(f"  {_user(user, login)}" for user, login in logins)
    return f"users: [\n{lines}\n]\n"


def render_account(logins: Iterable[tuple[User, Login]]) -> str:
    """The account whole, for a server of which nothing else is ours."""
    return f"accounts {{ INFERFLUX: {{ jetstream: enabled, {render_users(logins)}}} }}\n"


def render_account_for_variables() -> str:
    """The same for all deployments: passwords come from the server's environment. Without tenants, who differ."""
    logins = [(user, Login(user.name, password_variable(user))) for user in FIXED_USERS]
    text = render_account(logins)
    for _, login in logins:
        text = text.replace(json.dumps(login.password), f"${login.password}")
    return text


def password_variable(user: User) -> str:
    return f"NATS_PASSWORD_{user.name.upper().replace('-', '_')}"


def _user(user: User, login: Login) -> str:
    granted = permissions(*user)
    allowed = [
        f"publish: {{ allow: {json.dumps(granted.publish)} }}",
        f"subscribe: {{ allow: {json.dumps(granted.subscribe)} }}",
    ]
    if granted.responds:
        allowed.append("allow_responses: true")
    return (
        f"{{ user: {json.dumps(login.user)}, password: {json.dumps(login.password)},"
        f" permissions: {{ {', '.join(allowed)} }} }}"
    )
