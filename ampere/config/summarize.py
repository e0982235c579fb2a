"""Settings of `ampere summarize`."""

from dataclasses import dataclass
from typing import Literal

from ampere.config.checks import make_absolute, require, worker_range

SHIPPED_MODEL = "shipped"  # names the small language model inside the package


SummaryMethod = Literal["llm", "llm-name", "llm-features", "keybert", "uie", "raw"]


TextSource = Literal["llm", "llm-name", "llm-features", "keybert", "uie", "raw", "none"]


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
            f"summarize.max_tokens is {self.max_tokens}; it must be below max_model_len ({self.max_model_len}), which "
            "also holds the prompt",
        )
        require(
            0 <= self.gpus <= 1,
            f"summarize.gpus is {self.gpus}; give a fraction of a GPU, or 1 and the number of GPUs of an engine as "
            "tensor_parallel_size",
        )
