"""Settings of the autoscaling hint, from the environment to the edge."""

from pathlib import Path

import pytest

from ops.serving.edge import edge_config
from ops.settings.errors import SettingsError
from ops.settings.loader import load
from producer.config import AutoscaleConfig

PREFIX = "INFERFLUX_AUTOSCALE__"


def test_what_is_not_set_is_what_an_edge_has_by_itself(tmp_path: Path) -> None:
    settings = load({}, {"--data-dir": str(tmp_path)})
    assert edge_config(settings, "e1").autoscale == AutoscaleConfig()


def test_an_edge_gets_what_is_set(tmp_path: Path) -> None:
    environ = {
        f"{PREFIX}TARGET_QUEUE_WAIT_S": "2.5",
        f"{PREFIX}MIN_WORKERS": "2",
        f"{PREFIX}MAX_WORKERS": "8",
        f"{PREFIX}IDLE_TO_ZERO_S": "600",
        f"{PREFIX}STABILIZATION_S": "0",
    }
    settings = load(environ, {"--data-dir": str(tmp_path)})
    assert edge_config(settings, "e1").autoscale == AutoscaleConfig(2.5, 2, 8, 600.0, 0.0)


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({"MIN_WORKERS": "9", "MAX_WORKERS": "8"}, "autoscale.min_workers"),
        ({"MIN_WORKERS": "0"}, "autoscale.min_workers"),
        ({"TARGET_QUEUE_WAIT_S": "0"}, "autoscale.target_queue_wait_s"),
        ({"IDLE_TO_ZERO_S": "never"}, "autoscale.idle_to_zero_s"),
        ({"STABILIZATION_S": "-1"}, "autoscale.stabilization_s"),
        ({"WINDOW_S": "1"}, "AUTOSCALE__WINDOW_S"),
    ],
)
def test_what_makes_no_sense_is_named(environ: dict[str, str], named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        load({PREFIX + name: value for name, value in environ.items()}, {})
