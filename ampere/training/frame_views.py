"""Training without products or text: match one frame of a sample with the sample's whole clip.

The losses and the loop are the usual ones. Every sample is a product: its frames are the product's
pages, and the sample itself is the product's short. So a frame tower can learn from all images of
the catalog, and a later training can start from it.
"""

from collections.abc import Iterable, Sequence

from ampere.records import Domain
from ampere.training.data import FrameSource, TrainingSet

SEPARATOR = "#"  # between a sample's id and the view of it: a frame number, or CLIP
CLIP = "clip"


def frame_training_set(samples: Iterable[tuple[str, int]]) -> TrainingSet:
    """Make a training set of samples, each given as its id and its number of frames.

    >>> frame_training_set([("a", 2)]).products
    {'a': {<Domain.PAGE: 'page'>: ['a#0', 'a#1'], <Domain.SHORT: 'short'>: ['a#clip']}}
    """
    products = {
        sample_id: {
            Domain.PAGE: [f"{sample_id}{SEPARATOR}{number}" for number in range(count)],
            Domain.SHORT: [f"{sample_id}{SEPARATOR}{CLIP}"],
        }
        for sample_id, count in samples
    }
    names = (name for domains in products.values() for ids in domains.values() for name in ids)
    return TrainingSet(products=products, texts=dict.fromkeys(names))


class FrameViews:
    """The `FrameSource` of a `frame_training_set`: single frames and whole clips of samples.

    Args:
        frames: the stored samples.
        num_frames: frames of a clip; an image is repeated to make a clip.
    """

    def __init__(self, frames: FrameSource, num_frames: int) -> None:
        self.frames, self.num_frames = frames, num_frames

    def take(self, sample_ids: Sequence[str]) -> list[list[bytes]]:
        """Read views by their names, such as `a#0` and `a#clip`, as lists of JPEG frames."""
        names = [name.rsplit(SEPARATOR, 1) for name in sample_ids]
        stored = self.frames.take([sample_id for sample_id, _ in names])
        return [self._view(jpegs, view) for jpegs, (_, view) in zip(stored, names, strict=True)]

    def _view(self, jpegs: list[bytes], view: str) -> list[bytes]:
        clip = jpegs * self.num_frames if len(jpegs) == 1 else jpegs
        return clip if view == CLIP else [clip[int(view)]]
