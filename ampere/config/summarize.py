"""Settings of `ampere summarize`."""

from dataclasses import dataclass
from typing import Literal

from ampere.config.checks import make_absolute, require, worker_range

SHIPPED_MODEL = "shipped"  # name of the small language model inside the package


SummaryMethod = Literal["llm", "keybert", "uie", "raw"]


# The names and the features are columns of the llm method's rows.
TextSource = Literal["llm", "llm-name", "llm-features", "keybert", "uie", "raw", "none"]


@dataclass(frozen=True, kw_only=True)
class SummarizeSettings:
    """Summarization of raw transcripts to product names and features."""

    method: SummaryMethod = "llm"
    """How transcripts are summarized; the summaries of all methods and models are stored side by
    side.
    llm: product name and features, by a language model under vLLM.
    keybert: five keywords.
    uie: the spans that an extraction model marks.
    raw: the transcript itself."""
    model: str = SHIPPED_MODEL
    """Language model of the llm method.
    shipped: the small model inside the package, for the synthetic demo transcripts.
    Or a preset: baichuan2-13b-4bit, baichuan2-7b-4bit, qwen2-1.5b, qwen3-4b or qwen3-8b.
    Or the hub name or local folder of an instruction-tuned model."""
    encoder: str = "hfl/rbt6"
    """Hub name or folder of the text encoder, such as a BERT, for keybert only."""
    extractor: str = "xusenlin/uie-base"
    """Hub name or folder of the UIE model, for uie only."""
    prompt: str | None = None
    """Name of a prompt in ampere.text.prompts (example or bare); None: the model's default."""
    quantization: str | None = None
    """vLLM quantization applied while loading, such as fp8; not needed for quantized weights."""
    trust_remote_code: bool = False
    """Run the Python code shipped with the model's weights."""
    dtype: str = "auto"
    """vLLM weight type, such as bfloat16; auto: as in the model's files, float32 for `shipped`."""
    piece_tokens: int = 6000
    """Maximum tokens per piece of a transcript.
    Longer transcripts are split at sentence boundaries, and the pieces' summaries are merged."""
    max_tokens: int = 256
    """Maximum length of an answer, in tokens."""
    max_model_len: int | None = None
    """Maximum length of prompt and answer together, in tokens.
    None: as long as the transcripts require, up to the model's limit."""
    max_num_seqs: int | None = None
    """Maximum number of transcripts in an engine at once.
    None: 256 on a GPU; on a CPU as many as fit in memory, up to 256."""
    kv_cache_gb: float | None = None
    """Memory of an engine's KV cache, in GiB.
    None: all free memory on a GPU; on a CPU as much as is needed."""
    batch_size: int = 64
    """Transcripts per batch sent to an engine."""
    workers: str = "1"
    """Number of engines, or MIN:MAX to grow and shrink with the queue."""
    cpus: float = 1.0
    """CPU cores per engine; with several GPUs, per GPU."""
    gpus: float = 0.0
    """GPUs per engine. 1: one GPU each; a fraction: engines share a GPU; 0: the CPU."""
    tensor_parallel_size: int = 1
    """Number of GPUs that share the weights of one engine."""
    accelerator_type: str | None = None
    """Ray's name of the GPU type that an engine requires, such as H100; None: any."""

    def __post_init__(self) -> None:
        make_absolute(self, "model", "encoder", "extractor")
        worker_range("summarize.workers", self.workers)
        for name in (
            "batch_size",
            "tensor_parallel_size",
            "piece_tokens",
            "max_tokens",
            "max_num_seqs",
        ):
            value = getattr(self, name)
            require(
                value is None or value >= 1, f"summarize.{name} is {value}; it must be at least 1"
            )
        require(
            self.max_model_len is None or self.max_tokens < self.max_model_len,
            f"summarize.max_tokens is {self.max_tokens}; it must be below max_model_len "
            f"({self.max_model_len}), which also includes the prompt",
        )
        require(
            0 <= self.gpus <= 1,
            f"summarize.gpus is {self.gpus}; give at most 1, and set tensor_parallel_size to the "
            "number of GPUs per engine",
        )
