import pytest
import torch

from ampere.config.model import ModelSettings
from ampere.models.ampere import AMPere, AMPereConfig
from tests.helpers.models import VOCAB_SIZE


@pytest.fixture
def sizes() -> ModelSettings:
    """Small sizes, all different as far as the network allows."""
    return ModelSettings(
        image_size=32,
        patch_size=16,
        num_frames=4,
        vision_width=24,
        vision_layers=2,
        vision_heads=3,
        message_width=16,
        text_width=32,
        text_layers=1,
        text_heads=4,
        max_text_tokens=9,
        width=16,
        heads=2,
        mlp_width=40,
        temporal_layers=2,
        fusion_layers=2,
        embedding_dim=12,
    )


@pytest.fixture
def config(sizes: ModelSettings) -> AMPereConfig:
    return AMPereConfig(sizes=sizes, vocab_size=VOCAB_SIZE, pad_token_id=0)


@pytest.fixture
def model(config: AMPereConfig) -> AMPere:
    torch.manual_seed(0)
    return AMPere(config).eval()
