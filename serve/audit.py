"""The audit log: who changed what, one JSON object per line."""

import json
import logging
from datetime import UTC, datetime
from pathlib import Path

from fastapi import Request

from ampere.store.workspace import Workspace
from serve.problems import request_id_of

FILE = "logs/audit.jsonl"


class Audit:
    """Writes the audit log: to the workspace if it is local, else to the replica's log.

    Args:
        workspace: whose samples and index are changed.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._logger = logging.getLogger("ampere.audit")
        self._logger.setLevel(logging.INFO)
        self._logger.propagate = False
        handler: logging.Handler = logging.StreamHandler()
        if workspace.is_local:
            path = Path(workspace.uri) / FILE
            path.parent.mkdir(exist_ok=True)
            handler = logging.FileHandler(path, encoding="utf-8", delay=True)
        self._logger.handlers = [handler]

    def write(self, request: Request, action: str, target: str, status: int = 200) -> None:
        """Record a change.

        Args:
            request: that asked for it.
            action: such as put.
            target: what is changed.
            status: that of a PUT that failed; 0: it was canceled, and the sample may be stored.
        """
        line = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "request_id": request_id_of(request),
            "key": request.scope.get("ampere.key_id"),
            "action": action,
            "target": target,
            "status": status,
        }
        self._logger.info(json.dumps(line, ensure_ascii=False))
