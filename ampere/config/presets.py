"""The named presets: functions that return complete `Settings`."""

from collections.abc import Callable

from ampere.config.decode import DecodeSettings
from ampere.config.embed import EmbedSettings
from ampere.config.model import EFFICIENTNET, ModelSettings
from ampere.config.serve import ServeSettings
from ampere.config.settings import Settings
from ampere.config.summarize import SummarizeSettings
from ampere.config.train import TrainSettings
from ampere.config.transcribe import TranscribeSettings


def demo() -> Settings:
    """The whole pipeline in minutes on two CPU cores, without model downloads.

    The vision tower is a frozen EfficientNet-Lite0, as in `small`. The text tower is trained from
    scratch, and learns the names from the pairs.
    """
    return Settings(
        decode=DecodeSettings(num_frames=2),
        summarize=SummarizeSettings(batch_size=128),
        model=ModelSettings(
            vision_weights=EFFICIENTNET,
            freeze_vision=True,
            num_frames=2,
            text_width=128,
            text_layers=2,
            text_heads=4,
            message_width=128,
            width=128,
            heads=4,
            mlp_width=256,
            temporal_layers=0,
            fusion_layers=2,
            # The text soon explains the training pairs, and fusion blocks then forget the pictures.
            # A sum keeps either modality useful alone (docs/research/ablations.md).
            fusion="sum",
            missing_frames="learned",
        ),
        train=TrainSettings(
            epochs=80,
            batch_size=32,
            workers=2,
            warmup_epochs=2,
            lr_text=1e-3,
            lr_video=5e-4,
            lr_fusion=1e-3,
            lr_rest=5e-4,
            # A text tower from scratch must first learn from the pairs: with the paper's
            # temperature and the classifier's full gradients all embeddings collapse
            # (docs/research/ablations.md).
            temperature=0.1,
            classifier_weight=0.005,
            alone_weight=1.0,
            # There are too few products to hold some out, and a loader process would take longer
            # to start than the steps take.
            validation_share=0.0,
            loader_workers=0,
            checkpoint_every=100,  # of 400 steps
        ),
        serve=ServeSettings(cpus=0.5, max_concurrent=8, max_batch=4),
    )


def small() -> Settings:
    """Real pictures on a CPU, without model downloads: the default of `ampere prepare`.

    The vision tower is a frozen EfficientNet-Lite0. Everything after it is trained on its stored
    features, in seconds to a minute. Tuned on training products of a real catalog
    (docs/research/results.md).
    """
    return Settings(
        decode=DecodeSettings(num_frames=4, short_side=256),
        model=ModelSettings(
            vision_weights=EFFICIENTNET,
            freeze_vision=True,
            num_frames=4,
            text_width=128,
            text_layers=2,
            text_heads=4,
            temporal_layers=0,
            embedding_dim=256,
            # With few products, fusion blocks from scratch lose what the frozen tower knows; a sum
            # passes its features on.
            fusion="sum",
            missing_frames="learned",
        ),
        train=TrainSettings(
            epochs=120,
            batch_size=128,
            warmup_epochs=2.0,
            lr_text=3e-4,
            lr_video=1e-4,
            lr_fusion=1e-4,
            lr_rest=1e-4,
            temperature=0.1,
            classifier_weight=0.0,
            text_dropout=0.5,
            alone_weight=0.5,
            validation_share=0.0,
            loader_workers=0,
        ),
        serve=ServeSettings(cpus=0.5, max_concurrent=8, max_batch=4),
    )


def rope() -> Settings:
    """The paper's setup: X-CLIP-B/16, RoBERTa, Qwen3-ASR and an LLM from the hub; on GPUs."""
    return Settings(
        transcribe=TranscribeSettings(
            engine="vllm", model="Qwen/Qwen3-ASR-0.6B", gpus=1.0, workers="1:16", batch_size=64
        ),
        # The paper's model is baichuan2-13b-4bit: docs/guides/summaries.md.
        summarize=SummarizeSettings(model="qwen3-8b", gpus=1.0, workers="1:16"),
        model=ModelSettings(
            vision_weights="microsoft/xclip-base-patch16-kinetics-600", text_weights="hfl/rbt6"
        ),
        # Decoding and cropping the 136 frames of a step takes half a second on one core.
        train=TrainSettings(workers=16, min_workers=8, gpus=1.0, bf16=True, loader_workers=4),
        embed=EmbedSettings(batch_size=64, workers="0:8", gpus=1.0, bf16=True),
        serve=ServeSettings(gpus=1.0),
    )


PRESETS: dict[str, Callable[[], Settings]] = {"small": small, "demo": demo, "rope": rope}
DEFAULT_PRESET = "small"  # of a new workspace
# Of a new workspace with a media folder, which names no products to train on.
FOLDER_PRESET = "small+zero-shot"
