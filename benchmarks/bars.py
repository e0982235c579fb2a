"""Bars: the values that a benchmark must reach, or stay below, to pass."""


def check_bars(*results: tuple[str, float, float]) -> int:
    """Print each (name, value, bar) and return the exit status: 1 if a value is below its bar."""
    return _check([(name, value, bar, value >= bar) for name, value, bar in results], "bar")


def check_limits(*results: tuple[str, float, float]) -> int:
    """The same where 1 means that a value is above its bar."""
    return _check([(name, value, bar, value <= bar) for name, value, bar in results], "at most")


def _check(results: list[tuple[str, float, float, bool]], word: str) -> int:
    for name, value, bar, met in results:
        print(f"{'met ' if met else 'MISSED'} {name}: {value:.4g}, {word} {bar:g}")
    return int(not all(met for *_, met in results))
