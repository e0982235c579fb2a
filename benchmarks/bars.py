"""What a benchmark holds itself to: it prints how each figure stands to its bar, and fails if one is missed."""


def judge(*figures: tuple[str, float, float]) -> int:
    """Print each (name, figure, bar); the exit status is 1 if a figure is below its bar."""
    missed = 0
    for name, figure, bar in figures:
        met = figure >= bar
        missed += not met
        print(f"{'met ' if met else 'MISSED'} {name}: {figure:.4g}, bar {bar:g}")
    return int(missed > 0)
