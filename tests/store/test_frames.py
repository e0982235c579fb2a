"""What is known of stored frames without reading them."""

from ampere.records import FRAMES
from ampere.store.frames import LanceFrames, enlarged_note
from ampere.store.workspace import Workspace


def test_models_that_would_enlarge_most_frames_are_reported(workspace: Workspace) -> None:
    """By the shorter side; a row of an older workspace may have no size."""
    sizes = [(72, 128), (128, 72), (300, 225), (None, None)]
    workspace.table(FRAMES).append(
        [{"sample_id": str(i), "width": w, "height": h} for i, (w, h) in enumerate(sizes)]
    )
    frames = LanceFrames(workspace)
    assert enlarged_note("embed", frames, "ampere", 144) == []  # not more than twice
    (line,) = enlarged_note("embed", frames, "cn-clip", 224)
    assert line == (
        "embed: cn-clip reads frames of 224 pixels, but those of 2 of 3 samples are stored with a "
        "shorter side of less than half of that (72 in the median), and show little when enlarged. "
        "If the files are larger, decode again with --decode.short-side 224 or more"
    )
    workspace.table(FRAMES).append([{"sample_id": "4", "width": 224, "height": 224}])
    assert enlarged_note("embed", LanceFrames(workspace), "cn-clip", 224) == []  # only half


def test_frames_of_unknown_size_are_not_reported(workspace: Workspace) -> None:
    workspace.table(FRAMES).append([{"sample_id": "a"}])
    assert enlarged_note("train", LanceFrames(workspace), "ampere", 224) == []
