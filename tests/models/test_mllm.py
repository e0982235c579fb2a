import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertModel,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3Processor,
    PreTrainedModel,
    ProcessorMixin,
)
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

from ampere.models import mllm
from ampere.models.mllm import PROMPT, PROMPT_END, MLLMConfig, MLLMEmbedder, last_tokens, load_mllm
from ampere.models.model_folder import model_identity
from tests.helpers.models import (
    TEMPLATE,
    change_weights,
    llava,
    outputs_of,
    random_frames,
    tiny_parts,
    tiny_tokenizer,
)

TEXTS = ["云杉牌电动牙刷", None, "牙刷"]
Family = Callable[[str], tuple[PreTrainedModel, ProcessorMixin]]


def idefics3(padding_side: str = "left") -> tuple[PreTrainedModel, ProcessorMixin]:
    tokenizer = tiny_tokenizer(padding_side)
    language, vision = tiny_parts(tokenizer)
    torch.manual_seed(0)
    base = Idefics3ForConditionalGeneration(
        Idefics3Config(
            vision_config=vision | {"patch_size": 8},
            text_config=language,
            image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
            scale_factor=2,
            pad_token_id=0,
        )
    )
    images = Idefics3ImageProcessorPil(
        size={"longest_edge": 32}, max_image_size={"longest_edge": 32}, do_image_splitting=False
    )
    return base, Idefics3Processor(images, tokenizer, image_seq_len=4, chat_template=TEMPLATE)


def build(
    family: Family = llava, padding_side: str = "left", embedding_dim: int | None = None
) -> MLLMEmbedder:
    return MLLMEmbedder(
        *family(padding_side), MLLMConfig(source="nowhere", embedding_dim=embedding_dim)
    ).eval()


def library_features(model: MLLMEmbedder, frames: Tensor, texts: list[str | None]) -> Tensor:
    """Features of each row alone, so without padding, from the whole model's own call."""
    rows = [model.read(frames[i : i + 1], texts[i : i + 1]) for i in range(len(texts))]
    assert all(row["attention_mask"].all() for row in rows)
    return torch.stack(
        [model.base(**row, output_hidden_states=True).hidden_states[-1][0, -1] for row in rows]
    )


@pytest.mark.parametrize("padding_side", ["left", "right"])
@pytest.mark.parametrize("family", [llava, idefics3])
def test_vector_is_the_last_tokens_last_hidden_state(family: Family, padding_side: str) -> None:
    model, frames = build(family, padding_side), random_frames(3, 2)
    mask = model.read(frames, TEXTS)["attention_mask"]
    assert mask[:, 0].all() == (padding_side == "right") and not mask.all()
    expected = library_features(model, frames, TEXTS)
    torch.testing.assert_close(model.features(frames, TEXTS), expected, rtol=0, atol=1e-5)
    assert (expected[0] - expected[2]).abs().max() > 1e-2
    vectors = model(frames, TEXTS)
    assert vectors.dtype == torch.float32 and vectors.shape == (3, 32) == (3, model.embedding_dim)
    torch.testing.assert_close(vectors, normalize(expected, dim=-1), rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", [llava, idefics3])
def test_every_frame_and_the_text_are_read(family: Family) -> None:
    model, frames = build(family), random_frames(1, 3)
    vector = model(frames, ["牙刷"])
    for i in range(3):
        other = frames.clone()
        other[:, i] = 0
        assert (model(other, ["牙刷"]) - vector).abs().max() > 1e-5
    for text in ("云杉", None):
        assert (model(frames, [text]) - vector).abs().max() > 1e-5


def test_prompt_mentions_text_only_if_there_is_some() -> None:
    model = build()
    ids = model.read(random_frames(3, 2), ["云杉牙刷", None, ""])["input_ids"]
    prompts = [text.replace("<pad>", "") for text in model.processor.tokenizer.batch_decode(ids)]
    prompts = ["".join(text.split()) for text in prompts]
    images = "<image>" * 4 * 2
    assert prompts[0] == f"问{images}{PROMPT}商品文字：云杉牙刷{PROMPT_END}答"
    assert prompts[1] == prompts[2] == f"问{images}{PROMPT}{PROMPT_END}答"


def test_pixels_reach_the_model_unchanged() -> None:
    """A red frame, then a blue one, normalized in their channels.

    (1 - 0.4815) / 0.2686 and (1 - 0.4082) / 0.2758.
    """
    frames = torch.zeros(1, 2, 3, 32, 32, dtype=torch.uint8)
    frames[0, 0, 0], frames[0, 1, 2] = 255, 255
    pixels = build().read(frames, [None])["pixel_values"]
    assert pixels.shape == (2, 3, 32, 32)
    torch.testing.assert_close(
        pixels[[0, 1], [0, 2]].mean(dim=(1, 2)), torch.tensor([1.9303, 2.1459]), rtol=0, atol=1e-3
    )
    assert (pixels[[0, 0, 1, 1], [1, 2, 0, 1]] < 0).all()


def test_special_tokens_in_texts_are_blanked() -> None:
    """A speaker cannot add an image placeholder."""
    model, frames = build(), random_frames(1, 2)
    expected = model.features(frames, ["牙 刷 "])
    torch.testing.assert_close(model.features(frames, ["牙<image>刷<end_of_utterance>"]), expected)


def test_last_tokens_by_hand() -> None:
    assert last_tokens(torch.tensor([[1, 1, 0], [0, 1, 1], [1, 0, 0]])).tolist() == [1, 2, 0]


def test_bfloat16_autocast_gives_float32_unit_vectors() -> None:
    model = build(embedding_dim=5)
    assert model.probe is not None
    outputs = outputs_of(model.probe)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        vectors = model(random_frames(2, 3), ["牙刷", None])
    assert vectors.dtype == torch.float32
    assert [output.dtype for output in outputs] == [torch.float32]
    torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(2), rtol=0, atol=1e-6)


def test_training_encodes_equal_inputs_once() -> None:
    model, frames = build(embedding_dim=5), random_frames(3, 2)
    frames[1] = frames[0]
    encoded = outputs_of(model.base.base_model)
    rows = lambda: [len(output.last_hidden_state) for output in encoded]  # noqa: E731
    expected = model.features(frames, ["牙刷", "牙刷", None])
    model.features(frames, ["牙刷", "牙刷", None])
    assert rows() == [3, 3]  # outside of training nothing is kept
    model.train()
    for _ in range(2):
        features = model.features(frames, ["牙刷", "牙刷", None])
        torch.testing.assert_close(features, expected)
    assert rows() == [3, 3, 2]
    changed = model.features(frames[1:], ["牙", None])  # other text, same frames
    assert rows() == [3, 3, 2, 1] and (changed[0] - expected[1]).abs().max() > 1e-4


def test_kept_features_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mllm, "MAX_KEPT_FEATURES", 2)
    model, frames = build(embedding_dim=5).train(), random_frames(3, 2)
    expected = model.features(frames, TEXTS)
    assert len(model.kept) == 0
    torch.testing.assert_close(model.features(frames, TEXTS), expected)
    model.features(frames[:2], TEXTS[:2])
    assert len(model.kept) == 2


def test_linear_probing_trains_only_the_linear_layer() -> None:
    model, frames = build(embedding_dim=5), random_frames(3, 2)
    before = model.features(frames, TEXTS)
    vectors = model.train()(frames, TEXTS)
    assert torch.equal(model.features(frames, TEXTS), before)  # no dropout in the frozen model
    assert vectors.shape == (3, 5) == (3, model.embedding_dim) and model.probe is not None
    torch.testing.assert_close(
        vectors, normalize(before @ model.probe.weight.T + model.probe.bias, dim=-1)
    )
    vectors[:, 0].sum().backward()
    trained = [name for name, weight in model.named_parameters() if weight.grad is not None]
    assert trained == ["probe.weight", "probe.bias"]
    assert {key: len(group) for key, group in model.parameter_groups().items()} == {
        "text": 0, "video": 0, "fusion": 0, "rest": 2,
    }  # fmt: skip
    assert [id(weight) for weight in model.parameter_groups()["rest"]] == [
        id(weight) for weight in model.parameters() if weight.requires_grad
    ]
    assert build().parameter_groups()["rest"] == []


@pytest.fixture
def source(tmp_path: Path) -> str:
    """A model folder in the hub's layout."""
    base, processor = llava()
    base.save_pretrained(tmp_path / "source")
    processor.save_pretrained(tmp_path / "source")
    return str(tmp_path / "source")


@pytest.mark.parametrize("embedding_dim", [None, 5])
def test_saved_model_has_linear_layer_and_names_its_base(
    source: str, tmp_path: Path, embedding_dim: int | None
) -> None:
    model = load_mllm(MLLMConfig(source=source, embedding_dim=embedding_dim))
    model.save_pretrained(tmp_path / "ours")
    assert (tmp_path / "ours" / "model.safetensors").stat().st_size < 2000
    loaded, frames = MLLMEmbedder.from_pretrained(tmp_path / "ours"), random_frames(3, 2)
    assert not loaded.training and loaded.config == model.config
    assert torch.equal(loaded(frames, TEXTS), model(frames, TEXTS))
    torch.testing.assert_close(loaded.features(frames, TEXTS), build().features(frames, TEXTS))


def test_processor_settings_are_applied(source: str) -> None:
    model = load_mllm(
        MLLMConfig(
            source=source, processor={"image_mean": [0.0, 0.0, 0.0], "image_std": [1.0, 1.0, 1.0]}
        )
    )
    white = torch.full((1, 1, 3, 32, 32), 255, dtype=torch.uint8)
    torch.testing.assert_close(model.read(white, [None])["pixel_values"], torch.ones(1, 3, 32, 32))


def test_changed_weights_of_the_multimodal_model_raise(source: str, tmp_path: Path) -> None:
    load_mllm(MLLMConfig(source=source, identity=model_identity(source))).save_pretrained(tmp_path)
    MLLMEmbedder.from_pretrained(tmp_path)
    (Path(source) / "generation_config.json").write_text("{}")
    with pytest.raises(
        ValueError, match=r"have changed: source@\w+; .* was trained with source@\w+"
    ):
        MLLMEmbedder.from_pretrained(tmp_path)


def test_missing_weights_are_named(source: str, tmp_path: Path) -> None:
    model = load_mllm(MLLMConfig(source=source, embedding_dim=5))
    model.save_pretrained(tmp_path / "ours")
    change_weights(tmp_path / "ours", lambda weights: weights.pop("bias"))
    with pytest.raises(ValueError, match="missing bias"):
        MLLMEmbedder.from_pretrained(tmp_path / "ours")
    dropped: list[str] = []

    def drop(weights: dict[str, Tensor]) -> None:
        dropped.extend(name for name in weights if name.endswith("linear_1.bias"))
        del weights[dropped[0]]

    change_weights(Path(source), drop)
    with pytest.raises(ValueError, match=r"missing \S*linear_1.bias"):
        load_mllm(MLLMConfig(source=source))
    assert len(dropped) == 1


def test_config_of_another_class_raises(tmp_path: Path) -> None:
    build(embedding_dim=5).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"depth": 3}))
    with pytest.raises(ValueError, match="is not the config of an MLLM model"):
        MLLMEmbedder.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("frames", "texts", "words"),
    [
        (torch.zeros(1, 2, 3, 32, 32), [None], "torch.uint8"),
        (torch.zeros(1, 3, 32, 32, dtype=torch.uint8), [None], r"\[B, F, 3, H, W\]"),
        (torch.zeros(1, 0, 3, 32, 32, dtype=torch.uint8), [None], r"\[1, 0, 3, 32, 32\]"),
        (torch.zeros(2, 1, 3, 32, 32, dtype=torch.uint8), [None], "1 texts for 2 rows of frames"),
    ],
)
def test_invalid_inputs_raise(frames: Tensor, texts: list[str | None], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        build()(frames, texts)


def test_models_without_a_causal_decoder_raise() -> None:
    bert = BertModel(
        BertConfig(vocab_size=60, num_attention_heads=2, num_hidden_layers=1, hidden_size=8)
    )
    bart = BartForConditionalGeneration(
        BartConfig(
            vocab_size=60,
            d_model=8,
            encoder_layers=1,
            decoder_layers=1,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
        )
    )
    for base in (bert, bart):
        with pytest.raises(ValueError, match=f"{type(base).__name__} has no causal decoder"):
            MLLMEmbedder(base, llava()[1], MLLMConfig(source="nowhere"))


def test_invalid_config_raises() -> None:
    with pytest.raises(ValueError, match="embedding_dim is 0"):
        MLLMConfig(source="nowhere", embedding_dim=0)
