"""Settings as other trainers call them, and what to write here: who comes from one is not left to guess.

The nearest of our own names would mislead: it is `warmup_steps` for `gradient_accumulation_steps`.
"""

from __future__ import annotations

from collections.abc import Mapping

_STEP = "A step is training.batch_size rows, however it is cut (engine.micro_tokens)."
_TYPE = "The base's type is chosen by quantization.bnb_4bit_compute_dtype; the rest follows."
_SHUFFLED = "Rows are always shuffled."
_ALONE = "Answers alone are learned, always."
_BASE = "Write base.path."
_LENGTH = "Write data.max_length."
_BATCH = "Write training.batch_size (rows of one step on each GPU)."
_RATE = "Write training.learning_rate."
_EPOCHS = "Write training.epochs."
_TEMPLATE = "Write template."
_TRAIN = "Write data.train."
_LAUNCH = "Several GPUs each hold the whole base: see accelerate launch in docs/ko/training.md."
_LOCAL = "Nothing is reported to a server: runs/NAME/metrics.jsonl has it."

ELSEWHERE: Mapping[str, str] = {
    # rows and steps
    "gradient_accumulation_steps": _STEP,
    "gradient_accumulation": _STEP,
    "micro_batch_size": _STEP,
    "per_device_train_batch_size": _BATCH,
    "train_batch_size": _BATCH,
    "num_train_epochs": _EPOCHS,
    "num_epochs": _EPOCHS,
    "max_train_steps": "Write training.max_steps.",
    "group_by_length": _SHUFFLED,
    "shuffle": _SHUFFLED,
    "sample_packing": "Write data.packing.",
    "max_seq_length": _LENGTH,
    "max_seq_len": _LENGTH,
    "sequence_len": _LENGTH,
    "cutoff_len": _LENGTH,
    "model_max_length": _LENGTH,
    # optimizer
    "lr": _RATE,
    "lr_scheduler_type": "Write training.schedule.",
    "lr_scheduler": "Write training.schedule.",
    "warmup_ratio": "Write training.warmup_steps.",
    "optim": "Write training.optimizer.",
    "gradient_clipping": "Write training.max_grad_norm.",
    # types and memory
    "fp16": _TYPE,
    "bf16": _TYPE,
    "tf32": _TYPE,
    "torch_dtype": _TYPE,
    "gradient_checkpointing": "Write engine.recompute.",
    "flash_attention": "Write engine.attention.",
    "flash_attn": "Write engine.attention.",
    "attn_implementation": "Write engine.attention.",
    "deepspeed": _LAUNCH,
    "fsdp": _LAUNCH,
    "fsdp_config": _LAUNCH,
    "ddp_find_unused_parameters": _LAUNCH,
    "device_map": _LAUNCH,
    # LoRA
    "target_modules": "Write lora.targets.",
    "lora_target": "Write lora.targets.",
    "lora_target_modules": "Write lora.targets.",
    "lora_r": "Write lora.r.",
    "lora_rank": "Write lora.r.",
    "lora_alpha": "Write lora.alpha.",
    "lora_dropout": "Write lora.dropout.",
    "lora_modules_to_save": "LoRA matrices alone are trained: servers refuse whole modules beside them.",
    "modules_to_save": "LoRA matrices alone are trained: servers refuse whole modules beside them.",
    "fan_in_fan_out": "It is false for linear layers, always.",
    # base, data, template
    "base_model": _BASE,
    "model_name_or_path": _BASE,
    "model_id": _BASE,
    "datasets": _TRAIN,
    "dataset": _TRAIN,
    "dataset_name": _TRAIN,
    "train_file": _TRAIN,
    "data_path": _TRAIN,
    "val_set_size": "`koalpaca data prepare --valid-share` splits; write data.valid.",
    "chat_template": _TEMPLATE,
    "prompt_template": _TEMPLATE,
    "train_on_inputs": _ALONE,
    "train_on_input": _ALONE,
    "completion_only_loss": _ALONE,
    "assistant_only_loss": _ALONE,
    "mask_prompt": _ALONE,
    # output
    "output_dir": "Write out.",
    "logging_steps": "Write training.log_every.",
    "eval_steps": "Write training.eval_every.",
    "save_steps": "Write training.checkpoint_every.",
    "save_total_limit": "Write training.keep_checkpoints.",
    "load_best_model_at_end": "The best checkpoint is kept beside the newest ones.",
    "resume_from_checkpoint": "Use `koalpaca train ... --resume`.",
    "push_to_hub": "Use `koalpaca hub push` after the run.",
    "report_to": _LOCAL,
    "wandb_project": _LOCAL,
}
"""Name of a key, wherever it stands -> what to write, or how it is here."""
