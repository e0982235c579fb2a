"""Attention maps of the frame tower: what CLS attends to in each frame (paper, figure 3)."""

import torch
from torch import Tensor, nn

from ampere.models.ampere import AMPere
from ampere.models.towers.xclip import XClipTower


@torch.inference_mode()
def cls_attention(model: AMPere, frames: Tensor) -> Tensor:
    """CLS attention over the patches in the last layer, averaged over heads.

    Args:
        model: in evaluation mode, with a X-CLIP.
        frames: uint8 [B, F, 3, H, W], as `AMPere.forward` takes them.

    Returns:
        float32 [B, F, R, R] for R patches per side; each frame sums to 1. Attention to CLS itself
        and to the message token of the other frames is excluded.

    Raises:
        ValueError: the model has no X-CLIP.
    """
    if model.video is None or not isinstance(model.video.tower, XClipTower):
        raise ValueError("attention maps require an X-CLIP as vision tower; the model has none")
    tower = model.video.tower
    weights: list[Tensor] = []

    def record(module: nn.Module, inputs: object, outputs: tuple[Tensor, Tensor]) -> None:
        weights.append(outputs[1])

    hook = tower.encoder.layers[-1].self_attn.register_forward_hook(record)
    implementation = tower.config._attn_implementation
    tower.set_attn_implementation("eager")  # the faster ones return no attention weights
    try:
        model.video(frames)
    finally:
        hook.remove()
        tower.set_attn_implementation(implementation)
    side = model.image_size // model.config.sizes.patch_size
    # [B * F, heads, queries, keys] -> the CLS query's row over the patches, [B * F, R * R]
    patches = weights[0].float().mean(dim=1)[:, 0, 1 : 1 + side * side]
    patches = patches / patches.sum(dim=1, keepdim=True)
    return patches.unflatten(1, (side, side)).unflatten(0, frames.shape[:2])
