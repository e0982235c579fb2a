"""Settings of the network."""

from dataclasses import dataclass
from typing import Literal

from ampere.config.checks import make_absolute, require

FusionChoice = Literal["ours", "authors", "sum", "cat", "xa-t-as-q", "xa-v-as-q", "coa"]


View = Literal["center", "whole"]


Combine = Literal["visual", "mean", "concat"]


CN_CLIP = "OFA-Sys/chinese-clip-vit-base-patch16"


# transformers has no code for mPLUG-Video, which the paper uses.
MLLM = "llava-hf/llava-interleave-qwen-0.5b-hf"


EFFICIENTNET = "efficientnet-lite0"


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """The network and its sizes. The defaults are the paper's (section IV-B)."""

    network: Literal["ampere", "cn-clip", "mllm", "embedder"] = "ampere"
    """Network to use; the sizes of the baselines come from their weights.
    ampere: the paper's network.
    cn-clip: baseline, Chinese-CLIP features of frames and text.
    mllm: baseline, last hidden state of a multimodal language model.
    embedder: an off-the-shelf embedder of images and text, through sentence-transformers."""
    weights: str = ""
    """Hub name or folder of the weights of cn-clip, mllm or embedder."""
    truncate_dim: int = 0
    """Dimensions that the vectors of an embedder are cut to; 0: all."""
    combine: Combine = "mean"
    """How cn-clip combines its two features.
    visual: frame features only.
    mean: mean of frame and text features.
    concat: concatenation of both, as in RICE."""
    linear_layer: bool = True
    """Add a trainable linear layer from features to embedding_dim, for ampere and mllm.
    False for ampere: the vector is the mean of the vision tower's frame features."""
    image_size: int = 224
    """Side of the square input image, in pixels."""
    view: View = "center"
    """What embedding, validation and queries show the network of a frame.
    Training crops at random, except before a frozen vision tower.
    center: the largest centered square.
    whole: the whole frame, squeezed to a square, as COPE and Chinese-CLIP do."""
    patch_size: int = 16
    """Side of an image patch of the vision tower, in pixels."""
    num_frames: int = 8
    """Frames that the network reads per clip."""
    vision_width: int = 768
    """Hidden size of the vision tower."""
    vision_layers: int = 12
    """Transformer layers of the vision tower."""
    vision_heads: int = 12
    """Attention heads per layer of the vision tower."""
    message_width: int = 512
    """Size of X-CLIP's projected frame features; must equal width."""
    text_width: int = 768
    """Hidden size of the text tower."""
    text_layers: int = 6
    """Transformer layers of the text tower."""
    text_heads: int = 12
    """Attention heads per layer of the text tower."""
    max_text_tokens: int = 33
    """Longest text input, in tokens, CLS and SEP included."""
    width: int = 512
    """Hidden size of the temporal and fusion blocks."""
    heads: int = 8
    """Attention heads per temporal and fusion block."""
    mlp_width: int = 2048
    """Hidden size of the feed-forward layers in the temporal and fusion blocks."""
    temporal_layers: int = 4
    """Temporal blocks over the frames of a clip; 0: none."""
    fusion_layers: int = 4
    """Fusion blocks over visual and text features."""
    embedding_dim: int = 128
    """Dimensions of the embedding vector."""
    fusion: FusionChoice = "ours"
    """How visual and text features are fused; the rows of the paper's table IX, and authors.
    authors: as ours, with the head of the authors' public modules in place of equation 2."""
    share_last_layer: bool = True
    """Share the last layer between domains; False: one last layer per domain, as in COPE."""
    use_vision: bool = True
    """Use the frames; False: embed the text alone, an ablation.
    The opposite ablation is `--train.text none`."""
    missing_text: Literal["learned", "empty"] = "learned"
    """Text input of a sample without text.
    learned: a learned vector.
    empty: the empty string, as in the paper."""
    missing_frames: Literal["learned", "black"] = "black"
    """Visual input of a sample without frames, such as a query of words.
    learned: a learned vector, for trainings with `train.alone_weight` or `train.frame_dropout`.
    black: a black picture; the paper's samples all have frames."""
    vision_weights: str = ""
    """Vision tower to start from. Empty: an X-CLIP from scratch.
    X-CLIP: hub name, folder or original .pth file.
    Another image encoder of transformers, such as SigLIP 2, CLIP or DINOv3: hub name or folder.
    EfficientNet-Lite0, which is installed with ampere: efficientnet-lite0."""
    text_weights: str = ""
    """Text tower to start from: hub name or folder of a BERT or another encoder of transformers.
    Empty: a BERT from scratch, with a vocabulary built from the training text."""
    freeze_vision: bool = False
    """Do not train the vision tower; requires vision_weights.
    Its frame features are stored in the table `features`, which training and embedding read."""
    freeze_text: bool = False
    """Do not train the text tower; requires text_weights."""

    def __post_init__(self) -> None:
        make_absolute(self, "weights", "vision_weights", "text_weights")
        require(
            self.image_size % self.patch_size == 0,
            f"model.image_size is {self.image_size}; it must be a multiple of patch_size "
            f"({self.patch_size})",
        )
        require(
            (self.network == "ampere") == (not self.weights),
            f"model.network is {self.network} and model.weights is {self.weights!r}; cn-clip, "
            "mllm and embedder require the name or folder of their weights, ampere takes "
            "vision_weights and text_weights instead",
        )
        for frozen, weights in (
            ("freeze_vision", "vision_weights"),
            ("freeze_text", "text_weights"),
        ):
            require(
                not getattr(self, frozen) or bool(getattr(self, weights)),
                f"model.{frozen} is True and model.{weights} is empty; a frozen tower requires "
                "published weights",
            )
        require(
            self.network != "ampere" or self.linear_layer or not self.temporal_layers,
            f"model.linear_layer is False and model.temporal_layers is {self.temporal_layers}; "
            "without a linear layer nothing is learned, so set --model.temporal-layers 0",
        )
        require(
            self.message_width == self.width,
            f"model.message_width is {self.message_width}; it must equal model.width "
            f"({self.width})",
        )
