"""How good the reports are that the model writes during training: metrics on validation cases, and samples to read."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.utils import gather_object

from wsi_mivpg.captioner import Generated, SlideCaptioner
from wsi_mivpg.cohorts.case import Case
from wsi_mivpg.evaluation import cider, extract_fields, text_scores
from wsi_mivpg.training.data import Example

SHOWN = 2
_EXTENT_TOLERANCE = 10  # percentage points


class WrittenReports:
    """Lets the model write the reports of validation cases, scores them and keeps them."""

    def __init__(
        self,
        cases: Sequence[Case],
        examples: Sequence[Example],
        *,
        scored: bool,
        file: Path,
        seed: int,
        note: Callable[[str], None],
    ) -> None:
        """Keep what is needed at each call.

        Args:
            cases: the cases to write reports for.
            examples: their opened bags, in the same order.
            scored: compute metrics; else two reports are written as samples and nothing is computed.
            file: JSON Lines that every call adds its reports to.
            seed: for models that write by sampling.
            note: is told two samples.

        Raises:
            TextsError: metrics are asked for and their toolkit is not installed.
        """
        self.cases = list(cases if scored else cases[:SHOWN])
        self.examples = list(examples)[: len(self.cases)]
        self.scored, self.file, self.seed, self.note = scored, file, seed, note
        if scored:
            text_scores({"": "a"}, {"": ["a"]})  # says now, not after hours, that the toolkit is missing

    def __call__(self, captioner: SlideCaptioner, step: int) -> dict[str, float]:
        """Return metrics, the same in every process; each process writes its share of the reports."""
        process = PartialState()
        share = range(process.process_index, len(self.cases), process.num_processes)
        captioner.train(False)
        own = captioner.generate(
            [captioner.read(self.examples[index].case_id, self.examples[index].bags) for index in share], seed=self.seed
        )
        pairs = [(index, _record(made)) for index, made in zip(share, own, strict=True)]
        made = dict(gather_object(pairs) if process.num_processes > 1 else pairs)
        texts = {case.case_id: made[index]["text"] for index, case in enumerate(self.cases)}
        if process.is_main_process:
            self._keep(step, made)
        return scores(texts, {case.case_id: case.reports for case in self.cases}) if self.scored else {}

    def _keep(self, step: int, made: dict[int, dict[str, Any]]) -> None:
        with self.file.open("a", encoding="utf-8") as stream:
            for index, case in enumerate(self.cases):
                record = {"step": step, "case_id": case.case_id, **made[index], "reference": case.reports[0]}
                stream.write(json.dumps(record, ensure_ascii=False) + "\n")
        for index, case in list(enumerate(self.cases))[:SHOWN]:
            flags = f" ({', '.join(made[index]['flags'])})" if made[index]["flags"] else ""
            self.note(f"step {step}, {case.case_id}{flags}: {made[index]['text']}\n  reference: {case.reports[0]}")


def _record(made: Generated) -> dict[str, Any]:
    return {"text": made.text, "flags": list(made.flags)}


def scores(texts: dict[str, str], references: dict[str, tuple[str, ...]]) -> dict[str, float]:
    """Return BLEU-4 and ROUGE-L (0..1), CIDEr (0..10), fields (0..1), and the share of different texts (0..1)."""
    found = text_scores(texts, references)
    return {
        "bleu_4": found["bleu_4"],
        "rouge_l": found["rouge_l"],
        "cider": cider(texts, references),
        "fields": field_agreement(texts, references),
        "distinct": len(set(texts.values())) / len(texts),
    }


def field_agreement(texts: dict[str, str], references: dict[str, tuple[str, ...]]) -> float:
    """Return the share of the facts of the first references that the texts state too; 0 where they state none.

    Percentages may be 10 points apart.
    """
    agreed = stated = 0
    for name, text in texts.items():
        wanted, said = vars(extract_fields(references[name][0])), vars(extract_fields(text))
        for field, value in wanted.items():
            if value is None:
                continue
            stated += 1
            if field == "extent_percent":
                agreed += said[field] is not None and abs(said[field] - value) <= _EXTENT_TOLERANCE
            else:
                agreed += said[field] == value
    return agreed / stated if stated else 0.0
