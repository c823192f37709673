"""How fast others train the same QLoRA work: one peer on random weights.

    python bench/peers.py unsloth polyglot-ko-5.8b /dev/shm/polyglot-ko-5.8b --recompute no
    python bench/peers.py trl llama3-8b memory --workload kosft --packing 8192
    python bench/peers.py hf tiny-neox memory             (the tiny shapes run on the CPU: hf)

PEER: hf (transformers' Trainer, peft, bitsandbytes), trl, trl-liger, unsloth; each as its own documentation says,
NF4 with double quantisation, products in bfloat16, paged 8-bit AdamW, rank 8, dropout 0 for all (Unsloth's fast
path has none), 8 rows a step. `--packing N` lets TRL or Unsloth pack into rows of N tokens, 1 row a step unless
--batch says otherwise. `--recompute yes` is the peer's own checkpointing (Unsloth's keeps inputs in host memory).

FOLDER: a checkpoint of bench/random_base.py, or `memory`: all but Unsloth take the model that bench/shapes.py makes
there, which is what they would load (`shapes.py --tiny` compares), a minute sooner.

A step is timed from its beginning to the end of its update, the card waited for: reading data and logging between
steps are left out, in the peers' favour. Prints one line, RESULT {json}: median real tokens/s of the steps after
the third (padding does not count), peak GiB, seconds and tokens of each step, losses, versions. About 1 minute, of
which Unsloth's import and compilation are the half. Set HF_HUB_OFFLINE=1 and UNSLOTH_DISABLE_STATISTICS=1.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from typing import Any

import measure
import shapes
import workloads
from shapes import SHAPES

PEERS = ("hf", "trl", "trl-liger", "unsloth")
SFT_LENGTH = 2048
MEMORY = "memory"


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("folder", help="checkpoint of bench/random_base.py, or 'memory'")
    parser.add_argument("--workload", choices=workloads.WORKLOADS, default="fixed")
    parser.add_argument("--recompute", choices=("yes", "no"), default="yes")
    parser.add_argument("--packing", type=int, default=0, metavar="N", help="rows of N tokens; 0: padded batches")
    parser.add_argument("--batch", type=int, default=0, help="rows a step; 0: 8, or 1 when packing")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rank", type=int, default=8)
    given = parser.parse_args()
    if given.peer == "hf" and given.packing:
        parser.error("transformers' Trainer does not pack.")
    if given.peer == "unsloth" and given.folder == MEMORY:
        parser.error("Unsloth loads from a folder.")
    given.batch = given.batch or (1 if given.packing else 8)
    return given


def load(given: argparse.Namespace) -> Any:
    """The quantised base; for Unsloth already with its adapter."""
    import torch
    import transformers

    folder, targets = given.folder, list(SHAPES[given.shape].targets)
    if given.peer == "unsloth":
        from unsloth import FastLanguageModel

        model, _ = FastLanguageModel.from_pretrained(
            folder, max_seq_length=SFT_LENGTH, load_in_4bit=True, dtype=torch.bfloat16
        )
        return FastLanguageModel.get_peft_model(
            model,
            r=given.rank,
            lora_alpha=2 * given.rank,
            lora_dropout=0,
            bias="none",
            target_modules=targets,
            use_gradient_checkpointing="unsloth" if given.recompute == "yes" else False,
            random_state=0,
        )
    cuda = torch.cuda.is_available()
    if folder == MEMORY:
        made = shapes.build(given.shape, torch.device("cuda", 0) if cuda else torch.device("cpu")).model
        # what from_pretrained leaves on a quantised model; transformers' Trainer asks it whether it can train
        made.hf_quantizer = transformers.quantizers.AutoHfQuantizer.from_config(made.config.quantization_config)
        return made
    dtype = torch.bfloat16 if cuda else torch.float32
    return transformers.AutoModelForCausalLM.from_pretrained(
        folder,
        quantization_config=transformers.BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        ),
        device_map={"": 0 if cuda else "cpu"},
        dtype=dtype,
    )


def arguments(given: argparse.Namespace, out: str) -> dict[str, Any]:
    """What every peer's trainer is told."""
    import torch

    cuda = torch.cuda.is_available()
    checkpointing: dict[str, Any] = {}
    if given.peer != "unsloth":
        yes = given.recompute == "yes"
        checkpointing = {
            "gradient_checkpointing": yes,
            "gradient_checkpointing_kwargs": {"use_reentrant": False} if yes else None,
        }
    return {
        "output_dir": out,
        "per_device_train_batch_size": given.batch,
        "gradient_accumulation_steps": 1,
        "max_steps": given.steps,
        "learning_rate": 2e-4,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 0.3,
        "optim": "paged_adamw_8bit" if cuda else "adamw_torch",
        "bf16": cuda,
        "dataloader_num_workers": 2 if cuda else 0,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "seed": 0,
        **checkpointing,
        **({} if cuda else {"use_cpu": True}),
    }


def trainer(given: argparse.Namespace, model: Any, examples: list[list[int]], out: str, clock: Any) -> Any:
    """The peer's trainer, ready to run."""
    import peft
    import transformers
    from datasets import Dataset

    if given.folder == MEMORY:
        tokenizer = shapes.tokenizer()
    else:
        tokenizer = transformers.AutoTokenizer.from_pretrained(given.folder)
    lora = peft.LoraConfig(
        r=given.rank,
        lora_alpha=2 * given.rank,
        lora_dropout=0.0,
        target_modules=list(SHAPES[given.shape].targets),
        bias="none",
        task_type="CAUSAL_LM",
    )
    told = arguments(given, out)
    rows = [{"input_ids": ids, "labels": list(ids), "attention_mask": [1] * len(ids)} for ids in examples]
    padded = transformers.DataCollatorForSeq2Seq(tokenizer, padding=True, label_pad_token_id=-100)
    if given.peer == "hf":
        yes = given.recompute == "yes"
        model = peft.prepare_model_for_kbit_training(
            model,
            use_gradient_checkpointing=yes,
            gradient_checkpointing_kwargs={"use_reentrant": False} if yes else None,
        )
        return transformers.Trainer(
            model=peft.get_peft_model(model, lora),
            args=transformers.TrainingArguments(**told),
            train_dataset=Dataset.from_list(rows),
            data_collator=padded,
            callbacks=[clock],
        )
    from trl import SFTConfig, SFTTrainer

    if given.peer == "trl-liger":
        told["use_liger_kernel"] = True
    if given.packing:
        rows = [{"input_ids": ids} for ids in examples]
        config = SFTConfig(**told, max_length=given.packing, packing=True)
    else:
        prepared = {"skip_prepare_dataset": True}
        config = SFTConfig(**told, max_length=SFT_LENGTH, packing=False, dataset_kwargs=prepared)
    return SFTTrainer(
        model=model,
        args=config,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        data_collator=None if given.packing else padded,
        peft_config=None if given.peer == "unsloth" else lora,
        callbacks=[clock],
    )


def real_tokens(inputs: Any) -> Any:
    """Tokens of a batch without padding, as a tensor on its device (nothing waits for it)."""
    mask = inputs.get("attention_mask")
    if mask is not None and mask.shape == inputs["input_ids"].shape:
        return mask.sum()
    # rows laid end to end have no padding
    return inputs["input_ids"].new_tensor(inputs["input_ids"].numel())


def run(given: argparse.Namespace) -> dict[str, Any]:
    """Trains; returns the result."""
    import transformers

    shape = SHAPES[given.shape]
    # packing leaves some room in rows: a tenth more than the steps need
    needed = int(1.1 * given.steps * given.batch * given.packing) if given.packing else 0
    examples = workloads.ids(
        given.workload, shape.row, shape.vocabulary, count=given.steps * given.batch, tokens=needed
    )
    began = time.perf_counter()
    model = load(given)
    loaded = time.perf_counter() - began
    seconds: list[float] = []
    seen: list[Any] = []
    first: list[float] = []

    class Clock(transformers.TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            measure.synchronize()
            self.started = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            measure.synchronize()
            seconds.append(time.perf_counter() - self.started)
            first.append(measure.since_start())

    with tempfile.TemporaryDirectory() as out:
        training = trainer(given, model, examples, out, Clock())
        step = training.training_step

        def counted(model: Any, inputs: Any, *rest: Any, **named: Any) -> Any:
            seen.append(real_tokens(inputs))
            return step(model, inputs, *rest, **named)

        training.training_step = counted
        measure.forget_peak()
        training.train()
        held = training.train_dataset
    if len(seen) == len(seconds):
        tokens = [float(count) for count in seen]
    else:
        # a trainer that does not call its own training_step: the mean over the data
        tokens = [sum(map(len, held["input_ids"])) / len(held) * given.batch] * len(seconds)
    losses = [entry["loss"] for entry in training.state.log_history if "loss" in entry]
    return {
        "system": given.peer,
        "shape": given.shape,
        "workload": given.workload,
        "batch": given.batch,
        "packing": given.packing,
        "recompute": given.recompute,
        "rank": given.rank,
        "dropout": 0.0,
        **measure.speed(tokens, seconds),
        **measure.memory(),
        "loss": [round(float(loss), 4) for loss in (losses[0], losses[-1])],
        "load_seconds": round(loaded, 1),
        "first_step_seconds": round(first[0], 1),
        **measure.facts(),
    }


if __name__ == "__main__":
    asked = parsed()
    if asked.peer == "unsloth":
        # it replaces parts of transformers and trl, which must not be loaded yet
        import unsloth  # noqa: F401
    measure.emit(run(asked))
