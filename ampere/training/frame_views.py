"""Training without products or text: one frame of a sample has to find the sample's clip among those of all others.

The losses and the loop are the usual ones; every sample is a product, its frames are the product's pages, and the
sample itself is the product's short. So a frame tower can learn from all pictures there are, and a later training start
from it.
"""

from collections.abc import Iterable, Sequence

from ampere.records import Domain
from ampere.training.data import FrameSource, TrainingSet

MARK = "#"  # between a sample's id and what is meant of it
CLIP = "clip"


def frame_training_set(samples: Iterable[tuple[str, int]]) -> TrainingSet:
    """A training set of samples given as id and number of frames."""
    products = {
        sample_id: {
            Domain.PAGE: [f"{sample_id}{MARK}{number}" for number in range(count)],
            Domain.SHORT: [f"{sample_id}{MARK}{CLIP}"],
        }
        for sample_id, count in samples
    }
    names = (name for domains in products.values() for ids in domains.values() for name in ids)
    return TrainingSet(products=products, texts=dict.fromkeys(names))


class FrameViews:
    """The FrameSource that goes with `frame_training_set`: single frames and clips of stored samples.

    Args:
        frames: the stored samples.
        num_frames: of a clip; a picture becomes a clip of as many equal frames.
    """

    def __init__(self, frames: FrameSource, num_frames: int) -> None:
        self.frames, self.num_frames = frames, num_frames

    def take(self, sample_ids: Sequence[str]) -> list[list[bytes]]:
        asked = [name.rsplit(MARK, 1) for name in sample_ids]
        stored = self.frames.take([sample_id for sample_id, _ in asked])
        return [self._view(jpegs, part) for jpegs, (_, part) in zip(stored, asked, strict=True)]

    def _view(self, jpegs: list[bytes], part: str) -> list[bytes]:
        clip = jpegs * self.num_frames if len(jpegs) == 1 else jpegs
        return clip if part == CLIP else [clip[int(part)]]
