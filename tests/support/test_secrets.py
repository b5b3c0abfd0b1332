"""The search for secrets finds them."""

from pathlib import Path

from tests.support.secrets import find_leaks, find_leaks_in_logs, planted


def test_a_planted_secret_is_found_and_named() -> None:
    secret = planted("pepper")
    (named, marked) = find_leaks({"a log": f"starting with {secret}", "another": b"nothing"}, {"the pepper": secret})
    assert (named.secret, named.where, named.around) == ("the pepper", "a log", "starting with <here>")
    assert marked.secret == "a planted secret"


def test_every_log_under_a_folder_is_searched(tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "nats" / "creds").mkdir(parents=True)
    (data / "pepper").write_text("own pepper\n")
    (data / "nats" / "creds" / "edge").write_text("user: edge\npassword: own password\n")
    assert find_leaks_in_logs(tmp_path) == []
    (tmp_path / "data.log").write_text("a line with the own pepper\n")
    (data / "nats" / "server.log").write_text("login own password\n")
    (tmp_path / "edge-two.log").write_text(planted("key"))
    assert len(find_leaks_in_logs(tmp_path)) == 3
    # Or the search at the end of the run finds them.
    for path in tmp_path.rglob("*.log"):
        path.unlink()
