import stat
from pathlib import Path

import pytest

from broker.credentials import create_credentials, find_login
from broker.errors import BrokerUnsuitable
from broker.roles import FIXED_USERS, Role, User


def test_every_role_has_a_private_file_with_its_own_password(tmp_path: Path) -> None:
    logins = create_credentials(tmp_path / "creds")
    assert set(logins) == set(FIXED_USERS)
    assert len({login.password for login in logins.values()}) == len(logins)
    for user, login in logins.items():
        path = tmp_path / "creds" / user.role
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert find_login(tmp_path / "creds", user.role) == login
        assert find_login(path, user.role) == login


def test_tenants_that_were_named_once_keep_their_logins(tmp_path: Path) -> None:
    made = create_credentials(tmp_path, ["acme", "a.b/c"])
    assert create_credentials(tmp_path) == made
    for tenant in ("acme", "a.b/c"):
        assert find_login(tmp_path, Role.BATCH, tenant) == made[User(Role.BATCH, tenant)]
    with pytest.raises(BrokerUnsuitable, match="no credentials for role batch-other"):
        find_login(tmp_path, Role.BATCH, "other")


def test_a_batch_publisher_is_somebodys() -> None:
    with pytest.raises(ValueError, match="needs a tenant"):
        User(Role.BATCH).name  # noqa: B018
    with pytest.raises(ValueError, match="has no tenant"):
        User(Role.EDGE, "acme").name  # noqa: B018


def test_passwords_stay_over_restarts_and_loose_modes_are_tightened(tmp_path: Path) -> None:
    first = create_credentials(tmp_path)
    (tmp_path / "edge").chmod(0o644)
    assert create_credentials(tmp_path) == first
    assert stat.S_IMODE((tmp_path / "edge").stat().st_mode) == 0o600


def test_a_jwt_file_is_passed_on_as_its_path(tmp_path: Path) -> None:
    path = tmp_path / "user.creds"
    path.write_text("-----BEGIN NATS USER JWT-----\nabc\n------END NATS USER JWT------\n")
    assert find_login(path, Role.EDGE) == path


def test_a_missing_or_broken_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BrokerUnsuitable, match="no credentials for role edge"):
        find_login(tmp_path, Role.EDGE)
    (tmp_path / "edge").write_text("user: edge\n")
    with pytest.raises(BrokerUnsuitable, match="password"):
        find_login(tmp_path, Role.EDGE)
