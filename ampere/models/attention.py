"""What the frame tower looks at: attention of the CLS token over the patches of each frame (paper, figure 3)."""

import torch
from torch import Tensor, nn

from ampere.models.ampere import AMPere


@torch.inference_mode()
def cls_attention(model: AMPere, frames: Tensor) -> Tensor:
    """Attention of the last layer's CLS token, the mean over its heads.

    Args:
        model: in evaluation mode, with a video branch.
        frames: uint8 [B, F, 3, H, W], as the model takes them.

    Returns:
        float32 [B, F, R, R], R patches a side; each frame's sum to 1. What CLS gives to itself and to the message
        token of the other frames is left out.

    Raises:
        ValueError: the model sees no frames.
    """
    if model.video is None:
        raise ValueError("the model sees no frames; it has no attention over them")
    tower, found = model.video.tower, []

    def keep(module: nn.Module, inputs: object, outputs: tuple[Tensor, Tensor]) -> None:
        found.append(outputs[1])

    hook = tower.encoder.layers[-1].self_attn.register_forward_hook(keep)
    usual = tower.config._attn_implementation
    tower.set_attn_implementation("eager")  # the faster ones do not keep their weights
    try:
        model.video(frames)
    finally:
        hook.remove()
        tower.set_attn_implementation(usual)
    side = model.image_size // model.config.sizes.patch_size
    patches = found[0].float().mean(dim=1)[:, 0, 1 : 1 + side * side]
    patches = patches / patches.sum(dim=1, keepdim=True)
    return patches.unflatten(1, (side, side)).unflatten(0, frames.shape[:2])
