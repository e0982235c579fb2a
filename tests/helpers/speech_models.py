"""Random Whisper models, in the format of transformers and in that of faster-whisper.

They write nonsense, the same for the same audio, by the real engines.
"""

from pathlib import Path
from string import ascii_lowercase

MEL_BINS = 80
WIDTH = 64  # two heads of 32, the smallest that vLLM's CPU kernels take
LANGUAGES = ("en", "zh", "de", "ja")
TIMESTAMPS = [f"<|{step * 0.02:.2f}|>" for step in range(1501)]
TASK_TOKENS = [
    "<|endoftext|>",
    "<|startoftranscript|>",
    *(f"<|{language}|>" for language in LANGUAGES),
    "<|translate|>",
    "<|transcribe|>",
    "<|startoflm|>",
    "<|startofprev|>",
    "<|nospeech|>",
    "<|notimestamps|>",
]


def whisper_tokenizer():
    """A byte tokenizer with Whisper's special tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import WhisperTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE({letter: at for at, letter in enumerate(letters)}, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens(TASK_TOKENS)
    inner.add_tokens(TIMESTAMPS)
    return WhisperTokenizerFast(
        tokenizer_object=inner,
        bos_token="<|endoftext|>",
        eos_token="<|endoftext|>",
        unk_token="<|endoftext|>",
        additional_special_tokens=TASK_TOKENS[1:],
    )


def write_whisper(
    folder: Path, *, layers: int = 1, width: int = WIDTH, seed: int = 0, says: str = ""
) -> Path:
    """Write a Whisper as transformers and vLLM read it: a random one, or one with one sentence.

    Args:
        says: what it hears in all speech; empty: nonsense.
    """
    import torch
    from transformers import (
        WhisperConfig,
        WhisperFeatureExtractor,
        WhisperForConditionalGeneration,
        WhisperProcessor,
    )

    torch.manual_seed(seed)
    tokenizer = whisper_tokenizer()
    first = {token: tokenizer.convert_tokens_to_ids(token) for token in TASK_TOKENS}
    end, start = first["<|endoftext|>"], first["<|startoftranscript|>"]
    config = WhisperConfig(
        vocab_size=len(tokenizer),
        num_mel_bins=MEL_BINS,
        d_model=width,
        encoder_layers=layers,
        decoder_layers=layers,
        encoder_attention_heads=width // 32,
        decoder_attention_heads=width // 32,
        encoder_ffn_dim=4 * width,
        decoder_ffn_dim=4 * width,
        pad_token_id=end,
        bos_token_id=end,
        eos_token_id=end,
        decoder_start_token_id=start,
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )
    model = WhisperForConditionalGeneration(config)
    if says:
        tokens = ["<|0.00|>", *tokenizer.tokenize(says), "<|30.00|>", "<|endoftext|>"]
        make_say(model, tokenizer.convert_tokens_to_ids(tokens))
    else:
        # Of all tokens only small letters have a score, so it writes words, and never ends before
        # its limit.
        letters = tokenizer.convert_tokens_to_ids(list(ascii_lowercase))
        scores = model.proj_out.weight.data  # tied to the embeddings of tokens
        kept = scores[letters].clone()
        scores.mul_(0.01)
        scores[letters] = 8 * kept
    model.generation_config.suppress_tokens = []
    model.generation_config.begin_suppress_tokens = []
    model.generation_config.lang_to_id = {f"<|{name}|>": first[f"<|{name}|>"] for name in LANGUAGES}
    model.generation_config.task_to_id = {
        name: first[f"<|{name}|>"] for name in ("transcribe", "translate")
    }
    model.generation_config.no_timestamps_token_id = first["<|notimestamps|>"]
    model.generation_config.is_multilingual = True
    model.save_pretrained(folder, safe_serialization=True)
    extractor = WhisperFeatureExtractor(feature_size=MEL_BINS)
    WhisperProcessor(extractor, tokenizer).save_pretrained(folder)
    return folder


def make_say(model, tokens: list[int]) -> None:
    """Let faster-whisper write these tokens after its prompt, by the places of tokens alone."""
    decoder = model.model.decoder
    for layer in decoder.layers:  # they add nothing
        for part in (layer.self_attn.out_proj, layer.encoder_attn.out_proj, layer.fc2):
            part.weight.data.zero_()
            part.bias.data.zero_()
    scores = model.proj_out.weight.data  # tied to the embeddings of tokens
    scores[tokens] *= 100
    for place, token in enumerate(tokens):  # CTranslate2 counts from the last token of the prompt
        decoder.embed_positions.weight.data[place] = 1000 * scores[token]


def write_faster_whisper(folder: Path, whisper: Path) -> Path:
    """Convert a Whisper of `write_whisper` to the format of faster-whisper."""
    from ctranslate2.converters import TransformersConverter

    copied = ["tokenizer.json", "preprocessor_config.json"]
    present = [name for name in copied if (whisper / name).exists()]
    TransformersConverter(str(whisper), copy_files=present).convert(str(folder))
    return folder


QWEN_TOKENS = {
    "audio_token": "<|audio_pad|>",
    "audio_bos_token": "<|audio_start|>",
    "audio_eos_token": "<|audio_end|>",
    "timestamp_token": "<timestamp>",
}


def write_qwen_asr(folder: Path) -> Path:
    """Write a random Qwen3-ASR as transformers and vLLM read it; both import torchvision for it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast
    from transformers.models.qwen3_asr import (
        Qwen3ASRConfig,
        Qwen3ASRFeatureExtractor,
        Qwen3ASRForConditionalGeneration,
        Qwen3ASRProcessor,
    )

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE({letter: at for at, letter in enumerate(letters)}, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    chat = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    inner.add_special_tokens([*chat, *QWEN_TOKENS.values()])
    inner.add_tokens(["<asr_text>"])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=QWEN_TOKENS,
    )
    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in [*chat, *QWEN_TOKENS.values()]}
    config = Qwen3ASRConfig(
        audio_config={
            "num_mel_bins": 128,
            "encoder_layers": 1,
            "encoder_attention_heads": 2,
            "encoder_ffn_dim": WIDTH,
            "d_model": WIDTH,
            "output_dim": WIDTH,
            "downsample_hidden_size": 32,
        },
        text_config={
            "model_type": "qwen3",
            "vocab_size": len(tokenizer),
            "hidden_size": WIDTH,
            "intermediate_size": WIDTH,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "head_dim": 32,
            "max_position_embeddings": 4096,
            "tie_word_embeddings": True,
        },
        audio_token_id=ids["<|audio_pad|>"],
        timestamp_token_id=ids["<timestamp>"],
        pad_token_id=ids["<|endoftext|>"],
        eos_token_id=ids["<|im_end|>"],
    )
    Qwen3ASRForConditionalGeneration(config).save_pretrained(folder)
    Qwen3ASRProcessor(Qwen3ASRFeatureExtractor(feature_size=128), tokenizer).save_pretrained(folder)
    return folder


# Attributes of any name, none of which is used: Qwen3-ASR shares a module with vision models.
TORCHVISION = """
def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    return type(name, (), dict.fromkeys(
        ["NEAREST", "NEAREST_EXACT", "BILINEAR", "BICUBIC", "BOX", "HAMMING", "LANCZOS"], 0
    ))
"""


def write_torchvision(folder: Path) -> Path:
    """Write an empty `torchvision` for PYTHONPATH, since the CPU installation has none."""
    package = folder / "torchvision"
    (package / "transforms" / "v2").mkdir(parents=True)
    (package / "__init__.py").write_text('__version__ = "0.0"')
    for name in (
        "io",
        "transforms/__init__",
        "transforms/functional",
        "transforms/v2/__init__",
        "transforms/v2/functional",
    ):
        (package / f"{name}.py").write_text(TORCHVISION)
    return folder
