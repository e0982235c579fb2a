"""A stand-in for the libraries of experiment trackers."""

import types
from typing import Any


class StubLibrary(types.ModuleType):
    """Stands in for wandb and mlflow, whose servers cannot be reached here; records what it gets.

    Args:
        fails: the function that fails: init, log or end.
        at_call: number of the call of that function that fails, from 1.
    """

    def __init__(self, fails: str = "", at_call: int = 1) -> None:
        super().__init__("library")
        self.received: list[Any] = []
        self.fails, self.at_call, self.calls = fails, at_call, 0

    def called(self, name: str) -> None:
        self.calls += name == self.fails
        if name == self.fails and self.calls == self.at_call:
            raise ConnectionResetError("the server is gone")

    def __enter__(self) -> "StubLibrary":
        return self

    def __exit__(self, *_: object) -> None:
        self.called("end")
        self.received.append("end")

    def init(self, **given: Any) -> "StubLibrary":
        self.called("init")
        self.received.append((given["project"], given["name"], given["config"]["train"]["epochs"]))
        return self

    def set_experiment(self, name: str) -> None:
        self.received.append(name)

    def start_run(self, run_name: str) -> "StubLibrary":
        self.received.append(run_name)
        return self

    def log(self, metrics: dict[str, float], step: int) -> None:
        self.called("log")
        self.received.append((step, metrics["contrastive"]))

    log_metrics = log
