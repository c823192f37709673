#!/usr/bin/env python3
"""Build the embedded base: the small Korean language model that ships in koalpaca_tune/embedded/.

One file holds the whole road from Korean Wikipedia to `AutoModelForCausalLM.from_pretrained`:

    tokenizer   learn a byte-level BPE from the training articles
    encode      turn the articles into one long array of token ids
    train       pretrain a GPT-NeoX (fixed seed; Muon for the matrices, AdamW for the rest)
    export      write the Hugging Face folder, weights rounded to float16
    measure     bits per character on held-out articles, a bigram baseline, three sampled texts

Every hundredth article (by a hash of its id) is held out: neither tokenizer nor model ever sees it.

The larger base of scripts/before_after is made by the same steps, with other sizes, from articles alone
(--articles-only), and in a given time (--minutes). Without these options all is as for the embedded base.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import platform
import sys
import time
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

END, PAD, TURN_START, TURN_END = "<|endoftext|>", "<|pad|>", "<|im_start|>", "<|im_end|>"
SPECIAL_TOKENS = [END, PAD, TURN_START, TURN_END]  # in id order: 0, 1, 2, 3
END_ID, PAD_ID = 0, 1

# How text is cut before BPE. A word keeps the one space in front of it, digits stand alone, and a newline is
# always its own piece; so encode(x) is a prefix of encode(x + " " + word) and of encode(x + "\n" + more).
PIECES = r"\n| ?[\p{L}\p{M}]+| ?\p{N}| ?[^\s\p{L}\p{M}\p{N}]+|[^\S\n]+(?!\S)|[^\S\n]"

ROTARY_SHARE = 0.5
ROTARY_BASE = 10_000
NORM_EPS = 1e-5
CONTEXT = 1024
SUMS = "data.json"  # in the work folder, of articles alone: what was learned from
CHECK_GRADIENTS_AT = 100  # a step late enough for every gradient to differ from zero
TIMED = 50  # steps after which --minutes is turned into a number of steps
SETTLED = 20  # of these the first ones, which compile and warm up, are not timed
SPARED = 0.03  # of the time left, in case the machine slows down


# ----------------------------------------------------------------------------------------------- the data


@dataclass(frozen=True)
class Article:
    """One Wikipedia article; `text` starts with the title on a line of its own."""

    id: str
    title: str
    text: str


def read_articles(data: Path) -> Iterator[Article]:
    """Yield the articles of `data`/kowiki/kowiki.jsonl.zst in file order, as NFC text."""
    import pyarrow as pa  # type: ignore[import-untyped]  # it brings a zstd reader with it

    with pa.input_stream(str(data / "kowiki" / "kowiki.jsonl.zst"), compression="zstd") as stream:
        rest = b""
        while block := stream.read(1 << 24):
            *lines, rest = (rest + block).split(b"\n")
            for line in lines:
                row = json.loads(line)
                yield Article(row["id"], row["title"], unicodedata.normalize("NFC", row["text"]))
        if rest.strip():
            row = json.loads(rest)
            yield Article(row["id"], row["title"], unicodedata.normalize("NFC", row["text"]))


def read_reviews(data: Path) -> Iterator[str]:
    """Yield the film reviews of `data`/nsmc/train.tsv (id, document, label)."""
    with (data / "nsmc" / "train.tsv").open(encoding="utf-8", newline="") as lines:
        next(lines)
        for line in lines:
            yield unicodedata.normalize("NFC", line.rstrip("\r\n").split("\t")[1])


def is_held_out(article: Article) -> bool:
    """Whether the article belongs to the 1 % that nothing is ever trained on."""
    return int(hashlib.sha256(article.id.encode()).hexdigest(), 16) % 100 == 0


def is_chosen(article: Article, share: float) -> bool:
    """Whether the article is among that share of all, by a hash of its id."""
    return share >= 1.0 or int(hashlib.sha256(article.id.encode()).hexdigest(), 16) // 100 % 10_000 < share * 10_000


def training_texts(data: Path, share: float = 1.0, articles_only: bool = False) -> Iterator[str]:
    """Yield everything that may be learned from: the articles not held out, then the reviews."""
    for article in read_articles(data):
        if not is_held_out(article) and is_chosen(article, share):
            yield article.text
    if articles_only:
        return
    reviews = list(read_reviews(data))
    for start in range(0, len(reviews), 8):  # eight to a document, lest half of all documents be reviews
        yield "\n".join(reviews[start : start + 8])


def held_out_texts(data: Path, characters: int | None = None, share: float = 1.0) -> list[str]:
    """Return the held-out articles, or whole articles from the front until `characters` are reached."""
    texts, total = [], 0
    for article in read_articles(data):
        if is_held_out(article) and is_chosen(article, share):
            texts.append(article.text)
            total += len(article.text)
            if characters is not None and total >= characters:
                break
    return texts


# ------------------------------------------------------------------------------------------ the tokenizer


def train_tokenizer(texts: Iterator[str], vocab_size: int) -> str:
    """Learn a byte-level BPE and return its tokenizer.json.

    Byte-level beat characters with byte fallback (0.554 against 0.557 tokens per character at equal
    vocabulary) and loses nothing: any text comes back as it went in.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return str(tokenizer.to_str(pretty=False))


def tokenizer_config() -> dict[str, Any]:
    """Return what AutoTokenizer needs beside tokenizer.json; nothing is ever added to a text unasked."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": END,
        "eos_token": END,
        "pad_token": PAD,
        "additional_special_tokens": [TURN_START, TURN_END],
        "model_max_length": CONTEXT,
        "model_input_names": ["input_ids", "attention_mask"],
        "clean_up_tokenization_spaces": False,
        "add_bos_token": False,
        "add_eos_token": False,
        "padding_side": "right",
    }


def command_tokenizer(args: argparse.Namespace) -> None:
    """Learn the tokenizer and write its two files."""
    args.work.mkdir(parents=True, exist_ok=True)
    (args.work / "tokenizer.json").write_text(
        train_tokenizer(training_texts(args.data, args.share, args.articles_only), args.vocab_size),
        encoding="utf-8",
    )
    write_json(args.work / "tokenizer_config.json", tokenizer_config())
    print(f"tokenizer: {args.vocab_size} entries in {args.work}")


def command_encode(args: argparse.Namespace) -> None:
    """Write train.npy and held_out.npy: shuffled documents, each led by <|endoftext|>, as int16 ids."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(args.work / "tokenizer.json"))
    training = list(training_texts(args.data, args.share, args.articles_only))
    np.random.default_rng(args.seed).shuffle(training)
    for name, texts in (("train", training), ("held_out", held_out_texts(args.data, share=args.share))):
        parts: list[np.ndarray[Any, Any]] = []
        for start in range(0, len(texts), 4096):  # in batches, so the encodings never pile up in memory
            for encoding in tokenizer.encode_batch_fast(texts[start : start + 4096]):
                parts.append(np.array([END_ID, *encoding.ids], dtype=np.int16))
        tokens = np.concatenate(parts)
        np.save(args.work / f"{name}.npy", tokens)
        size = {"documents": len(texts), "characters": sum(map(len, texts)), "tokens": len(tokens)}
        write_json(args.work / f"{name}.json", size)
        print(name, json.dumps(size), flush=True)
    (args.work / SUMS).unlink(missing_ok=True)
    if args.articles_only:
        write_json(args.work / SUMS, data_sums(args.data, "kowiki/kowiki.jsonl.zst"))


# ---------------------------------------------------------------------------------------------- the model


@dataclass(frozen=True)
class Shape:
    """The size of the network."""

    vocab: int = 8192
    width: int = 256
    layers: int = 7
    heads: int = 4
    inner: int = 1024


class NeoX(nn.Module):
    """GPT-NeoX with the parameters of all layers stacked: compiled whole, orthogonalised a stack at a time.

    It computes what transformers' GPTNeoXForCausalLM computes (parallel residual, partial rotary positions,
    tied embeddings); `neox_state` gives the weights the names and the layout used there.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        layers, width, inner = shape.layers, shape.width, shape.inner

        def normal(*size: int, std: float) -> nn.Parameter:
            return nn.Parameter(torch.randn(size) * std)

        def zeros(*size: int) -> nn.Parameter:
            return nn.Parameter(torch.zeros(size))

        def ones(*size: int) -> nn.Parameter:
            return nn.Parameter(torch.ones(size))

        # Muon soon drives the layers' outputs to about 1, so the embeddings start there too: far smaller ones
        # would drown in the residual stream. The small last gain keeps the first logits small all the same.
        self.embed = normal(shape.vocab, width, std=1.0)
        self.qkv = normal(layers, 3, width, width, std=0.5 * width**-0.5)
        self.out = zeros(layers, width, width)  # each layer starts as the identity
        self.up = normal(layers, inner, width, std=0.5 * width**-0.5)
        self.down = zeros(layers, width, inner)
        self.qkv_bias, self.out_bias = zeros(layers, 3, width), zeros(layers, width)
        self.up_bias, self.down_bias = zeros(layers, inner), zeros(layers, width)
        self.norm1, self.norm1_bias = ones(layers, width), zeros(layers, width)
        self.norm2, self.norm2_bias = ones(layers, width), zeros(layers, width)
        self.last_norm, self.last_norm_bias = nn.Parameter(torch.full((width,), 1 / width)), zeros(width)

    def matrices(self) -> list[nn.Parameter]:
        """Return the stacked weight matrices, the ones Muon trains."""
        return [self.qkv, self.out, self.up, self.down]

    def forward(self, ids: Tensor, targets: Tensor) -> Tensor:
        """Return the mean cross-entropy (nats per token) of `targets`, computed in bfloat16."""
        shape = self.shape
        batch, length = ids.shape
        low = torch.bfloat16
        cos, sin = rotary_tables(length, shape.width // shape.heads, ids.device)
        x = functional.embedding(ids, self.embed).to(low)
        # unbind, not indexing: its backward stacks the gradients once instead of adding padded copies
        stacks = [p.to(low).unbind() for p in self.matrices()]
        biases = [p.to(low).unbind() for p in (self.qkv_bias, self.out_bias, self.up_bias, self.down_bias)]
        norms = [p.unbind() for p in (self.norm1, self.norm1_bias, self.norm2, self.norm2_bias)]
        for (qkv, out, up, down), (b_qkv, b_out, b_up, b_down), (g1, b1, g2, b2) in zip(
            zip(*stacks, strict=True), zip(*biases, strict=True), zip(*norms, strict=True), strict=True
        ):
            h = norm(x, g1, b1)
            h = functional.linear(h, qkv.flatten(0, 1), b_qkv.flatten())
            q, k, v = h.view(batch, length, 3, shape.heads, -1).permute(2, 0, 3, 1, 4)
            q, k = rotate(q, cos, sin), rotate(k, cos, sin)
            h = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            attended = functional.linear(h.transpose(1, 2).reshape(batch, length, -1), out, b_out)
            h = functional.gelu(functional.linear(norm(x, g2, b2), up, b_up))
            x = x + attended + functional.linear(h, down, b_down)
        logits = functional.linear(norm(x, self.last_norm, self.last_norm_bias), self.embed.to(low))
        return functional.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())


def norm(x: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
    """Layer normalisation in float32, returned in the type of `x`."""
    return functional.layer_norm(x.float(), gain.shape, gain, bias, NORM_EPS).to(x.dtype)


def rotary_tables(length: int, head: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return cosines and sines of the rotary angles, each [length, rotated dimensions]."""
    rotated = int(head * ROTARY_SHARE)
    speed = ROTARY_BASE ** (-torch.arange(0, rotated, 2, device=device, dtype=torch.float32) / rotated)
    angle = torch.outer(torch.arange(length, device=device, dtype=torch.float32), speed).repeat(1, 2)
    return angle.cos(), angle.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the first dimensions of every head by its position's angles; the others pass."""
    turned, passed = x[..., : cos.shape[-1]].float(), x[..., cos.shape[-1] :]
    left, right = turned.chunk(2, dim=-1)
    return torch.cat(((turned * cos + torch.cat((-right, left), -1) * sin).to(x.dtype), passed), -1)


def neox_state(model: NeoX) -> dict[str, Tensor]:
    """Return the weights under GPTNeoXForCausalLM's names, queries, keys and values interleaved by head."""
    shape = model.shape
    state: dict[str, Tensor] = {
        "gpt_neox.embed_in.weight": model.embed,
        "gpt_neox.final_layer_norm.weight": model.last_norm,
        "gpt_neox.final_layer_norm.bias": model.last_norm_bias,
    }

    def by_head(qkv: Tensor) -> Tensor:  # [3, heads x d, ...] -> [heads x 3 x d, ...]
        return qkv.reshape(3, shape.heads, -1, *qkv.shape[2:]).transpose(0, 1).flatten(0, 2)

    for i in range(shape.layers):
        layer = f"gpt_neox.layers.{i}."
        state |= {
            layer + "attention.query_key_value.weight": by_head(model.qkv[i]),
            layer + "attention.query_key_value.bias": by_head(model.qkv_bias[i]),
            layer + "attention.dense.weight": model.out[i],
            layer + "attention.dense.bias": model.out_bias[i],
            layer + "mlp.dense_h_to_4h.weight": model.up[i],
            layer + "mlp.dense_h_to_4h.bias": model.up_bias[i],
            layer + "mlp.dense_4h_to_h.weight": model.down[i],
            layer + "mlp.dense_4h_to_h.bias": model.down_bias[i],
            layer + "input_layernorm.weight": model.norm1[i],
            layer + "input_layernorm.bias": model.norm1_bias[i],
            layer + "post_attention_layernorm.weight": model.norm2[i],
            layer + "post_attention_layernorm.bias": model.norm2_bias[i],
        }
    return {name: tensor.detach().clone().contiguous() for name, tensor in state.items()}


# -------------------------------------------------------------------------------------------- pretraining


class Muon(torch.optim.Optimizer):
    """Momentum whose update is orthogonalised, for stacks of matrices [..., rows, columns].

    After Jordan et al., 2024 (kellerjordan.github.io/posts/muon). torch.optim.Muon takes one matrix at a
    time; with dozens of tiny matrices the launches would cost more than the arithmetic, hence the stacks.
    """

    def __init__(self, params: Sequence[nn.Parameter], lr: float, momentum: float, weight_decay: float) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Take one step."""
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                if not state:
                    state["momentum"] = torch.zeros_like(p)
                state["momentum"].lerp_(p.grad, 1 - group["momentum"])
                update = orthogonalise(p.grad.lerp(state["momentum"], group["momentum"]))
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(update, alpha=-group["lr"] * max(1.0, p.shape[-2] / p.shape[-1]) ** 0.5)


def orthogonalise(stack: Tensor) -> Tensor:
    """Push the singular values of every matrix in the stack towards 1 (five Newton-Schulz steps)."""
    x: Tensor = stack.to(torch.bfloat16).flatten(0, -3)
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = 3.4445 * x + torch.baddbmm(gram, gram, gram, beta=-4.7750, alpha=2.0315) @ x
    return (x.mT if tall else x).reshape(stack.shape)


def learning_rate(step: int, steps: int, warmup: int, decay_share: float) -> float:
    """Return the factor on the learning rate: up, level, then straight down to zero at the last step."""
    return min(1.0, (step + 1) / warmup, (steps - step) / (steps * decay_share))


def steps_in(seconds: float, seconds_a_step: float, done: int) -> int:
    """Return how many steps there are in all, when `done` are done and `seconds` are left.

    Never so few that the schedule would already have had to fall: the first steps went by without it.
    """
    return max(done + int(seconds * (1 - SPARED) / seconds_a_step), 4 * done)


class Stopwatch:
    """Times steps without stopping the device between them, and turns a time into a number of steps."""

    def __init__(self, minutes: float, device: torch.device) -> None:
        self.ends = time.perf_counter() + 60 * minutes
        self.device = device
        self.lap = 0.0

    def now(self) -> float:
        """Return the time at which the device has done all it was told."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def steps(self, done: int, check: Callable[[], object], checks_every: int) -> int | None:
        """Return the number of steps in all once enough are timed (after TIMED steps), before that None.

        Args:
            done: steps done.
            check: a held-out check, which is timed too.
            checks_every: steps between two of them.
        """
        if done == SETTLED:
            self.lap = self.now()
        if done != TIMED:
            return None
        began = self.now()
        step = (began - self.lap) / (TIMED - SETTLED)
        check()
        once = self.now()
        check()
        one_check = self.now() - once  # the first one may have compiled
        return steps_in(self.ends - self.now() - 2 * one_check, step + one_check / checks_every, done)


def windows(tokens: Tensor, length: int, batch: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (ids, targets) for ever: every epoch cuts the stream at new points and shuffles the cuts."""
    generator = torch.Generator().manual_seed(seed)
    reach = torch.arange(length + 1, device=tokens.device)
    while True:
        shift = int(torch.randint(length, (1,), generator=generator))
        starts = torch.arange(shift, len(tokens) - length, length)
        starts = starts[torch.randperm(len(starts), generator=generator)].to(tokens.device)
        for first in range(0, len(starts) - batch + 1, batch):  # a short last batch would need compiling
            cut = tokens[starts[first : first + batch, None] + reach].long()
            yield cut[:, :-1], cut[:, 1:].contiguous()


def quick_held_out(loss_of: Callable[..., Tensor], tokens: Tensor, length: int, batch: int) -> float:
    """Return nats per token over the held-out stream, in the training arithmetic: a gauge for the log.

    Gradients stay switched on, only never asked for: without them the model would be compiled again.
    """
    span = length * batch
    losses = [
        loss_of(
            tokens[start : start + span].long().view(batch, length),
            tokens[start + 1 : start + span + 1].long().view(batch, length),
        ).detach()
        for start in range(0, len(tokens) - span, span)
    ]
    return float(torch.stack(losses).mean()) if losses else math.nan


def compiled(model: NeoX) -> Callable[..., Tensor]:
    """Compile the model, without the fusion that computes wrong gradients for it."""
    import torch._inductor.config as inductor

    # torch 2.11 fuses the row and column reductions of layer norm's backward and gets the gradients of our
    # stacked gains and biases wrong (relative error above 1 on an H200): training diverged in 1,000 steps.
    if hasattr(inductor.triton, "mix_order_reduction"):
        inductor.triton.mix_order_reduction = False
    return cast(Callable[..., Tensor], torch.compile(model, dynamic=False))


def worst_gradient_error(model: NeoX, loss_of: Callable[..., Tensor], ids: Tensor, targets: Tensor) -> float:
    """Return the largest relative difference between the compiled gradients and plain autograd's."""

    def gradients(loss: Callable[..., Tensor]) -> list[Tensor]:
        return list(torch.autograd.grad(loss(ids, targets), list(model.parameters())))

    pairs = zip(gradients(loss_of), gradients(model), strict=True)
    return max(float((fast - plain).norm() / plain.norm()) for fast, plain in pairs)


def command_train(args: argparse.Namespace) -> None:
    """Pretrain from scratch and save the weights to work/weights.pt."""
    device = torch.device(args.device)
    watch = Stopwatch(args.minutes, device) if args.minutes else None
    torch.manual_seed(args.seed)
    tokens = torch.from_numpy(np.load(args.work / "train.npy")).to(device)
    held_out = torch.from_numpy(np.load(args.work / "held_out.npy")).to(device)
    held_out_size = json.loads((args.work / "held_out.json").read_text())
    tokens_per_character = held_out_size["tokens"] / held_out_size["characters"]

    shape = Shape(args.vocab_size, args.width, args.layers, args.heads, args.inner)
    model = NeoX(shape).to(device)
    matrices = model.matrices()
    vectors = [p for p in model.parameters() if all(p is not other for other in (model.embed, *matrices))]
    optimizers: list[torch.optim.Optimizer] = [
        Muon(matrices, lr=args.muon_lr, momentum=0.95, weight_decay=args.weight_decay),
        torch.optim.AdamW(
            [{"params": [model.embed], "lr": args.embed_lr}, {"params": vectors, "lr": args.vector_lr}],
            betas=(0.9, 0.98),
            weight_decay=0.0,
            fused=True,
        ),
    ]
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    peaks = [float(group["lr"]) for group in groups]
    loss_of: Callable[..., Tensor] = compiled(model) if args.compile else model
    tokens_per_step = args.batch * args.length
    # timed steps come before any decay: as if there were steps without end
    steps = 1 << 40 if watch else int(args.tokens // tokens_per_step)
    facts = {
        **versions(device),
        "seed": args.seed,
        "shape": asdict(shape),
        "parameters": sum(p.numel() for p in model.parameters()),
        "steps": steps,
        "tokens_per_step": tokens_per_step,
        "window": args.length,
        "epochs": round(steps * tokens_per_step / len(tokens), 2),
        "muon_lr": args.muon_lr,
        "embed_lr": args.embed_lr,
        "vector_lr": args.vector_lr,
        "weight_decay": args.weight_decay,
        "warmup_steps": args.warmup,
        "decay_share": args.decay_share,
    }
    print(json.dumps(facts | ({"steps": None, "epochs": None} if watch else {})), flush=True)

    def held_out_nats_now() -> float:
        return quick_held_out(loss_of, held_out, args.length, args.batch)

    batches = windows(tokens, args.length, args.batch, args.seed)
    began = lap = time.perf_counter()
    recent = torch.zeros((), device=device)
    step = -1
    while (step := step + 1) < steps:
        factor = learning_rate(step, steps, args.warmup, args.decay_share)
        for group, peak in zip(groups, peaks, strict=True):
            group["lr"] = peak * factor
        batch = next(batches)
        if step == CHECK_GRADIENTS_AT and args.compile:
            error = worst_gradient_error(model, loss_of, *batch)
            print(f"step {step} compiled gradients differ from plain ones by at most {error:.4f}", flush=True)
            if not error < 0.05:  # bfloat16 alone gives about 0.006
                raise SystemExit("the compiler computes wrong gradients; train with --no-compile")
        loss = loss_of(*batch)
        loss.backward()  # type: ignore[no-untyped-call]
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        recent += loss.detach()
        done = step + 1
        if watch and (known := watch.steps(done, held_out_nats_now, args.check_every)):
            steps = known
            facts |= {"steps": steps, "epochs": round(steps * tokens_per_step / len(tokens), 2)}
            facts["minutes"] = args.minutes
            print(f"{steps} steps fit into {args.minutes} minutes: {facts['epochs']} epochs", flush=True)
            lap = time.perf_counter()
        if done % args.log_every == 0:
            mean, now = float(recent) / args.log_every, time.perf_counter()
            speed = args.log_every * tokens_per_step / (now - lap)
            print(f"step {done}/{steps} loss {mean:.4f} lr x{factor:.3f} {speed:,.0f} tokens/s", flush=True)
            recent.zero_()
            lap = now
        if done % args.check_every == 0 or done == steps:
            nats = held_out_nats_now()
            bits = nats / math.log(2) * tokens_per_character
            seconds = time.perf_counter() - began
            check = f"held-out {nats:.4f} nats/token ~{bits:.4f} bits/character"
            print(f"step {done} {check} after {seconds:.0f} s", flush=True)
            facts |= {"tokens_seen": done * tokens_per_step, "seconds": round(seconds)}
            torch.save({"facts": facts, "weights": model.state_dict()}, args.work / "weights.pt")
            lap = time.perf_counter()


# -------------------------------------------------------------------------------------------------- export


def neox_config(shape: Shape) -> dict[str, Any]:
    """Return config.json. Rotary settings stand in the old and in the new spelling, for any transformers."""
    return {
        "architectures": ["GPTNeoXForCausalLM"],
        "model_type": "gpt_neox",
        "vocab_size": shape.vocab,
        "hidden_size": shape.width,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "intermediate_size": shape.inner,
        "hidden_act": "gelu",
        "max_position_embeddings": CONTEXT,
        "layer_norm_eps": NORM_EPS,
        "use_parallel_residual": True,
        "attention_bias": True,
        "tie_word_embeddings": True,
        "rotary_pct": ROTARY_SHARE,
        "rotary_emb_base": ROTARY_BASE,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": float(ROTARY_BASE),
            "partial_rotary_factor": ROTARY_SHARE,
        },
        "attention_dropout": 0.0,
        "hidden_dropout": 0.0,
        "initializer_range": 0.02,
        "bos_token_id": END_ID,
        "eos_token_id": END_ID,
        "pad_token_id": PAD_ID,
        "use_cache": True,
        "dtype": "float32",  # the file stores float16 to stay small; computing wants float32
    }


@torch.no_grad()
def tame(model: NeoX, seed: int) -> None:
    """Make the trained weights good to fine-tune, without changing what the model says about text.

    Training ends with embeddings of about 8 where other models have less than 1, which would make every LoRA
    update look small. All readers of the residual stream normalise it, so it may be scaled freely; a power of
    two keeps every digit. And the special tokens that no text contains have learned to be improbable, all in
    the same direction: noise makes them distinguishable to adapters that leave the embeddings alone.
    """
    generator = torch.Generator().manual_seed(seed)
    unseen = model.embed[PAD_ID : len(SPECIAL_TOKENS)]
    unseen += torch.randn(unseen.shape, generator=generator) * model.embed.std() / 2
    for written in (model.embed, model.out, model.out_bias, model.down, model.down_bias):
        written.mul_(2.0**-4)
    for reader in (model.last_norm, model.last_norm_bias):  # the embeddings turn up again after these
        reader.mul_(2.0**4)


def command_export(args: argparse.Namespace) -> None:
    """Write the Hugging Face folder from the trained weights, rounded to float16."""
    from safetensors.torch import save_file

    saved = torch.load(args.work / "weights.pt", map_location="cpu")
    shape = Shape(**saved["facts"]["shape"])
    model = NeoX(shape)
    model.load_state_dict(saved["weights"])
    tame(model, args.seed)
    args.model.mkdir(parents=True, exist_ok=True)
    halves = {name: tensor.to(torch.float16) for name, tensor in neox_state(model).items()}
    save_file(halves, args.model / "model.safetensors", metadata={"format": "pt"})
    write_json(args.model / "config.json", neox_config(shape))
    write_json(
        args.model / "generation_config.json",
        {"bos_token_id": END_ID, "eos_token_id": END_ID, "pad_token_id": PAD_ID},
    )
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (args.model / name).write_bytes((args.work / name).read_bytes())
    write_json(
        args.model / "provenance.json",
        {
            "script": "scripts/embedded_base.py",
            "training": saved["facts"],
            "data": learned_from(args.work, args.data),
            "training_tokens": json.loads((args.work / "train.json").read_text()),
            "held_out_tokens": json.loads((args.work / "held_out.json").read_text()),
            "held_out": "articles whose sha256(id), read as an integer, is divisible by 100",
        },
    )
    write_sums(args.model)
    print(f"exported to {args.model}")


def data_sums(data: Path, *names: str) -> dict[str, Any]:
    """Return the hashes of files under `data`."""
    return {name: {"sha256": hashlib.sha256((data / name).read_bytes()).hexdigest()} for name in names}


def learned_from(work: Path, data: Path) -> dict[str, Any]:
    """Return the hashes of the files learned from: as encoding noted them, else of articles and reviews."""
    if (work / SUMS).is_file():  # the machine that trains need not have the data
        return cast(dict[str, Any], json.loads((work / SUMS).read_text(encoding="utf-8")))
    return data_sums(data, "kowiki/kowiki.jsonl.zst", "nsmc/train.tsv")


def write_sums(folder: Path) -> None:
    """Write SHA256SUMS over every other file of the folder."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.name != "SHA256SUMS")
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files]
    (folder / "SHA256SUMS").write_text("".join(lines), encoding="utf-8")


# ------------------------------------------------------------------------------------------------- measure


@dataclass(frozen=True)
class Window:
    """A piece of an article to score: the ids, and how many of them are context only."""

    ids: list[int]
    context: int


def scoring_windows(ids: Sequence[int], length: int = CONTEXT, step: int = CONTEXT // 2) -> Iterator[Window]:
    """Cut [<|endoftext|>, *article] so that every token of the article is scored exactly once.

    The first window scores all it holds; each later one moves on by `step` and scores only its new tokens,
    which thus see at least `length - step` tokens before them.
    """
    end, start, context = 0, 0, 1
    while end < len(ids):
        end = min(start + length, len(ids))
        yield Window(list(ids[start:end]), context)
        start += step
        context = end - start


@torch.no_grad()
def held_out_nats(model: Any, tokenizer: Any, texts: Sequence[str], batch: int) -> tuple[float, int]:
    """Return the total negative log-likelihood of `texts` in nats, and how many tokens they have."""
    cut = [
        window
        for text in texts
        for window in scoring_windows(
            [END_ID, *tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]]
        )
    ]
    cut.sort(key=lambda window: len(window.ids))
    nats, count = 0.0, 0
    for start in range(0, len(cut), batch):
        some = cut[start : start + batch]
        longest = max(len(window.ids) for window in some)
        ids = torch.full((len(some), longest), PAD_ID, device=model.device)
        scored = torch.zeros((len(some), longest), dtype=torch.bool, device=model.device)
        for row, window in enumerate(some):
            ids[row, : len(window.ids)] = torch.tensor(window.ids)
            scored[row, window.context : len(window.ids)] = True
        logits = model(input_ids=ids, use_cache=False).logits[:, :-1].float()  # padding comes last: harmless
        losses = functional.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none")
        nats += float(losses[scored[:, 1:]].double().sum())
        count += int(scored.sum())
    return nats, count


def bigram_bits(training: Iterator[str], texts: Sequence[str]) -> float:
    """Return bits per character of a character bigram on `texts`.

    Witten-Bell interpolation with the unigram, which has one count added for every Unicode code point.
    """
    pairs: Counter[tuple[str, str]] = Counter()
    for text in training:
        pairs.update(zip("\n" + text, text, strict=False))
    singles: Counter[str] = Counter()  # as the second of a pair
    before: Counter[str] = Counter()  # as the first of a pair
    kinds: Counter[str] = Counter()  # different characters seen after it
    for (first, second), count in pairs.items():
        singles[second] += count
        before[first] += count
        kinds[first] += 1
    total = singles.total() + sys.maxunicode + 1
    bits, characters = 0.0, 0
    for text in texts:
        for first, second in zip("\n" + text, text, strict=False):
            unigram = (singles[second] + 1) / total
            seen = before[first] + kinds[first]
            bits -= math.log2((pairs[first, second] + kinds[first] * unigram) / seen if seen else unigram)
        characters += len(text)
    return bits / characters


# In the form of the training articles: the title on a line of its own, then the first words.
PROMPTS = ("백두산\n백두산은", "한국어\n한국어는", "1988년 하계 올림픽\n1988년 하계 올림픽은")


def sample(model: Any, tokenizer: Any, prompt: str, seed: int, new_tokens: int = 80) -> str:
    """Continue a prompt (temperature 0.8, nucleus 0.95)."""
    torch.manual_seed(seed)
    ids = [END_ID, *tokenizer(prompt, add_special_tokens=False)["input_ids"]]
    start = torch.tensor([ids], device=model.device)
    out = model.generate(
        start,
        attention_mask=torch.ones_like(start),
        do_sample=True,
        temperature=0.8,
        top_p=0.95,
        max_new_tokens=new_tokens,
    )
    return str(tokenizer.decode(out[0], skip_special_tokens=True))


def command_measure(args: argparse.Namespace) -> None:
    """Print what the exported model can do."""
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    device = torch.device(args.device)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model = AutoModelForCausalLM.from_pretrained(args.model).to(device).eval()
    texts = held_out_texts(args.data, args.characters or None)
    characters = sum(map(len, texts))
    nats, count = held_out_nats(model, tokenizer, texts, args.batch)
    size = sum(path.stat().st_size for path in args.model.iterdir() if path.is_file())
    measured = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "folder_bytes": size,
        "held_out_articles": len(texts),
        "held_out_characters": characters,
        "bits_per_character": round(nats / math.log(2) / characters, 4),
        "tokens_per_character": round(count / characters, 4),
    }
    if args.bigram:
        training = (article.text for article in read_articles(args.data) if not is_held_out(article))
        measured["bigram_bits_per_character"] = round(bigram_bits(training, texts), 4)
    measured |= versions(device)
    for name, value in measured.items():
        print(f"{name}: {value}")
    for prompt in PROMPTS:
        print(f"\n--- {prompt!r}\n{sample(model, tokenizer, prompt, args.seed)}")
    if args.record:
        path = args.model / "provenance.json"
        provenance = json.loads(path.read_text(encoding="utf-8"))
        provenance.setdefault("measured", {})[device.type] = measured
        write_json(path, provenance)
        write_sums(args.model)


# ------------------------------------------------------------------------------------------- small helpers


def write_json(path: Path, value: Any) -> None:
    """Write readable JSON with a last newline."""
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def versions(device: torch.device) -> dict[str, str]:
    """Return what the numbers were made with."""
    import tokenizers
    import transformers

    processor = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "device": processor,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "transformers": transformers.__version__,
        "tokenizers": tokenizers.__version__,
    }


EXAMPLES = """examples:
    python scripts/embedded_base.py measure                       # the shipped model, on 100,000 characters
    python scripts/embedded_base.py measure --characters 0        # on all held-out articles
    scripts/train_embedded_base.sh ../shared/data                 # everything anew, on a GPU machine
"""


def main() -> None:
    """Run one subcommand."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)

    def add(name: str, run: Callable[[argparse.Namespace], None], help_: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=help_, description=help_)
        sub.set_defaults(run=run)
        sub.add_argument("--data", type=Path, default=Path("../shared/data"), help="holds kowiki/ and nsmc/")
        sub.add_argument("--work", type=Path, default=Path("runs/embedded"), help="folder for what is made")
        sub.add_argument("--seed", type=int, default=20261120)
        sub.add_argument("--vocab-size", type=int, default=8192)
        return sub

    tokenizer = add("tokenizer", command_tokenizer, "learn the tokenizer")
    encode = add("encode", command_encode, "turn the articles into token ids")
    for sub in (tokenizer, encode):
        sub.add_argument("--articles-only", action="store_true", help="leave the film reviews out")
        sub.add_argument("--share", type=float, default=1.0, help="of the articles, held-out ones too")
    train = add("train", command_train, "pretrain the model")
    train.add_argument("--width", type=int, default=256)
    train.add_argument("--layers", type=int, default=7)
    train.add_argument("--heads", type=int, default=4)
    train.add_argument("--inner", type=int, default=1024)
    train.add_argument("--tokens", type=float, default=2.8e9, help="tokens to see in all")
    train.add_argument("--minutes", type=float, help="time for it all, in place of --tokens")
    train.add_argument("--length", type=int, default=1024, help="tokens in one window")
    train.add_argument("--batch", type=int, default=96, help="windows in one step")
    train.add_argument("--muon-lr", type=float, default=0.03)
    train.add_argument("--embed-lr", type=float, default=0.08)
    train.add_argument("--vector-lr", type=float, default=0.006)
    train.add_argument("--weight-decay", type=float, default=0.01, help="of the matrices")
    train.add_argument("--warmup", type=int, default=300)
    train.add_argument("--decay-share", type=float, default=0.7)
    train.add_argument("--log-every", type=int, default=100)
    train.add_argument("--check-every", type=int, default=2000)
    train.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    train.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)

    export = add("export", command_export, "write the Hugging Face folder")
    measure = add("measure", command_measure, "measure the exported model")
    for sub in (export, measure):
        sub.add_argument("--model", type=Path, default=Path("koalpaca_tune/embedded"))
    measure.add_argument("--characters", type=int, default=100_000, help="held-out text; 0: all of it")
    measure.add_argument("--batch", type=int, default=8, help="windows at a time")
    measure.add_argument("--bigram", action=argparse.BooleanOptionalAction, default=True)
    measure.add_argument("--record", action="store_true", help="keep the numbers in provenance.json")
    measure.add_argument("--device", default="cpu")

    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
