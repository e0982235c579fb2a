"""Random Whisper models, in the format of transformers and in that of faster-whisper.

They write nonsense, the same for the same audio, by the real engines.
"""

from pathlib import Path

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


def write_whisper(folder: Path, *, layers: int = 1, width: int = WIDTH, seed: int = 0) -> Path:
    """Write a random Whisper as transformers and vLLM read it."""
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


def write_faster_whisper(folder: Path, whisper: Path) -> Path:
    """Convert a Whisper of `write_whisper` to the format of faster-whisper."""
    from ctranslate2.converters import TransformersConverter

    copied = ["tokenizer.json", "preprocessor_config.json"]
    present = [name for name in copied if (whisper / name).exists()]
    TransformersConverter(str(whisper), copy_files=present).convert(str(folder))
    return folder
