"""Typed settings of every stage, and the named presets. Imports no torch, so that reading a setting costs nothing.

A preset is a function that returns whole `Settings`; flags such as `--train.batch-size 64` override single values.
Classes check their values, so a bad setting stops a job before any work.
"""

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

SHIPPED_MODEL = "shipped"  # names the small language model inside the package
SummaryMethod = Literal["llm", "llm-name", "llm-features", "keybert", "uie", "raw"]
TextSource = Literal["llm", "llm-name", "llm-features", "keybert", "uie", "raw", "none"]
FusionChoice = Literal["ours", "sum", "cat", "xa-t-as-q", "xa-v-as-q", "coa"]
Combine = Literal["visual", "mean", "concat"]
IndexType = Literal["flat", "ivf-flat", "ivf-pq", "hnsw"]
CN_CLIP = "OFA-Sys/chinese-clip-vit-base-patch16"
MLLM = "llava-hf/llava-interleave-qwen-0.5b-hf"  # mPLUG-Video, the paper's, has no code in transformers


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def _make_absolute(settings: Any, *names: str) -> None:
    """Make absolute the names of models that are paths of what is there; a bare name may be a preset or the hub's.

    Settings are saved, and read by processes that run in other folders.
    """
    for name in names:
        value = getattr(settings, name)
        if "/" in value and (path := Path(value).expanduser()).exists():
            object.__setattr__(settings, name, str(path.resolve()))


@dataclass(frozen=True, kw_only=True)
class DecodeSettings:
    """From media files to stored frames."""

    num_frames: int = 8
    """Frames per clip; a page has one."""
    short_side: int = 256
    """Stored frames are scaled down to this shorter side, in pixels."""
    jpeg_quality: int = 90
    """Of the stored frames, 1 to 95."""
    sampling: Literal["uniform", "keyframe"] = "uniform"
    """uniform: exactly the paper's frames. keyframe: the key frames nearest to them, several times cheaper."""
    time_limit_s: float = 60.0
    """Longest time for one sample, reading included; what takes longer fails."""
    max_file_mb: float = 1000.0
    """Largest media file, in megabytes."""
    max_megapixels: float = 40.0
    """Largest frame or picture, in millions of pixels."""
    memory_limit_gb: float = 4.0
    """Memory that decoding one sample may take."""
    batch_size: int = 32
    """Most samples per task; fewer where the list is short."""
    cpus: float = 1.0
    """CPU cores a task asks for."""

    def __post_init__(self) -> None:
        _require(self.num_frames >= 1, f"decode.num_frames is {self.num_frames}; it must be at least 1")
        _require(self.short_side >= 16, f"decode.short_side is {self.short_side} pixels; it must be at least 16")
        _require(1 <= self.jpeg_quality <= 95, f"decode.jpeg_quality is {self.jpeg_quality}; it must be 1 to 95")
        for name in ("time_limit_s", "max_file_mb", "max_megapixels", "memory_limit_gb"):
            _require(getattr(self, name) > 0, f"decode.{name} is {getattr(self, name)}; it must be above 0")
        _require(self.batch_size >= 1, f"decode.batch_size is {self.batch_size}; it must be at least 1")


def worker_range(setting: str, text: str, least: int = 1) -> tuple[int, int]:
    """The smallest and largest size of a pool of workers, from `N` or `MIN:MAX`, MIN being `least` or more.

    Raises:
        ValueError: it is neither.
    """
    low, colon, high = text.partition(":")
    try:
        found = int(low), int(high if colon else low)
    except ValueError:
        found = (-1, 0)
    _require(
        least <= found[0] <= found[1] and found[1] >= 1,
        f"{setting} is {text!r}; give a number of workers, or MIN:MAX with {least} <= MIN <= MAX",
    )
    return found


@dataclass(frozen=True, kw_only=True)
class SummarizeSettings:
    """From raw transcripts to product summaries."""

    method: SummaryMethod = "llm"
    """llm: product name and features by a language model under vLLM. llm-name, llm-features: one of the two, from the
    same answers. keybert: five keywords. uie: an extraction model's spans. raw: the transcript itself. The rows of the
    methods stand side by side."""
    model: str = SHIPPED_MODEL
    """Of the llm methods: `shipped`, a preset (baichuan2-13b-4bit, baichuan2-7b-4bit, qwen2-1.5b, qwen3-4b, qwen3-8b),
    a Hugging Face hub name of an instruction model, or a local folder."""
    encoder: str = "hfl/rbt6"
    """Of keybert: hub name or folder of an encoder such as BERT."""
    extractor: str = "xusenlin/uie-base"
    """Of uie: hub name or folder of a UIE model."""
    prompt: str | None = None
    """A prompt of ampere.text.prompts (example, bare); else the one that suits the model."""
    quantization: str | None = None
    """vLLM's name of a quantization made while loading, such as fp8; quantized weights need none."""
    trust_remote_code: bool = False
    """Run the Python code that comes with a model's weights."""
    dtype: str = "auto"
    """vLLM's weight type, such as bfloat16; auto: that of the model's files, float32 for the shipped one."""
    piece_tokens: int = 6000
    """Longer transcripts are cut at borders of sentences into pieces of at most so many tokens; the summaries of the
    pieces are merged."""
    max_tokens: int = 256
    """Longest answer, in tokens."""
    max_model_len: int | None = None
    """Longest prompt and answer together, in tokens; else what the transcripts need and the model can."""
    max_num_seqs: int | None = None
    """Transcripts in an engine at once; else on a GPU 256, on a CPU as many as memory allows, up to 256."""
    kv_cache_gb: float | None = None
    """An engine's memory for attention states, in GiB; else on a GPU all that is left, on a CPU what is needed."""
    batch_size: int = 64
    """Transcripts per batch handed to an engine."""
    workers: str = "1"
    """Engines: a number, or MIN:MAX, which grows and shrinks with the queue."""
    cpus: float = 1.0
    """CPU cores an engine asks for, on each of its GPUs if there are several."""
    gpus: float = 0.0
    """1: an engine runs on a GPU; less: engines share one; 0: it runs on the CPU."""
    tensor_parallel_size: int = 1
    """GPUs that one engine's weights are spread over."""
    accelerator_type: str | None = None
    """Ray's name of the GPU that an engine needs, such as H100."""

    def __post_init__(self) -> None:
        _make_absolute(self, "model", "encoder", "extractor")
        worker_range("summarize.workers", self.workers)
        for name in ("batch_size", "tensor_parallel_size", "piece_tokens", "max_tokens", "max_num_seqs"):
            value = getattr(self, name)
            _require(value is None or value >= 1, f"summarize.{name} is {value}; it must be at least 1")
        _require(
            self.max_model_len is None or self.max_tokens < self.max_model_len,
            f"summarize.max_tokens is {self.max_tokens}; it must be below max_model_len ({self.max_model_len}), which "
            "also holds the prompt",
        )
        _require(
            0 <= self.gpus <= 1,
            f"summarize.gpus is {self.gpus}; give a fraction of a GPU, or 1 and the number of GPUs of an engine as "
            "tensor_parallel_size",
        )


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
        _make_absolute(self, "weights", "vision_weights", "text_weights")
        _require(
            self.image_size % self.patch_size == 0,
            f"model.image_size is {self.image_size}; it must be a multiple of patch_size ({self.patch_size})",
        )
        _require(
            (self.network == "ampere") == (not self.weights),
            f"model.network is {self.network} and model.weights is {self.weights!r}; cn-clip and mllm need the name or "
            "folder of their weights, and ampere starts from vision_weights and text_weights",
        )
        _require(
            self.message_width == self.width,
            f"model.message_width is {self.message_width}; it must equal model.width ({self.width})",
        )


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """Training of the fused model."""

    name: str = "ampere"
    """The model is saved under models/NAME."""
    text: TextSource = "llm"
    """What the text branch reads for clips: what a method of summarizing gave, the raw transcripts, or nothing (visual
    branch alone)."""
    supervision: Literal["products", "frames", "training-frames"] = "products"
    """products: samples of one product belong together. frames: one frame of a sample and the whole sample do, of all
    samples, known or not, test products' among them; a start for another training, with --train.text none.
    training-frames: the same of the training split alone."""
    start_from: str = ""
    """A model of the workspace whose weights to start from, as far as they fit; empty: from scratch."""
    domains: tuple[Literal["page", "short", "live"], ...] = ("page", "short", "live")
    """Domains that training draws from; two at least."""
    epochs: int = 70
    """0 leaves the weights as they start."""
    batch_size: int = 128
    """Products per step over all workers; a product gives one sample of each domain it has."""
    workers: int = 1
    """DDP ranks."""
    cpus: float = 1.0
    """CPU cores per rank."""
    gpus: float = 0.0
    """GPUs per rank; 0 trains on the CPU with gloo."""
    lr_text: float = 5e-5
    lr_video: float = 1e-5
    lr_fusion: float = 5e-5
    lr_rest: float = 5e-3
    warmup_epochs: float = 4.0
    weight_decay: float = 0.05
    max_grad_norm: float = 5.0
    temperature: float = 0.05
    label_smoothing: float = 0.1
    margin: float = 0.4
    """CosFace margin of the product classifier."""
    scale: float = 64.0
    """CosFace scale of the product classifier."""
    classifier_weight: float = 1.0
    """Weight of the product classifier's loss beside the contrastive loss."""
    crop_scale: float = 0.64
    """Smallest share of a picture's area that random cropping keeps."""
    colour_jitter: float = 0.0
    """Largest share by which brightness, contrast and saturation of a sample change; the paper has none."""
    text_dropout: float = 0.0
    """Share of the texts that training takes as missing, so that the model learns to do without; the paper has none."""
    sample_rate: float = 1.0
    """Share of the product classes in each step's softmax; below 1 for millions of products."""
    chunk_size: int = 0
    """Products of a rank whose activations are held at once: a large batch on a small card; 0: all of them."""
    gradient_checkpointing: bool = False
    """Compute activations twice rather than hold them."""
    bf16: bool = False
    """bfloat16 products, float32 weights and losses."""
    compile: bool = False
    """torch.compile: minutes at the start, faster steps after. On a CPU it needs a C++ compiler."""
    loader_workers: int = 2
    """Processes per rank that read, decode and crop frames; 0: a thread of the training process."""
    log_every: int = 10
    """Steps per line of metrics."""
    validation_share: float = 0.05
    """Share of the training products that judge the model instead of training it."""
    validate_every: int = 500
    """Steps; the best model is kept. 0: only at the end."""
    checkpoint_every: int = 500
    """Steps; a training that was stopped goes on from its last checkpoint. 0: never."""
    retries: int = 3
    """How often a training whose worker died goes on from its last checkpoint by itself."""
    trackers: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = ("tensorboard",)
    """Where metrics go besides metrics.jsonl."""
    seed: int = 0

    def __post_init__(self) -> None:
        _require(
            self.supervision == "products" or self.text == "none",
            f"train.supervision is {self.supervision} and train.text is {self.text}; frames have no text, so set "
            "--train.text none",
        )
        _require(self.epochs >= 0, f"train.epochs is {self.epochs}; it must be at least 0")
        _require(len(set(self.domains)) >= 2, f"train.domains is {self.domains}; name at least two domains")
        for name in ("chunk_size", "loader_workers", "validate_every", "checkpoint_every", "retries"):
            _require(getattr(self, name) >= 0, f"train.{name} is {getattr(self, name)}; it must be at least 0")
        _require(self.log_every >= 1, f"train.log_every is {self.log_every}; it must be at least 1")
        for name in ("text_dropout", "validation_share", "colour_jitter"):
            value = getattr(self, name)
            _require(0 <= value < 1, f"train.{name} is {value}; it must be at least 0 and below 1")
        _require(0 < self.sample_rate <= 1, f"train.sample_rate is {self.sample_rate}; it must be above 0, at most 1")
        _require(self.workers >= 1, f"train.workers is {self.workers}; it must be at least 1")
        _require(0 < self.crop_scale <= 1, f"train.crop_scale is {self.crop_scale}; it must be above 0 and at most 1")
        _require(self.temperature > 0, f"train.temperature is {self.temperature}; it must be above 0")
        _require(
            self.batch_size >= 2 * self.workers and self.batch_size % self.workers == 0,
            f"train.batch_size is {self.batch_size}; it must be a multiple of train.workers ({self.workers}) "
            "and give each at least 2 products",
        )
        _require(
            bool(self.name) and self.name.replace("-", "").replace("_", "").isalnum(),
            f"train.name is {self.name!r}; use letters, digits, '-' and '_'",
        )


@dataclass(frozen=True, kw_only=True)
class EmbedSettings:
    """Batch embedding on a pool of model actors."""

    model: str = "ampere"
    """A model under models/."""
    batch_size: int = 32
    """Samples per batch."""
    workers: str = "1"
    """Model actors: a number, or MIN:MAX, which grows and shrinks with the queue. With 0:MAX the pool begins with one,
    on a machine that the cluster starts for it."""
    cpus: float = 1.0
    """CPU cores of an actor."""
    gpus: float = 0.0
    """1: an actor runs on a GPU; less: actors share one; 0: it runs on the CPU."""
    bf16: bool = False
    """bfloat16 products; float32 weights and vectors."""
    compile: bool = False
    """torch.compile before the first batch, which then has a fixed shape. It takes a worker minutes, and memory for two
    copies of the weights; for large jobs."""
    hourly_price: float = 0.0
    """Price of a worker for an hour, in any currency; the report then tells what a million samples cost."""

    def __post_init__(self) -> None:
        worker_range("embed.workers", self.workers, least=0)
        _require(self.hourly_price >= 0, f"embed.hourly_price is {self.hourly_price}; it must not be negative")
        _require(self.batch_size >= 1, f"embed.batch_size is {self.batch_size}; it must be at least 1")


@dataclass(frozen=True, kw_only=True)
class IndexSettings:
    """Which embeddings an index holds, and what it must be able to do."""

    model: str = "ampere"
    split: Literal["test", "train", "all"] = "all"
    type: Literal["auto", "flat", "ivf-flat", "ivf-pq", "hnsw"] = "auto"
    """flat: exact. auto: exact below a million vectors, else the fastest that keeps to the limits when measured. A few
    hundred vectors are searched exactly with every type."""
    target_recall: float = 0.99
    """Share of exact search's ten best answers that must be found; an index that finds fewer is not published."""
    max_memory_gb: float | None = None
    """Of each domain's index, or of a shard of it, with the rows that its answers show."""
    max_latency_ms: float | None = None
    """Of one query alone on one core."""
    shards: int = 1
    """Parts of each domain's index, by a checksum of the sample's id, so that several machines can hold it in memory;
    the build takes one that holds all vectors."""
    delta_share: float = 0.1
    """Changes up to this share of a base are kept beside it; more, and the index is built anew. 0: always anew."""
    gpu: bool = False
    """Inverted files find their lists on this machine's GPUs (faiss-gpu); what is built is searched on CPUs."""
    keep: int = 3
    """Versions that stay, to roll back to; 2 at least."""

    def __post_init__(self) -> None:
        _require(0 < self.target_recall <= 1, f"index.target_recall is {self.target_recall}; it must be in (0, 1]")
        for name in ("max_memory_gb", "max_latency_ms"):
            value = getattr(self, name)
            _require(value is None or value > 0, f"index.{name} is {value}; it must be above 0")
        _require(self.shards >= 1, f"index.shards is {self.shards}; it must be at least 1")
        _require(
            self.keep >= 2,
            f"index.keep is {self.keep}; it must be at least 2, since a search may be opening the version before",
        )
        _require(0 <= self.delta_share < 1, f"index.delta_share is {self.delta_share}; it must be in [0, 1)")


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings:
    """Which models are judged."""

    models: tuple[str, ...] = ("ampere",)
    """In the order of the table's rows."""
    compare: tuple[str, str] | None = None
    """Two models to judge in their place, the second's gain over the first with an interval of paired differences."""

    def __post_init__(self) -> None:
        _require(bool(self.models), "evaluate.models is empty; name at least one model")
        _require(
            self.compare is None or self.compare[0] != self.compare[1],
            f"evaluate.compare is {self.compare}; name two models, since a model has nothing over itself",
        )


@dataclass(frozen=True, kw_only=True)
class FiguresSettings:
    """What the figures show."""

    models: tuple[str, ...] = ("ampere",)
    """Up to three; strips, attention and failures are of the first."""
    queries: int = 3
    """Per task, drawn at random."""
    clips: int = 4
    """Whose attention is drawn."""
    worst: int = 12
    """Failures."""

    def __post_init__(self) -> None:
        _require(1 <= len(self.models) <= 3, f"figures.models is {self.models}; name one to three models")


@dataclass(frozen=True, kw_only=True)
class AblateSettings:
    """Which of the paper's tables are made, and our own of missing texts."""

    tables: tuple[Literal["IV", "V", "IX", "X", "XI", "missing-text"], ...] = (
        "IV",
        "V",
        "IX",
        "X",
        "XI",
        "missing-text",
    )
    """Roman ones are the paper's."""
    seeds: tuple[int, ...] = (0,)
    """A training for each row and seed."""
    parallel: int = 1
    """Trainings at once; each asks Ray for its own workers. So many rows are trained before they are judged."""
    cn_clip: str = CN_CLIP
    """Hub name or folder of the Chinese-CLIP that the network is compared with."""
    mllm: str = MLLM
    """Hub name or folder of the multimodal language model that the network is compared with."""

    def __post_init__(self) -> None:
        _require(bool(self.tables) and bool(self.seeds), "ablate.tables or ablate.seeds is empty; name at least one")
        _require(self.parallel >= 1, f"ablate.parallel is {self.parallel}; it must be at least 1")


@dataclass(frozen=True, kw_only=True)
class ServeSettings:
    """The HTTP search endpoint."""

    model: str = "ampere"
    host: str = "127.0.0.1"
    port: int = 8000
    max_upload_mb: int = 64
    """Largest accepted upload, in megabytes."""
    embedder_replicas: int = 1
    searcher_replicas: int = 1
    cpus: float = 1.0
    """CPU cores per embedder."""
    gpus: float = 0.0
    """GPUs per embedder."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All stages together: what a preset gives, and what is saved beside every result."""

    decode: DecodeSettings = field(default_factory=DecodeSettings)
    summarize: SummarizeSettings = field(default_factory=SummarizeSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    train: TrainSettings = field(default_factory=TrainSettings)
    embed: EmbedSettings = field(default_factory=EmbedSettings)
    index: IndexSettings = field(default_factory=IndexSettings)
    evaluate: EvaluateSettings = field(default_factory=EvaluateSettings)
    figures: FiguresSettings = field(default_factory=FiguresSettings)
    ablate: AblateSettings = field(default_factory=AblateSettings)
    serve: ServeSettings = field(default_factory=ServeSettings)

    def __post_init__(self) -> None:
        _require(
            self.model.use_vision or self.train.text != "none",
            "model.use_vision is False and train.text is none; a model needs pictures or text",
        )
        _require(
            self.model.use_vision or not self.train.text_dropout,
            f"model.use_vision is False and train.text_dropout is {self.train.text_dropout}; without pictures nothing "
            "is left of a sample whose text is taken for missing",
        )


def demo() -> Settings:
    """Everything on two CPU cores in minutes, with nothing from a hub: small towers of the full model's classes."""
    return Settings(
        decode=DecodeSettings(short_side=72, batch_size=32),
        summarize=SummarizeSettings(batch_size=128),
        model=ModelSettings(
            image_size=64,
            patch_size=16,
            vision_width=128,
            vision_layers=3,
            vision_heads=4,
            message_width=128,
            text_width=128,
            text_layers=2,
            text_heads=4,
            width=128,
            heads=4,
            mlp_width=256,
            temporal_layers=1,
            fusion_layers=2,
        ),
        train=TrainSettings(
            epochs=24,
            batch_size=32,
            workers=2,
            warmup_epochs=2,
            lr_text=1e-3,
            lr_video=5e-4,
            lr_fusion=1e-3,
            lr_rest=5e-4,
            # Towers that start from nothing must first learn from the pairs: with the paper's temperature and the
            # classifier's full gradients all embeddings fall together (docs/results.md).
            temperature=0.1,
            classifier_weight=0.005,
            crop_scale=0.8,
            # So few products that each is needed to train on, and steps that take less than a process to start.
            validation_share=0.0,
            loader_workers=0,
            checkpoint_every=25,  # of some hundred steps
        ),
        serve=ServeSettings(cpus=0.5),
    )


def rope() -> Settings:
    """The paper: X-CLIP-B/16, RoBERTa and a language model from the hub; one GPU per worker."""
    return Settings(
        # The paper's Baichuan2-13B-Chat is no longer run by vLLM; docs/summaries.md.
        summarize=SummarizeSettings(model="qwen3-8b", gpus=1.0, workers="1:16"),
        model=ModelSettings(vision_weights="microsoft/xclip-base-patch16-kinetics-600", text_weights="hfl/rbt6"),
        # Decoding and cropping a step's 136 frames takes half a second of a core.
        train=TrainSettings(workers=16, gpus=1.0, bf16=True, loader_workers=4),
        embed=EmbedSettings(batch_size=64, workers="0:8", gpus=1.0, bf16=True),
        serve=ServeSettings(gpus=1.0),
    )


PRESETS: dict[str, Callable[[], Settings]] = {"demo": demo, "rope": rope}


def to_json(settings: Any) -> str:
    """Any settings dataclass as indented JSON, for saving beside a result."""
    return json.dumps(dataclasses.asdict(settings), indent=2, ensure_ascii=False)
