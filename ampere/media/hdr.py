"""High dynamic range (HDR) video converted to standard dynamic range (SDR).

FFmpeg's own conversion gives nearly the same pictures but takes seconds to set up for each.
"""

import numpy as np
from numpy.typing import NDArray

WHITE_NITS = 203.0  # of a white page (ITU-R BT.2408); brighter light becomes white
HLG_PEAK_NITS = 1000.0
SCREEN_GAMMA = 2.4
LUMINANCE = np.array([0.2627, 0.6780, 0.0593], np.float32)  # of the wide primaries of BT.2020
TO_BT709 = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32
)  # linear light, BT.2020 to BT.709 (ITU-R BT.2087)


def pq_nits(signal: NDArray[np.float64]) -> NDArray[np.float64]:
    """Luminance in nits of a PQ signal (0 to 1), by SMPTE ST 2084."""
    power = signal ** (1 / 78.84375)
    return 10_000 * (np.maximum(power - 0.8359375, 0) / (18.8515625 - 18.6875 * power)) ** (
        1 / 0.1593017578125
    )


def hlg_scene(signal: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scene light (0 to 1) of an HLG signal (0 to 1), by ITU-R BT.2100."""
    return np.where(
        signal <= 0.5, signal**2 / 3, (np.exp((signal - 0.55991073) / 0.17883277) + 0.28466892) / 12
    )


CODES = np.arange(2**16) / (2**16 - 1)
PQ_NITS, HLG_SCENE = pq_nits(CODES).astype(np.float32), hlg_scene(CODES).astype(np.float32)


def to_sdr(pixels: NDArray[np.uint16], *, is_pq: bool) -> NDArray[np.uint8]:
    """Convert HDR pixels of BT.2020 to SDR pixels of BT.709.

    Args:
        pixels: uint16 [H, W, 3].
        is_pq: whether they are encoded with the PQ curve, else with HLG.

    Returns:
        uint8 [H, W, 3].
    """
    if is_pq:
        nits = PQ_NITS[pixels]
    else:
        scene = HLG_SCENE[pixels]
        gamma_minus_1 = 0.2  # BT.2100's system gamma of 1.2
        nits = HLG_PEAK_NITS * scene * (scene @ LUMINANCE)[..., None] ** gamma_minus_1
    light = np.clip(nits / WHITE_NITS @ TO_BT709.T, 0, 1)
    return np.rint(255 * light ** (1 / SCREEN_GAMMA)).astype(np.uint8)
