"""The parts of the network in isolation: blocks, video branch, fusion."""

import dataclasses

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from ampere.config.model import FusionChoice, ModelSettings
from ampere.models.blocks import TransformerBlock
from ampere.models.fusion import FUSIONS, SelfAttention
from ampere.models.video import VideoBranch
from tests.helpers.models import random_frames

# Our weight names -> those of PyTorch's layer.
TORCH_NAMES = {
    "qkv.": "self_attn.in_proj_",
    "attention_out": "self_attn.out_proj",
    "attention_norm": "norm1",
    "mlp_norm": "norm2",
    "mlp.0": "linear1",
    "mlp.2": "linear2",
}


def make_identity(blocks: nn.ModuleList) -> None:
    """Zero what blocks, ours or transformers', add to their stream."""
    for name, weight in blocks.named_parameters():
        if any(part in name for part in ("attention_out", "mlp.2", "out_proj", "fc2")):
            nn.init.zeros_(weight)


def test_block_is_a_pre_norm_transformer_layer() -> None:
    """Compared with PyTorch's layer, with equal weights and a masked position."""
    torch.manual_seed(0)
    block = TransformerBlock(16, 2, 40)
    theirs = nn.TransformerEncoderLayer(
        16, 2, 40, 0.0, activation="gelu", batch_first=True, norm_first=True
    )
    weights = {name: torch.randn_like(weight) for name, weight in block.state_dict().items()}
    block.load_state_dict(weights)
    for name, torch_name in TORCH_NAMES.items():
        weights = {key.replace(name, torch_name): weight for key, weight in weights.items()}
    theirs.load_state_dict(weights)
    stream, visible = (
        torch.randn(3, 5, 16),
        torch.tensor([[True, True, True, True, False]]).expand(3, 5),
    )
    torch.testing.assert_close(
        block(stream, visible), theirs(stream, src_key_padding_mask=~visible)
    )
    torch.testing.assert_close(block(stream), theirs(stream))


def test_integration_has_a_residual_over_the_whole_stack(sizes: ModelSettings) -> None:
    video = VideoBranch(sizes).eval()
    assert video.integration is not None
    make_identity(video.integration.encoder.layers)
    v, z = video(random_frames(2, 4))
    assert v.shape == (2, 16) and z.shape == (2, 4, 16)
    torch.testing.assert_close(v, (z + z + video.integration.position_embedding).mean(dim=1))


def test_without_temporal_blocks_v_is_the_mean_of_z(sizes: ModelSettings) -> None:
    video = VideoBranch(dataclasses.replace(sizes, temporal_layers=0)).eval()
    v, z = video(random_frames(2, 4))
    torch.testing.assert_close(v, z.mean(dim=1))
    assert {name.split(".")[0] for name, _ in video.named_parameters()} == {"tower", "projection"}


def test_cross_block_attends_to_itself_and_then_to_the_context() -> None:
    """Compared with PyTorch's attention, with equal weights and a masked position of either."""
    torch.manual_seed(0)
    block = TransformerBlock(16, 2, 40, cross=True)
    block.load_state_dict(
        {name: torch.randn_like(weight) for name, weight in block.state_dict().items()}
    )
    theirs = nn.MultiheadAttention(16, 2, batch_first=True)
    names = {"in_proj_weight": "qkv.weight", "in_proj_bias": "qkv.bias"}
    names |= {f"out_proj.{kind}": f"attention_out.{kind}" for kind in ("weight", "bias")}
    theirs.load_state_dict({name: block.state_dict()[ours] for name, ours in names.items()})
    stream, context = torch.randn(3, 4, 16), torch.randn(3, 5, 16)
    visible = torch.tensor([[True, True, True, False]]).expand(3, 4)
    context_visible = torch.tensor([[True, True, False, True, True]]).expand(3, 5)
    assert block.context_norm is not None
    own = block.attention_norm(stream)
    mixed = stream + theirs(own, own, own, key_padding_mask=~visible)[0]
    read = block.context_norm(context)
    mixed = (
        mixed
        + theirs(block.attention_norm(mixed), read, read, key_padding_mask=~context_visible)[0]
    )
    torch.testing.assert_close(
        block(stream, visible, context, context_visible),
        mixed + block.mlp(block.mlp_norm(mixed)),
        rtol=1e-4,
        atol=1e-4,
    )


V, Z, TOKENS = torch.randn(2, 16), torch.randn(2, 4, 16), torch.randn(2, 3, 32)
VISIBLE = torch.tensor([[True, True, False], [True, True, True]])


def layer_norm(features: Tensor) -> Tensor:
    """A new LayerNorm over the fusion's width."""
    return functional.layer_norm(features, features.shape[-1:])


@pytest.mark.parametrize("choice", FUSIONS)
def test_fusions_with_identity_blocks(choice: FusionChoice, sizes: ModelSettings) -> None:
    """If blocks add nothing, only the projected video feature and CLS remain."""
    fusion = FUSIONS[choice](sizes)
    make_identity(fusion.blocks)
    video, text = fusion.visual_projection(V), fusion.text_projection(TOKENS[:, 0])
    expected = {"cat": torch.cat([video, text], dim=1), "xa-t-as-q": text, "xa-v-as-q": video}
    twice = layer_norm(layer_norm(torch.stack([video, text])))
    expected["authors"] = torch.cat([*twice], dim=1)
    fused = fusion(V, Z, TOKENS, VISIBLE)
    torch.testing.assert_close(fused, expected.get(choice, video + text))
    assert fused.shape == (2, fusion.out_width)


@pytest.mark.parametrize("choice", FUSIONS)
def test_fusions_read_only_their_inputs(choice: FusionChoice, sizes: ModelSettings) -> None:
    torch.manual_seed(0)
    fusion = FUSIONS[choice](sizes).eval()

    def changes(v: Tensor = V, z: Tensor = Z, tokens: Tensor = TOKENS) -> bool:
        return bool(
            (fusion(v, z, tokens, VISIBLE) - fusion(V, Z, TOKENS, VISIBLE)).abs().max() > 1e-5
        )

    padding, other, cls = TOKENS.clone(), TOKENS.clone(), TOKENS.clone()
    padding[0, 2], other[:, 1], cls[:, 0] = 9.0, 9.0, 9.0
    assert not changes(tokens=padding)
    assert changes(v=V + 1) and changes(tokens=cls)
    # All positions of the querying modality, too, are read: they attend to each other.
    assert changes(z=Z + 1) == (choice not in ("sum", "cat"))
    assert changes(tokens=other) == (choice not in ("sum", "cat"))


@pytest.mark.parametrize("choice", FUSIONS)
def test_every_fusion_parameter_gets_a_gradient(choice: FusionChoice, sizes: ModelSettings) -> None:
    fusion = FUSIONS[choice](sizes)
    fusion(V, Z, TOKENS, VISIBLE).square().sum().backward()
    assert [name for name, weight in fusion.named_parameters() if weight.grad is None] == []


def test_parameter_counts_of_the_fusions() -> None:
    """Table IX counts ours 12.8 M, SUM and CAT 0.0 M, XA 12.3 M, CoA 24.6 M.

    Blocks of the paper's sizes have 3.152 M each (3.153 M with a norm of the context), so XA has
    12.61 M and CoA 25.23 M, 0.3 and 0.6 M more than the paper. As in the paper, CoA has twice as
    many as XA, which has no more than ours: so self- and cross-attention share their weights. Four
    blocks with weights for either would have 16.8 M.
    """
    with torch.device("meta"):
        counts = {
            choice: sum(p.numel() for p in FUSIONS[choice](ModelSettings()).blocks.parameters())
            / 1e6
            for choice in FUSIONS
        }
    expected = {
        "ours": 12.61,
        "authors": 12.61,
        "sum": 0,
        "cat": 0,
        "xa-t-as-q": 12.61,
        "xa-v-as-q": 12.61,
        "coa": 25.23,
    }
    assert counts == pytest.approx(expected, abs=0.01)


def test_ours_sums_video_feature_and_cls(sizes: ModelSettings) -> None:
    """Frames and other tokens are read through attention only."""
    fusion = SelfAttention(dataclasses.replace(sizes, fusion_layers=1))
    nn.init.zeros_(fusion.blocks[0].attention_out.weight)
    nn.init.zeros_(fusion.blocks[0].attention_out.bias)
    changed = TOKENS.clone()
    changed[:, 1:] = 5.0
    torch.testing.assert_close(fusion(V, Z + 1, changed, VISIBLE), fusion(V, Z, TOKENS, VISIBLE))
