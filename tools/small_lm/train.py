"""Train the small language model that ships with ampere, from scratch, on generated sales talk.

    python -m tools.small_lm.train --init STAGE_12 --out ampere/text/small_lm

A Llama of eight layers reads a transcript character by character and copies out the product's name
and features as JSON. It should learn to find and copy, not a list of products: brands are drawn
from thousands of characters, and a fifth of the other words of a name are random characters (see
`tools.small_lm.corpus`). Every step draws new transcripts, so none is seen twice. The printed
scores are those on the demo's own generator, whose products, brands, selling points and sentence
patterns do not occur in training.

It is a Llama and not a Qwen2 because transformers gives every Qwen2 folder Qwen2's own tokenizer
class, whatever tokenizer.json says, and that class drops unknown characters.
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
from torch.optim.lr_scheduler import LambdaLR
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
IGNORED = -100  # label of positions that do not count in the loss
WARM_UP_STEPS, FINAL_RATE = 300, 0.02  # of the cosine schedule
STEPS_PER_CHECKPOINT = 1500
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.content }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>{% endif %}"
)
# Each fixed part of an answer is one token: fewer steps to generate, and no misspellings.
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
    """One token per common Chinese, ASCII or punctuation character; UTF-8 bytes for all others."""
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
    """A model with random weights."""
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
    """Load the model of an earlier stage; missing layers are added, at first without any effect."""
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    old = len(model.model.layers)
    origins = [i * old // LAYERS for i in range(LAYERS)]
    layers = [copy.deepcopy(model.model.layers[origin]) for origin in origins]
    for i, layer in enumerate(layers):
        layer.self_attn.layer_idx = i
        # Not the layer's copy: the attention implementation is set on the model's config.
        layer.self_attn.config = model.config
        if i and origins[i] == origins[i - 1]:
            torch.nn.init.zeros_(layer.self_attn.o_proj.weight)
            torch.nn.init.zeros_(layer.mlp.down_proj.weight)
    model.model.layers = torch.nn.ModuleList(layers)
    model.config.num_hidden_layers = LAYERS
    return model


def build_optimizers(model: LlamaForCausalLM, lr: float) -> list[torch.optim.Optimizer]:
    """Muon for the layers' matrices, which learn faster with it; AdamW for embeddings and norms."""
    matrices = [p for p in model.model.layers.parameters() if p.ndim == 2]
    inside = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in inside]
    return [
        torch.optim.Muon(matrices, lr=lr, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=lr, betas=(0.9, 0.98), weight_decay=0.01),
    ]


def build_schedule(optimizer: torch.optim.Optimizer, steps: int) -> LambdaLR:
    """Linear warm-up, then a cosine decay to `FINAL_RATE` of the learning rate."""

    def factor(step: int) -> float:
        cosine = 0.5 * (1 + math.cos(math.pi * step / steps))
        return min(1, (step + 1) / WARM_UP_STEPS) * (FINAL_RATE + (1 - FINAL_RATE) * cosine)

    return LambdaLR(optimizer, factor)


class Examples(IterableDataset):
    """Endless batches (ids, labels): int64 [B, L]; prompt and padding have the label `IGNORED`."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, batch_size: int, seed: int) -> None:
        self.tokenizer, self.batch_size, self.seed = tokenizer, batch_size, seed

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        worker = get_worker_info()
        rng = random.Random(self.seed + (worker.id if worker else 0))
        while True:
            # Sorting four batches by length before splitting them saves a third of the padding.
            pool = sorted(
                (self.encode(*draw_example(rng)) for _ in range(4 * self.batch_size)),
                key=lambda e: len(e[0]),
            )
            batches = [pool[i : i + self.batch_size] for i in range(0, len(pool), self.batch_size)]
            rng.shuffle(batches)
            yield from map(self.collate, batches)

    def encode(self, text: str, summary: Summary) -> tuple[list[int], list[int]]:
        """Token ids and labels of one transcript and its answer."""
        prompt = self.tokenizer.apply_chat_template(
            BARE_WORDING.messages(text), add_generation_prompt=True, return_dict=False
        )
        answer = [*self.tokenizer.encode(summary.to_json()), self.tokenizer.eos_token_id]
        return prompt + answer, [IGNORED] * len(prompt) + answer

    def collate(self, examples: list[tuple[list[int], list[int]]]) -> tuple[Tensor, Tensor]:
        """Pad examples to one length."""
        length = max(len(ids) for ids, _ in examples)
        pad = self.tokenizer.pad_token_id
        ids = torch.tensor([ids + [pad] * (length - len(ids)) for ids, _ in examples])
        labels = torch.tensor(
            [labels + [IGNORED] * (length - len(labels)) for _, labels in examples]
        )
        return ids, labels


def answer_loss(layers: Callable, head: torch.nn.Linear, ids: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy over the answer's tokens, the only positions that are projected to logits."""
    hidden = layers(ids).last_hidden_state[:, :-1]
    answered = labels[:, 1:] != IGNORED
    logits = head(hidden[answered]).float()
    return torch.nn.functional.cross_entropy(logits, labels[:, 1:][answered])


@torch.no_grad()
def evaluate(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, count: int
) -> SummaryScores:
    """Scores of greedy decoding on held-out transcripts."""
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
        answer = tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
        try:
            predicted = asdict(parse_summary(answer))
        except AnswerError:
            predicted = None
        pairs.append((predicted, asdict(truth)))
    return score_summaries(pairs)


def parse_args() -> argparse.Namespace:
    """The arguments of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    task = parser.add_mutually_exclusive_group(required=True)
    task.add_argument(
        "--out",
        type=Path,
        help="train, and write weights, config and tokenizer to this folder, and to its "
        f"subfolder step-N every {STEPS_PER_CHECKPOINT} steps",
    )
    task.add_argument(
        "--write-held-out", type=Path, help="write the held-out transcripts as a labeled set"
    )
    parser.add_argument("--steps", type=int, default=4500)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--init", type=Path, help="folder of an earlier stage's model to start from"
    )
    return parser.parse_args()


def train(args: argparse.Namespace) -> None:
    """Train the model; print its loss and scores, and write its checkpoints."""
    torch.manual_seed(args.seed)
    tokenizer = build_tokenizer()
    model = load_model(args.init) if args.init else build_model(tokenizer)
    # A fifth faster than sdpa in training at these lengths on a CPU.
    model.set_attn_implementation("eager")
    model.train()
    # 1.8 times as fast: most of a step is memory traffic.
    layers = torch.compile(model.model, dynamic=True)
    parameters = sum(p.numel() for p in model.parameters())
    print(f"{parameters / 1e6:.2f} M parameters, {len(tokenizer)} tokens", flush=True)
    optimizers = build_optimizers(model, args.lr)
    schedules = [build_schedule(optimizer, args.steps) for optimizer in optimizers]
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
            seconds = (time.monotonic() - start) / step
            print(f"step {step} loss {total / 50:.4f} {seconds:.2f} s/step", flush=True)
            total = 0.0
        if step % STEPS_PER_CHECKPOINT == 0 or step == args.steps:
            is_last = step == args.steps
            model.eval()
            scores = evaluate(model, tokenizer, HELD_OUT if is_last else 100)
            print(f"step {step}: {scores}", flush=True)
            model.train()
            save(model, tokenizer, args.out if is_last else args.out / f"step-{step}")


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write weights, config and tokenizer.

    Half precision halves the file; its rounding is far too small to change greedy decoding.
    """
    copy.deepcopy(model).half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def main() -> int:
    """Train, or write the held-out transcripts."""
    args = parse_args()
    if args.write_held_out:
        args.write_held_out.write_text(held_out_lines(HELD_OUT), encoding="utf-8")
    else:
        train(args)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
