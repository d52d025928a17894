"""Writes suggestions.json: the index that each of fastai's rules picks on each curve, or the error it raises.

    pip install "fastai==2.8.*" && (cd tests && python -m golden.make_suggestions)

fastai answers with a rate; rates of a curve are distinct, so the index is where the curve has it.
"""

from __future__ import annotations

import json
from pathlib import Path

import fastai
import torch
from fastai.callback import schedule

from golden.curves import curves

RULES = ("valley", "steep", "slide", "minimum")


def picked(rule: str, lr: torch.Tensor, loss: torch.Tensor) -> int | str:
    try:
        _, (rate, _) = getattr(schedule, rule)(lr, loss, len(lr))
    except Exception as error:  # whatever it raises is the answer
        return type(error).__name__
    (index,) = (lr == rate).nonzero().flatten().tolist()
    return int(index)


def main() -> None:
    answers = {
        name: {rule: picked(rule, torch.tensor(lr), torch.tensor(loss)) for rule in RULES}
        for name, lr, loss in curves()
    }
    text = ",\n".join(f"{json.dumps(name)}: {json.dumps(answer)}" for name, answer in answers.items())
    heading = json.dumps(f"fastai {fastai.__version__}, torch {torch.__version__}")
    Path(__file__).with_name("suggestions.json").write_text(f'{{"made with": {heading},\n{text}}}\n', encoding="utf-8")


if __name__ == "__main__":
    main()
