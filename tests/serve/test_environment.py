"""HAProxy in front of the gateway: nothing of it is open to other machines."""

import os
import subprocess
from pathlib import Path

import pytest
from ray.serve._private.haproxy_templates import HAPROXY_CONFIG_TEMPLATE

from serve.environment import HEADER_S, IDLE_S, METRICS_PORT, STATS_PORT, prepare_local_ray


def test_ports_for_statistics_become_sockets_and_slow_clients_time_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", {"PATH": os.environ["PATH"]})
    prepare_local_ray()
    binary = Path(os.environ["RAY_SERVE_HAPROXY_BINARY_PATH"])
    config = tmp_path / "haproxy.cfg"
    lines = [f"  bind *:{STATS_PORT}", f"    bind :{METRICS_PORT}", "    bind *:8000"]
    lines.append("    timeout client 3600s")
    config.write_text("\n".join(lines) + "\n", "utf-8")
    for _ in range(2):  # Ray may give it the same file again
        subprocess.run([binary, "-c", "-f", config], capture_output=True, check=False, timeout=30)
    assert config.read_text("utf-8").splitlines() == [
        f"  bind unix@{binary.parent}/{STATS_PORT}.sock",
        f"    bind unix@{binary.parent}/{METRICS_PORT}.sock",
        "    bind *:8000",
        "    timeout client 3600s",
        f"    timeout http-request {HEADER_S}s",
        f"    timeout http-keep-alive {IDLE_S}s",
    ]
    # Ray's template still writes these lines in this form.
    assert "%}timeout client {{ config.timeout_client_s }}s{%" in HAPROXY_CONFIG_TEMPLATE
    for name in ("config.stats_port", "config.metrics_port"):
        (line,) = [line for line in HAPROXY_CONFIG_TEMPLATE.splitlines() if name in line]
        assert line.strip() in (f"bind *:{{{{ {name} }}}}", f"bind :{{{{ {name} }}}}")


def test_choice_of_the_user_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {"RAY_SERVE_ENABLE_HA_PROXY": "0"})
    prepare_local_ray()
    assert os.environ == {"RAY_SERVE_ENABLE_HA_PROXY": "0"}
