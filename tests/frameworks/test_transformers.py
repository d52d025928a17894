"""Hugging Face's Trainer, with tiny models of random weights, and with peft's LoRA."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("transformers")


from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    Trainer,
    TrainingArguments,
)

import plain_loop as plain
from clr_native import FusedCyclicSGD

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # of transformers, about itself

BATCH, LENGTH = 4, 6


def bert() -> Any:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=20, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, num_labels=2
    )
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.0
    return BertForSequenceClassification(config)


def gpt2() -> Any:
    torch.manual_seed(0)
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=20, n_embd=16, n_layer=1, n_head=2, n_positions=8, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0
        )
    )


def lora() -> Any:
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    return peft.get_peft_model(gpt2(), peft.LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True))


MODELS = {"bert": bert, "gpt2": gpt2, "lora": lora}


def examples(name: str, count: int = plain.BATCHES * BATCH) -> list[dict[str, Any]]:
    tokens = torch.randint(0, 20, (count, LENGTH), generator=torch.Generator().manual_seed(2))
    return [{"input_ids": row, "labels": row[0] % 2 if name == "bert" else row} for row in tokens]


class InOrder(Trainer):
    """Takes batches in their order, as the plain loop does."""

    def _get_train_sampler(self, *_: Any) -> Any:
        return torch.utils.data.SequentialSampler(self.train_dataset)


def arguments(folder: Path, **settings: Any) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=plain.EPOCHS,
        per_device_train_batch_size=BATCH,
        logging_steps=1,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        **{"save_strategy": "no", "max_grad_norm": 0.0} | settings,
    )


def trainable(model: Any) -> list[torch.Tensor]:
    return [p for p in model.parameters() if p.requires_grad]


def fused(model: Any, **settings: Any) -> FusedCyclicSGD:
    return FusedCyclicSGD(trainable(model), schedule=plain.SCHEDULE, **settings)


def trainer(name: str, folder: Path, model: Any = None, **settings: Any) -> InOrder:
    model = MODELS[name]() if model is None else model
    optimizer = fused(model)
    return InOrder(
        model,
        arguments(folder, **settings),
        train_dataset=examples(name),
        optimizers=(optimizer, optimizer.as_scheduler()),
    )


def plainly_trained(name: str, max_norm: float | None = None, dtype: torch.dtype | None = None) -> Any:
    model = MODELS[name]().train()
    optimizer = fused(model)
    rows = examples(name)
    for step in range(plain.STEPS):
        batch = rows[step % plain.BATCHES * BATCH :][:BATCH]
        given = {key: torch.stack([row[key] for row in batch]) for key in batch[0]}
        if name != "bert":  # for a loss of tokens the Trainer divides by their number itself
            given["num_items_in_batch"] = torch.tensor(float(given["labels"].numel()))
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None):
            loss = model(**given).loss
        loss.backward()
        if max_norm is not None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm)
        optimizer.step()
    return model


def logged(made: Trainer) -> list[float]:
    return [row["learning_rate"] for row in made.state.log_history if "learning_rate" in row]


@pytest.mark.parametrize("name", MODELS)
def test_weights_and_logs_are_the_plain_loops(name: str, tmp_path: Path) -> None:
    made = trainer(name, tmp_path)
    made.train()
    plain.assert_same(made.model, plainly_trained(name))
    assert logged(made) == plain.RATES[:-1]


@pytest.mark.parametrize("settings", [{"max_grad_norm": 0.1}, {"bf16": True}], ids=str)
def test_clipping_and_bfloat16(settings: dict[str, Any], tmp_path: Path) -> None:
    made = trainer("bert", tmp_path, **settings)
    made.train()
    expected = plainly_trained("bert", settings.get("max_grad_norm"), torch.bfloat16 if "bf16" in settings else None)
    plain.assert_same(made.model, expected)


def test_accumulation_updates_once_for_several_batches(tmp_path: Path) -> None:
    made = trainer("bert", tmp_path, gradient_accumulation_steps=4)
    made.train()
    assert made.optimizer.optimizer.applied_steps == plain.STEPS // 4
    assert logged(made) == plain.RATES[: plain.STEPS // 4]


def test_a_run_resumed_in_mid_cycle_is_the_unbroken_one(tmp_path: Path) -> None:
    whole = trainer("gpt2", tmp_path / "whole")
    whole.train()
    trainer("gpt2", tmp_path / "cut", save_strategy="steps", save_steps=25, max_steps=25).train()
    resumed = trainer("gpt2", tmp_path / "cut")
    resumed.train(resume_from_checkpoint=str(tmp_path / "cut" / "checkpoint-25"))
    plain.assert_same(resumed.model, whole.model)
    assert logged(resumed)[-35:] == plain.RATES[25:-1]


def test_the_class_and_its_arguments_are_enough(tmp_path: Path) -> None:
    """The Trainer then passes lr=, betas aside, and makes a scheduler: bounds win over the rate, and it warns."""
    settings = {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 7}
    made = InOrder(
        bert(),
        arguments(tmp_path, lr_scheduler_type="constant"),
        train_dataset=examples("bert"),
        optimizer_cls_and_kwargs=(FusedCyclicSGD, settings),
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        made.train()
    said = [str(warning.message) for warning in caught if "something else has written lr" in str(warning.message)]
    assert len(said) == 1
    assert "before 10 updates in a row" in said[0]
    assert "optimizer.as_scheduler()" in said[0]


def test_without_the_scheduler_trainers_own_is_warned_of_by_the_eleventh_update(tmp_path: Path) -> None:
    model = bert()
    made = InOrder(model, arguments(tmp_path), train_dataset=examples("bert"), optimizers=(fused(model), None))
    with pytest.warns(UserWarning, match=r"before 10 updates in a row.*as_scheduler\(\)"):
        made.train()


def test_a_rate_by_itself_is_driven_by_trainers_schedulers(tmp_path: Path) -> None:
    def run(make: Any) -> Any:
        model = bert()
        made = InOrder(model, arguments(tmp_path), train_dataset=examples("bert"), optimizers=(make(model), None))
        made.train()
        return made.model

    ours = run(lambda model: FusedCyclicSGD(trainable(model), lr=0.05))
    theirs = run(lambda model: torch.optim.SGD(trainable(model), lr=0.05, momentum=0.9))
    plain.assert_same(ours, theirs)
