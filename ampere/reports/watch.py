"""Shows a text again and again: in place on a terminal, as lines where output is piped."""

import threading
from collections.abc import Callable
from datetime import datetime

from rich.console import Console
from rich.live import Live
from rich.text import Text


def watch(render: Callable[[], str], interval_s: float, console: Console | None = None) -> None:
    """Show what `render` returns every `interval_s`; ends by an interrupt only.

    Args:
        render: makes the text.
        interval_s: pause between two texts, in seconds.
        console: to show it on; None: stdout.

    Raises:
        KeyboardInterrupt: Ctrl-C, or another signal.
    """
    console = console or Console()
    pause = threading.Event()
    if not console.is_terminal:
        while True:
            print(f"{_now()}\n{render()}\n", file=console.file, flush=True)
            pause.wait(interval_s)
    with Live(console=console, auto_refresh=False, vertical_overflow="visible") as live:
        while True:
            live.update(Text(f"{render()}\n\n{_now()}, Ctrl-C ends"), refresh=True)
            pause.wait(interval_s)


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")
