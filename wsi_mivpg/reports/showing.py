"""How a report shows itself in a notebook: its text, what to beware of, and on what it stands."""

import html
from typing import TYPE_CHECKING

from wsi_mivpg.notebook_cards import thousands
from wsi_mivpg.reports.trusting import verdict

if TYPE_CHECKING:
    from wsi_mivpg.reports.report import Report, Sentence

_SOFT = "opacity:.72;font-size:12.5px"
_WARNING = "border-left:4px solid #d09a1c;padding:2px 10px;margin:4px 0"


def report_card(report: "Report") -> str:
    """Return the report as HTML; all that it says goes in as text."""
    n_tiles = sum(slide.n_tiles for slide in report.slides)
    facts = [f"{len(report.slides)} slide{'' if len(report.slides) == 1 else 's'}, {thousands(n_tiles)} tiles"]
    if name := report.model.get("name"):
        facts.append(f"model {name}")
    if report.provenance.encoder:
        facts.append(f"encoder {report.provenance.encoder}")
    facts.append(f"written {report.provenance.created}")
    said = verdict(report)
    gates = "" if said is None else f'<div style="{_SOFT}">{html.escape(said.headline)}</div>'
    warnings = "".join(f'<div style="{_WARNING}">{html.escape(warning)}</div>' for warning in report.warnings)
    return (
        '<div style="max-width:760px;line-height:1.5;overflow-wrap:anywhere">'
        f"<b>{html.escape(report.case_id)}</b>"
        f'<div style="font-size:16px;margin:4px 0 8px;white-space:pre-line">{_text(report)}</div>{gates}{warnings}'
        f'<div style="{_SOFT}">{html.escape(" · ".join(facts))}</div>'
        f'<div style="{_SOFT}">{html.escape(report.disclaimer)}</div></div>'
    )


def _text(report: "Report") -> str:
    """The text as it is shown, with a remark behind each sentence whose map was measured and found wanting."""
    if not report.text.strip():
        return f'<i style="{_SOFT}">The model wrote no text.</i>'
    parts, at = [], 0
    for sentence in sorted(report.sentences, key=lambda one: one.start):
        parts.append(html.escape(report.text[at : sentence.start] + sentence.shown_text))
        at = max(at, sentence.end)
        parts.append(_remark(sentence))
    return "".join([*parts, html.escape(report.text[at:])]).strip()


def _remark(sentence: "Sentence") -> str:
    if sentence.faithfulness is None or sentence.faithfulness.better_than_random:
        return ""
    words = f"[its {sentence.method} map is no better than random tiles]"
    return f' <span style="{_SOFT}">{html.escape(words)}</span>'
