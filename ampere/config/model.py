"""Settings of the network."""

from dataclasses import dataclass
from typing import Literal

from ampere.config.checks import make_absolute, require

FusionChoice = Literal["ours", "sum", "cat", "xa-t-as-q", "xa-v-as-q", "coa"]


Combine = Literal["visual", "mean", "concat"]


CN_CLIP = "OFA-Sys/chinese-clip-vit-base-patch16"


MLLM = "llava-hf/llava-interleave-qwen-0.5b-hf"  # mPLUG-Video, the paper's, has no code in transformers


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """The network and its sizes. The defaults are the paper's (section IV-B)."""

    network: Literal["ampere", "cn-clip", "mllm"] = "ampere"
    """ampere, or one that it is compared with, whose sizes are those of its weights: cn-clip, Chinese-CLIP features of
    frames and text; mllm, the last hidden state of a multimodal language model."""
    weights: str = ""
    """Of cn-clip and mllm: hub name or folder of the model."""
    combine: Combine = "mean"
    """Of cn-clip, what becomes of the two features. visual: the frames' alone. mean: their mean. concat: side by side,
    as RICE has it."""
    linear_layer: bool = True
    """Of mllm: a linear layer to `embedding_dim` over the hidden state, which is what is trained."""
    image_size: int = 224
    patch_size: int = 16
    num_frames: int = 8
    vision_width: int = 768
    vision_layers: int = 12
    vision_heads: int = 12
    message_width: int = 512
    """Width of X-CLIP's frame features after its projection."""
    text_width: int = 768
    text_layers: int = 6
    text_heads: int = 12
    max_text_tokens: int = 33
    """CLS, up to 31 tokens of text, and SEP."""
    width: int = 512
    """Of the temporal and fusion blocks."""
    heads: int = 8
    mlp_width: int = 2048
    temporal_layers: int = 4
    fusion_layers: int = 4
    embedding_dim: int = 128
    fusion: FusionChoice = "ours"
    """How visual and textual features meet; the paper's table IX."""
    share_last_layer: bool = True
    """False: a last layer for each domain, as COPE has it."""
    use_vision: bool = True
    """False: the embedding is of the text alone, an ablation. Its counterpart is `--train.text none`."""
    missing_text: Literal["learned", "empty"] = "learned"
    """What a sample without text is read as: a vector that is learned, or the empty string, as in the paper."""
    vision_weights: str = ""
    """Hub name, folder or original .pth file of an X-CLIP to start from; empty: from scratch."""
    text_weights: str = ""
    """Hub name or folder of a BERT to start from; empty: from scratch, with a vocabulary of the training text."""

    def __post_init__(self) -> None:
        make_absolute(self, "weights", "vision_weights", "text_weights")
        require(
            self.image_size % self.patch_size == 0,
            f"model.image_size is {self.image_size}; it must be a multiple of patch_size ({self.patch_size})",
        )
        require(
            (self.network == "ampere") == (not self.weights),
            f"model.network is {self.network} and model.weights is {self.weights!r}; cn-clip and mllm need the name or "
            "folder of their weights, and ampere starts from vision_weights and text_weights",
        )
        require(
            self.message_width == self.width,
            f"model.message_width is {self.message_width}; it must equal model.width ({self.width})",
        )
