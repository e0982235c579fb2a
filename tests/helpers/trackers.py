"""A stand-in for the libraries of experiment trackers."""

import types
from typing import Any


class Library(types.ModuleType):
    """Stands for wandb and mlflow, whose servers cannot be reached here; takes down what it is told."""

    def __init__(self, fails: str = "", at_call: int = 1) -> None:
        """Fails at a call of the function that `fails` names."""
        super().__init__("library")
        self.told: list[Any] = []
        self.fails, self.at_call, self.calls = fails, at_call, 0

    def called(self, name: str) -> None:
        self.calls += name == self.fails
        if name == self.fails and self.calls == self.at_call:
            raise ConnectionResetError("the server is gone")

    def __enter__(self) -> "Library":
        return self

    def __exit__(self, *_: object) -> None:
        self.called("end")
        self.told.append("end")

    def init(self, **told: Any) -> "Library":
        self.called("init")
        self.told.append((told["project"], told["name"], told["config"]["train"]["epochs"]))
        return self

    def set_experiment(self, name: str) -> None:
        self.told.append(name)

    def start_run(self, run_name: str) -> "Library":
        self.told.append(run_name)
        return self

    def log(self, told: dict[str, float], step: int) -> None:
        self.called("log")
        self.told.append((step, told["contrastive"]))

    log_metrics = log
