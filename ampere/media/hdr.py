"""High dynamic range brought into the range of ordinary screens.

FFmpeg's own conversion gives nearly the same pictures, and takes seconds to set up for each of them.
"""

import numpy as np
from numpy.typing import NDArray

WHITE_NITS = 203.0  # of a white page (ITU-R BT.2408); brighter lights become white
HLG_PEAK_NITS = 1000.0
SCREEN_GAMMA = 2.4
LUMINANCE = np.array([0.2627, 0.6780, 0.0593], np.float32)  # of the wide primaries of BT.2020
TO_BT709 = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32
)  # linear light, BT.2020 to BT.709 (ITU-R BT.2087)


def pq_nits(signal: NDArray[np.float64]) -> NDArray[np.float64]:
    """The light that PQ stands for, by SMPTE ST 2084; `signal` is 0 to 1."""
    power = signal ** (1 / 78.84375)
    return 10_000 * (np.maximum(power - 0.8359375, 0) / (18.8515625 - 18.6875 * power)) ** (
        1 / 0.1593017578125
    )


def hlg_scene(signal: NDArray[np.float64]) -> NDArray[np.float64]:
    """The light before the camera that HLG stands for, 0 to 1, by ITU-R BT.2100; `signal` is 0 to 1."""
    return np.where(
        signal <= 0.5, signal**2 / 3, (np.exp((signal - 0.55991073) / 0.17883277) + 0.28466892) / 12
    )


CODES = np.arange(2**16) / (2**16 - 1)
PQ_NITS, HLG_SCENE = pq_nits(CODES).astype(np.float32), hlg_scene(CODES).astype(np.float32)


def to_ordinary(pixels: NDArray[np.uint16], *, is_pq: bool) -> NDArray[np.uint8]:
    """HDR pixels of BT.2020 with the PQ or else the HLG curve, uint16 [H, W, 3], as uint8 [H, W, 3] of BT.709."""
    if is_pq:
        nits = PQ_NITS[pixels]
    else:
        scene = HLG_SCENE[pixels]
        nits = (
            HLG_PEAK_NITS * scene * (scene @ LUMINANCE)[..., None] ** 0.2
        )  # BT.2100's gamma of 1.2
    light = np.clip(nits / WHITE_NITS @ TO_BT709.T, 0, 1)
    return np.rint(255 * light ** (1 / SCREEN_GAMMA)).astype(np.uint8)
