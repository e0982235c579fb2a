"""Starting and stopping the endpoint: `ampere serve`, and the demo's short visit."""

import dataclasses
import logging
import threading

from ampere.config import ServeSettings
from ampere.pipeline.cluster import connect
from ampere.workspace import Workspace

APPLICATION = "ampere"


def start(workspace: Workspace, settings: ServeSettings) -> str:
    """Start the application and return its URL once it answers.

    Raises:
        FileNotFoundError: the workspace has no such model or no index of it.
        ValueError: the index is of other weights than the model's.
    """
    connect()
    from ray import serve

    from serve.app import SearchArgs, build_app

    arguments = dataclasses.asdict(settings)
    host, port = arguments.pop("host"), arguments.pop("port")
    app = build_app(SearchArgs(workspace=workspace.uri, **arguments))
    serve.start(
        http_options={"host": host, "port": port}, logging_config={"log_level": "ERROR", "enable_access_log": False}
    )
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    serve.run(app, name=APPLICATION, route_prefix="/")
    return f"http://{host}:{port}"


def stop() -> None:
    """Stop the application; Ray itself, and Serve's HTTP proxy with it, go on until this process ends."""
    from ray import serve

    serve.delete(APPLICATION)


def serve_until_interrupted(workspace: Workspace, settings: ServeSettings) -> int:
    """Serve until Ctrl-C."""
    url = start(workspace, settings)
    print(f"serving model {settings.model} of {workspace.uri} at {url} (docs at {url}/docs); Ctrl-C stops", flush=True)
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        stop()
    return 0
