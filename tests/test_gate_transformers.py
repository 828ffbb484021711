"""The callback for the Trainer of transformers, in real trainers with small models made from their configurations."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import initlint

transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")

from initlint.integrations.transformers import InitlintCallback  # noqa: E402


def gpt(broken: bool = False) -> Any:
    sizes = {"vocab_size": 101, "n_positions": 32, "n_embd": 32, "n_layer": 2, "n_head": 2}
    torch.manual_seed(0)
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes, bos_token_id=0, eos_token_id=0))
    if broken:
        nn.init.constant_(model.transformer.h[1].mlp.c_proj.weight, torch.nan)
    return model


def texts() -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(0, 101, (64, 16), generator=generator)
    return [{"input_ids": row, "labels": row} for row in rows]


class Seen(transformers.TrainerCallback):  # type: ignore[misc, name-defined]
    def __init__(self) -> None:
        self.losses: list[float] = []

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        self.losses += [logs["loss"]] if "loss" in logs else []


def train(
    folder: Path, model: Any, *callbacks: Any, data: Any = None, resume: str | None = None, saves: bool = False
) -> list[float]:
    arguments = transformers.TrainingArguments(
        str(folder), max_steps=3, per_device_train_batch_size=8, logging_steps=1, report_to=[], use_cpu=True,
        save_strategy="steps" if saves else "no", save_steps=2, disable_tqdm=True, seed=1,
    )  # fmt: skip
    seen = Seen()
    trainer = transformers.Trainer(model, arguments, train_dataset=data or texts(), callbacks=[*callbacks, seen])
    try:
        trainer.train(resume_from_checkpoint=resume)
    except initlint.FindingsError:
        assert (trainer.state.global_step, seen.losses) == (0, [])
        raise
    return seen.losses


GATES = [
    {},
    {"real_batch": True},
    {"batch": {name: torch.stack([row[name] for row in texts()]) for name in texts()[0]}},
]


@pytest.mark.parametrize("options", GATES)
def test_a_healthy_run_is_the_same_with_and_without_the_gate(options: dict[str, Any], tmp_path: Path) -> None:
    gated = train(tmp_path, gpt(), InitlintCallback(**options))
    assert len(gated) == 3
    assert gated == train(tmp_path, gpt())


@pytest.mark.parametrize("options", GATES)
def test_a_broken_run_ends_before_its_first_step(options: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(initlint.FindingsError, match=r"non-finite-weights  transformer\.h\.1\.mlp\.c_proj\.weight"):
        train(tmp_path, gpt(broken=True), InitlintCallback(**options))


@pytest.fixture
def reports(monkeypatch: pytest.MonkeyPatch) -> list[initlint.Report]:
    """What the gate saw, as it comes."""
    seen: list[initlint.Report] = []
    passed = initlint.integrations.gates.passed
    monkeypatch.setattr(
        "initlint.integrations.gates.passed", lambda report, how: seen.append(report) or passed(report, how)
    )
    return seen


@pytest.mark.parametrize(("options", "loss"), [(GATES[0], "random-linear"), (GATES[1], "given"), (GATES[2], "given")])
def test_the_models_own_loss_is_taken_where_the_batch_has_labels(
    options: dict[str, Any], loss: str, tmp_path: Path, reports: list[initlint.Report]
) -> None:
    train(tmp_path, gpt(), InitlintCallback(**options))
    assert [(report.probe.forward, report.probe.loss) for report in reports] == [("measured", loss)]


def test_findings_may_be_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train(tmp_path, gpt(broken=True), InitlintCallback(on_findings="warn"))
    assert "non-finite-weights" in caplog.text


def test_a_resumed_run_is_not_checked(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "initlint")
    train(tmp_path, gpt(), saves=True)
    train(tmp_path, gpt(broken=True), InitlintCallback(), resume=str(tmp_path / "checkpoint-2"))
    said = [record.getMessage() for record in caplog.records if record.name == "initlint"]
    assert said == ["initlint did not check the model: the run is resumed"]


def test_labels_that_the_collator_makes_are_found(tmp_path: Path, reports: list[initlint.Report]) -> None:
    """A classifier; its rows hold a plain number each, and the default collator names it labels."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config = transformers.BertConfig(vocab_size=101, num_labels=3, **sizes)
    model = transformers.BertForSequenceClassification(config)
    rows = [{"input_ids": row["input_ids"], "label": number % 3} for number, row in enumerate(texts())]
    assert len(train(tmp_path, model, InitlintCallback(real_batch=True, fail_on="note"), data=rows)) == 3
    assert [(report.probe.forward, report.probe.loss) for report in reports] == [("measured", "given")]
