"""Starting and stopping the endpoint, for `ampere serve` and `ampere demo`."""

import asyncio
import contextlib
import logging
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

from ampere.cluster import cluster_address, connect, is_connected
from ampere.config.serve import ServeSettings, is_loopback
from ampere.logs import is_json
from ampere.store.keys import read_keys
from ampere.store.workspace import Workspace
from serve.environment import prepare_local_ray

APPLICATION = "ampere"
REQUEST_TIMEOUT_S = 1000.0  # beyond any limit of our own, which the guards of a gateway keep
# A line for each request, in the gateway and in each replica behind it, costs more than it tells.
LOGGING = {"enable_access_log": False}
# At a signal. With Serve's own time to stop, it ends within the usual 30 s before SIGKILL.
DRAIN_S = 15.0
STOP_S = 20.0  # with the calls of Serve before and after it


def start(workspace: Workspace, settings: ServeSettings) -> str:
    """Start the application and return its URL once it is ready.

    Raises:
        FileNotFoundError: the workspace has no such model or no index of it.
        ValueError: the address is not loopback, and there are no API keys.
        RuntimeError: the port is in use, the cluster has an endpoint already, or there are not
            enough cores or GPUs.
    """
    host, port = settings.host, settings.port
    require_keys(workspace, host)
    require_free_port(host, port)
    if cluster_address() is None and not is_connected():
        prepare_local_ray()
    from ray import serve

    from serve.app import bind_app, reserved_resources
    from serve.engine_apps import engine_deployments

    engines = engine_deployments(workspace, settings)
    app = bind_app(workspace, settings, engines, requires_keys=not is_loopback(host))
    reserved = reserved_resources(settings, engines)
    connect(reserved.gpus, "serve.gpus")
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    if APPLICATION in serve.status().applications:
        raise RuntimeError(
            f"this Ray cluster already serves an application {APPLICATION!r}, which a second start "
            "would replace. Stop it first (Ctrl-C where it was started, or `serve shutdown -y`)"
        )
    require_cpus(reserved.cpus)
    serve.start(
        http_options={"host": host, "port": port, "request_timeout_s": REQUEST_TIMEOUT_S},
        logging_config={
            "log_level": "ERROR",
            "enable_access_log": False,
            "encoding": "JSON" if is_json() else "TEXT",
        },
    )
    serve.run(app, name=APPLICATION, route_prefix="/", logging_config=LOGGING)
    return f"http://{host}:{port}"


def require_keys(workspace: Workspace, host: str) -> None:
    """Check that other machines need an API key, and that there is one.

    Raises:
        ValueError: the address is not loopback, and the workspace has no keys.
    """
    if not is_loopback(host) and not read_keys(workspace):
        raise ValueError(
            f"serve.host is {host}, which other machines reach, and {workspace.uri} has no API "
            f"keys. Run `ampere keys add --workspace {workspace.uri}` first, or listen on 127.0.0.1"
        )


def require_cpus(cpus: float) -> None:
    """Check that a Ray of this machine has the CPU cores that the replicas reserve.

    Otherwise Serve would wait for ever for some of them. A cluster may add nodes.

    Raises:
        RuntimeError: it has fewer.
    """
    import ray

    if cluster_address() is not None:
        return
    available = ray.cluster_resources().get("CPU", 0.0)
    if cpus > available:
        raise RuntimeError(
            f"the endpoint's replicas reserve {cpus:g} CPU cores, and this machine's Ray has "
            f"{available:g}. Lower --serve.cpus or the number of replicas"
        )


def require_free_port(host: str, port: int) -> None:
    """Check that this machine's Ray can listen on a port; it need not run yet.

    Raises:
        RuntimeError: the port is in use.
    """
    if cluster_address() is None and not proxy_runs():
        check_port(host, port)


def proxy_runs() -> bool:
    """Whether Serve listens already in the Ray of this process; endpoints share its port."""
    import ray

    if not ray.is_initialized():
        return False
    from ray import serve

    return bool(serve.status().proxies)


def check_port(host: str, port: int) -> None:
    """Check that no process listens on a port: Serve would share it, and split the requests.

    Raises:
        RuntimeError: the port is in use.
    """
    with socket.socket() as probe:
        # Without this option, a port that was closed a moment ago counts as in use.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise RuntimeError(
                f"cannot bind {host}:{port} ({error}); choose another --serve.port"
            ) from error


def stop() -> bool:
    """Stop the application; returns whether the requests in progress got their answers first.

    Ray and Serve's HTTP proxy run until this process ends.
    """
    from ray import serve
    from ray.serve.exceptions import DeploymentUnavailableError

    loop = asyncio.new_event_loop()  # left open: Serve's threads call it until the process ends
    is_drained = False
    with contextlib.suppress(TimeoutError, DeploymentUnavailableError):
        is_drained = loop.run_until_complete(drain_gateways())
    # To wait for the end of the replicas would take half a minute, in which they wait for load
    # balancers. The controller takes calls in order: it has the deletion when it gives its status.
    serve.delete(APPLICATION, _blocking=False)
    serve.status()
    return is_drained


def stop_in_time() -> str:
    """Stop the application within `STOP_S`; returns what became of the requests in progress.

    A signal to all processes of a service, as systemd sends it, also ends Ray, for whose answer
    `stop` would wait until Ray aborts this process.
    """
    stopping = ThreadPoolExecutor(1).submit(stop)
    try:
        is_drained = stopping.result(timeout=STOP_S)
    except Exception as error:  # of Ray, whose processes may have got the signal, too
        return f"requests in progress may have got no answer ({type(error).__name__} of Ray)"
    if not is_drained:
        return f"some requests in progress got no answer within {DRAIN_S:g} s"
    return "requests in progress were answered"


async def drain_gateways() -> bool:
    """Let all gateways refuse further requests, and wait for those in progress.

    Returns whether every gateway answered its own.

    Serve's handles need an event loop, since gateways share theirs with Serve (`SETTINGS` of
    `serve.environment`, which count for this process, too).

    Raises:
        TimeoutError: they take longer than `DRAIN_S`.
    """
    from ray import serve

    draining = serve.get_app_handle(APPLICATION).broadcast("drain")
    results = await draining.results_async(timeout_s=DRAIN_S, return_exceptions=True)
    return not any(isinstance(result, BaseException) for result in results)


def serve_until_interrupted(workspace: Workspace, settings: ServeSettings) -> int:
    """Serve until a signal; then answer the requests in progress.

    Raises:
        KeyboardInterrupt: a signal came, and the endpoint has stopped.
    """
    url = start(workspace, settings)
    print(
        f"serving model {settings.model} of {workspace.uri}\n"
        f"search page {url}, API {url}/openapi.json; Ctrl-C stops",
        flush=True,
    )
    try:
        threading.Event().wait()
    except KeyboardInterrupt as interrupt:
        raise KeyboardInterrupt(stop_in_time()) from interrupt
    return 0
