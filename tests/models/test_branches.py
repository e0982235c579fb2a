"""The parts of the network by themselves: blocks, video branch, fusion."""

import torch
from torch import nn

from ampere.config import ModelSettings
from ampere.models.blocks import TransformerBlock
from ampere.models.fusion import Fusion
from ampere.models.video import VideoBranch

from .test_ampere import random_frames

# Names of PyTorch's layer for ours.
TORCH_NAMES = {
    "qkv.": "self_attn.in_proj_",
    "attention_out": "self_attn.out_proj",
    "attention_norm": "norm1",
    "mlp_norm": "norm2",
    "mlp.0": "linear1",
    "mlp.2": "linear2",
}


def make_identity(blocks: nn.ModuleList) -> None:
    """Zero what the blocks add to their stream."""
    for name, weight in blocks.named_parameters():
        if "attention_out" in name or "mlp.2" in name:
            nn.init.zeros_(weight)


def test_block_is_a_pre_norm_transformer_layer() -> None:
    """Against PyTorch's own, with the same weights and a masked position."""
    torch.manual_seed(0)
    block = TransformerBlock(16, 2, 40)
    theirs = nn.TransformerEncoderLayer(16, 2, 40, 0.0, activation="gelu", batch_first=True, norm_first=True)
    weights = {name: torch.randn_like(weight) for name, weight in block.state_dict().items()}
    block.load_state_dict(weights)
    for name, torch_name in TORCH_NAMES.items():
        weights = {key.replace(name, torch_name): weight for key, weight in weights.items()}
    theirs.load_state_dict(weights)
    stream, visible = torch.randn(3, 5, 16), torch.tensor([[True, True, True, True, False]]).expand(3, 5)
    torch.testing.assert_close(block(stream, visible), theirs(stream, src_key_padding_mask=~visible))
    torch.testing.assert_close(block(stream), theirs(stream))


def test_video_feature_has_the_residual_over_the_stack(sizes: ModelSettings) -> None:
    video = VideoBranch(sizes).eval()
    make_identity(video.blocks)
    v, z = video(random_frames(2, 4))
    assert v.shape == (2, 16) and z.shape == (2, 4, 16)
    torch.testing.assert_close(v, (z + z + video.positions).mean(dim=1))


def test_fusion_sums_the_video_feature_and_cls() -> None:
    fusion = Fusion(text_width=6, width=16, layers=2, heads=2, mlp_width=8)
    make_identity(fusion.blocks)
    v, z, tokens = torch.randn(2, 16), torch.randn(2, 4, 16), torch.randn(2, 3, 6)
    fused = fusion(v, z, tokens, torch.ones(2, 3, dtype=torch.bool))
    torch.testing.assert_close(fused, fusion.visual_projection(v) + fusion.text_projection(tokens[:, 0]))
