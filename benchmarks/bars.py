"""Bars: the least values that a benchmark must reach to pass."""


def check_bars(*results: tuple[str, float, float]) -> int:
    """Print each (name, value, bar) and return the exit status: 1 if a value is below its bar."""
    missed = 0
    for name, value, bar in results:
        met = value >= bar
        missed += not met
        print(f"{'met ' if met else 'MISSED'} {name}: {value:.4g}, bar {bar:g}")
    return int(missed > 0)
