"""The shipped weights, run by transformers, on the shortest transcripts."""

from importlib.resources import files

import pytest
import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from ampere.text.prompts import BARE_WORDING
from ampere.text.summary import parse_summary

FOLDER = str(files("ampere.text").joinpath("small_lm"))


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    return LlamaForCausalLM.from_pretrained(FOLDER, dtype=torch.float32).eval()


@pytest.mark.parametrize(
    ("transcript", "name"),
    [
        ("松石牙刷", "松石牙刷"),
        ("家人们，今天给大家带来的是松石牙刷，软毛的", "松石牙刷"),
        ("云南小粒咖啡豆，中度烘焙", "云南小粒咖啡豆"),
        ("大家晚上好", ""),
        ("家人们晚上好，来晚了的扣个一", ""),
    ],
)
def test_short_transcript_is_a_product_if_it_names_one(
    model: LlamaForCausalLM, transcript: str, name: str
) -> None:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(FOLDER)
    messages = BARE_WORDING.messages(transcript)
    prompt = tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, return_tensors="pt", return_dict=False
    )
    answer = model.generate(
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=60, do_sample=False
    )
    generated = tokenizer.decode(answer[0, prompt.shape[1] :], skip_special_tokens=True)
    assert parse_summary(generated).product_name == name
