"""Train the small language model that ships with ampere, from nothing, on generated sales talk.

    python -m tools.small_lm.train --init STAGE_5 --out ampere/text/small_lm

A Llama of eight layers reads a transcript character by character and copies out the product's name and features as
JSON. What it learns is to find and copy, not a list of products (`tools.small_lm.corpus` says what it reads): brands are
drawn from thousands of characters, a fifth of the other words of a name are replaced by random characters. Every
step draws fresh transcripts, so nothing is seen twice. The scores printed are of the demo's own generator, none of
whose products, brands, selling points or sentence patterns occurs in training.

It is a Llama and not a Qwen2 because transformers gives every Qwen2 folder Qwen2's own tokenizer class, whatever
tokenizer.json says, and that class drops characters that it does not know.
"""

import argparse
import copy
import math
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders
from tokenizers.models import BPE
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from ampere.synthetic.held_out import held_out_examples, held_out_lines
from ampere.text.characters import common_characters
from ampere.text.checks.scores import SummaryScores, score_summaries
from ampere.text.prompts import BARE_WORDING
from ampere.text.summary import NO_PRODUCT, AnswerError, Summary, parse_summary
from tools.small_lm.corpus import draw_example

HELD_OUT = 400  # transcripts
LAYERS = 8
IGNORED = -100  # label of a position that the loss leaves out
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.content }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>{% endif %}"
)
# The fixed parts of an answer are one token each: fewer steps to generate, nothing to misspell.
ANSWER_PIECES = (
    '{"is_product":true,"product_name":"',
    '","product_features":[',
    '"',
    '","',
    '"]}',
    "]}",
    NO_PRODUCT.to_json(),
)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """One token a character (common Chinese, ASCII, punctuation); any other character as its UTF-8 bytes."""
    characters = (
        "".join(map(chr, range(32, 127)))
        + "，。！？、；：“”‘’（）【】《》…·—～￥"
        + common_characters()
    )
    tokens = [
        "<|endoftext|>",
        "<|im_start|>",
        "<|im_end|>",
        *(f"<0x{byte:02X}>" for byte in range(256)),
        *characters,
    ]
    vocab = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    tokenizer = Tokenizer(BPE(vocab=vocab, merges=[], byte_fallback=True))
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_tokens([AddedToken(piece, normalized=False) for piece in ANSWER_PIECES])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>"],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def build_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=math.ceil(len(tokenizer) / 64) * 64,
        hidden_size=256,
        intermediate_size=640,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


def load_model(folder: Path) -> LlamaForCausalLM:
    """An earlier stage's model; one of fewer layers gets new ones, which at first add nothing to what it computes."""
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    old = len(model.model.layers)
    origins = [i * old // LAYERS for i in range(LAYERS)]
    layers = [copy.deepcopy(model.model.layers[origin]) for origin in origins]
    for i, layer in enumerate(layers):
        layer.self_attn.layer_idx = i
        layer.self_attn.config = (
            model.config
        )  # not its copy's: the attention implementation is set on the model's
        if i and origins[i] == origins[i - 1]:
            torch.nn.init.zeros_(layer.self_attn.o_proj.weight)
            torch.nn.init.zeros_(layer.mlp.down_proj.weight)
    model.model.layers = torch.nn.ModuleList(layers)
    model.config.num_hidden_layers = LAYERS
    return model


def build_optimizers(model: LlamaForCausalLM, lr: float) -> list[torch.optim.Optimizer]:
    """Muon for the layers' matrices, which learn faster by it, and AdamW for embeddings and norms."""
    matrices = [p for p in model.model.layers.parameters() if p.ndim == 2]
    inside = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in inside]
    return [
        torch.optim.Muon(matrices, lr=lr, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=lr, betas=(0.9, 0.98), weight_decay=0.01),
    ]


class Examples(IterableDataset):
    """Endless batches (ids, labels): int64 [B, L]; the prompt and the padding are not labelled."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, batch_size: int, seed: int) -> None:
        self.tokenizer, self.batch_size, self.seed = tokenizer, batch_size, seed

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        worker = get_worker_info()
        rng = random.Random(self.seed + (worker.id if worker else 0))
        while True:
            # Sorting four batches' worth by length before cutting them up saves a third of the padding.
            pool = sorted(
                (self.encode(*draw_example(rng)) for _ in range(4 * self.batch_size)),
                key=lambda e: len(e[0]),
            )
            batches = [pool[i : i + self.batch_size] for i in range(0, len(pool), self.batch_size)]
            rng.shuffle(batches)
            yield from map(self.collate, batches)

    def encode(self, text: str, summary: Summary) -> tuple[list[int], list[int]]:
        prompt = self.tokenizer.apply_chat_template(
            BARE_WORDING.messages(text), add_generation_prompt=True, return_dict=False
        )
        answer = [*self.tokenizer.encode(summary.to_json()), self.tokenizer.eos_token_id]
        return prompt + answer, [IGNORED] * len(prompt) + answer

    def collate(self, examples: list[tuple[list[int], list[int]]]) -> tuple[Tensor, Tensor]:
        length = max(len(ids) for ids, _ in examples)
        pad = self.tokenizer.pad_token_id
        ids = torch.tensor([ids + [pad] * (length - len(ids)) for ids, _ in examples])
        labels = torch.tensor(
            [labels + [IGNORED] * (length - len(labels)) for _, labels in examples]
        )
        return ids, labels


def answer_loss(layers: Callable, head: torch.nn.Linear, ids: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy over the answer's tokens; the vocabulary projection is computed at those positions only."""
    hidden = layers(ids).last_hidden_state[:, :-1]
    answered = labels[:, 1:] != IGNORED
    logits = head(hidden[answered]).float()
    return torch.nn.functional.cross_entropy(logits, labels[:, 1:][answered])


@torch.no_grad()
def evaluate(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, count: int
) -> SummaryScores:
    """Scores of the greedy answers on held-out transcripts."""
    pairs = []
    for text, truth in held_out_examples(count):
        ids = tokenizer.apply_chat_template(
            BARE_WORDING.messages(text),
            add_generation_prompt=True,
            return_tensors="pt",
            return_dict=False,
        )
        out = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=160, do_sample=False
        )
        try:
            found = asdict(
                parse_summary(tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True))
            )
        except AnswerError:
            found = None
        pairs.append((found, asdict(truth)))
    return score_summaries(pairs)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--out",
        type=Path,
        help="train, and write model.safetensors, config and tokenizer to this folder, and to "
        "step-N in it every 1,500 steps",
    )
    what.add_argument(
        "--write-held-out", type=Path, help="write the held-out transcripts as a labelled set"
    )
    parser.add_argument("--steps", type=int, default=4500)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--init", type=Path, help="folder of a model of this script to start from, for a new corpus"
    )
    args = parser.parse_args()

    if args.write_held_out:
        args.write_held_out.write_text(held_out_lines(HELD_OUT), encoding="utf-8")
        return 0
    torch.manual_seed(args.seed)
    tokenizer = build_tokenizer()
    model = load_model(args.init) if args.init else build_model(tokenizer)
    model.set_attn_implementation(
        "eager"
    )  # a fifth faster than sdpa in training at these lengths on a CPU
    model.train()
    layers = torch.compile(
        model.model, dynamic=True
    )  # 1.8 times as fast: most of a step is memory traffic
    print(
        f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters, {len(tokenizer)} tokens",
        flush=True,
    )
    optimizers = build_optimizers(model, args.lr)
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(
            optimizer,
            lambda s: (
                min(1, (s + 1) / 300)
                * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * s / args.steps)))
            ),
        )
        for optimizer in optimizers
    ]
    examples = Examples(tokenizer, args.batch_size, args.seed)
    batches = iter(DataLoader(examples, batch_size=None, num_workers=1))
    start, total = time.monotonic(), 0.0
    for step in range(1, args.steps + 1):
        ids, labels = next(batches)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = answer_loss(layers, model.lm_head, ids, labels)
        model.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            schedule.step()
        total += loss.item()
        if step % 50 == 0:
            print(
                f"step {step} loss {total / 50:.4f} {(time.monotonic() - start) / step:.2f} s/step",
                flush=True,
            )
            total = 0.0
        if step % 1500 == 0 or step == args.steps:
            model.eval()
            print(
                f"step {step}: {evaluate(model, tokenizer, HELD_OUT if step == args.steps else 100)}",
                flush=True,
            )
            model.train()
            folder = args.out if step == args.steps else args.out / f"step-{step}"
            # Half precision halves the file; the difference is far below what greedy decoding can see.
            copy.deepcopy(model).half().save_pretrained(folder)
            tokenizer.save_pretrained(folder)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
