import dataclasses

import pytest
import torch

from ampere.models.ampere import AMPere, AMPereConfig
from ampere.models.attention import cls_attention
from tests.helpers.models import random_frames


@pytest.mark.parametrize("frames", [1, 4])
def test_attention_is_softmax_of_cls_query_over_patches(config: AMPereConfig, frames: int) -> None:
    torch.manual_seed(0)
    model = AMPere(config).eval()
    assert model.video is not None
    with torch.no_grad():
        for weight in model.video.tower.parameters():
            weight.add_(0.3 * torch.randn_like(weight))
    layer = model.video.tower.encoder.layers[-1]
    inputs: list[torch.Tensor] = []
    clips = random_frames(2, frames)
    hook = layer.self_attn.register_forward_pre_hook(
        lambda module, args, kwargs: inputs.append(kwargs["hidden_states"]), with_kwargs=True
    )
    attention = cls_attention(model, clips)
    hook.remove()
    hidden = torch.tensor(inputs[0].numpy())  # out of inference mode
    heads = layer.self_attn.num_heads
    q, k = (
        part(hidden).unflatten(-1, (heads, -1))
        for part in (layer.self_attn.q_proj, layer.self_attn.k_proj)
    )
    scores = torch.einsum("nhd,nthd->nht", q[:, 0], k) / q.shape[-1] ** 0.5
    side = attention.shape[-1]
    patches = scores.softmax(dim=-1).mean(dim=1)[:, 1 : 1 + side * side]
    expected = patches / patches.sum(dim=1, keepdim=True)
    assert attention.shape == (2, frames, side, side)
    assert side == config.sizes.image_size // config.sizes.patch_size
    torch.testing.assert_close(attention.flatten(0, 1).flatten(1), expected.detach())
    assert (expected[0].max() - expected[0].min()) > 1e-3


def test_cls_attention_does_not_change_the_model(config: AMPereConfig) -> None:
    model = AMPere(dataclasses.replace(config, use_text=False)).eval()
    assert model.video is not None
    clips, implementation = random_frames(2, 4), model.video.tower.config._attn_implementation
    before = model(clips)
    cls_attention(model, clips)
    assert model.video.tower.config._attn_implementation == implementation
    assert torch.equal(model(clips), before)


def test_model_without_video_branch_raises(config: AMPereConfig) -> None:
    model = AMPere(
        dataclasses.replace(config, sizes=dataclasses.replace(config.sizes, use_vision=False))
    )
    with pytest.raises(ValueError, match="require an X-CLIP"):
        cls_attention(model, random_frames(1, 4))
