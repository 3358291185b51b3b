"""What a page says of trust: the gates in words, and a sentence in the parts that are marked as unverified.

Plain values from a `Report`; no markup, and nothing is decided here.
"""

from dataclasses import dataclass

from wsi_mivpg.reports.report import NOT_ASSESSABLE, Report, Sentence

_STATES = {True: "passed", False: "shut", None: "unknown"}
_WORDS = {"passed": "passed", "shut": "not passed", "unknown": "not calibrated"}


@dataclass(frozen=True)
class Verdict:
    """What stands above the text: its state ("passed", "shut" or "unknown"), a headline, and a line for each gate.

    Attributes:
        state: of the worst gate.
        headline: for the reader.
        gates: (name, state, the state in words, explanation).
    """

    state: str
    headline: str
    gates: tuple[tuple[str, str, str, str], ...]


def verdict(report: Report) -> Verdict | None:
    """Return what the gates say of a report; None where there are none."""
    if not report.gates:
        return None
    states = [_STATES[gate.passed] for gate in report.gates]
    state = next((one for one in ("shut", "unknown") if one in states), "passed")
    slides = "this slide" if len(report.slides) == 1 else "these slides"
    headline = {
        "shut": f"Not supported by {slides}",
        "unknown": f"Whether {slides} support{'s' if len(report.slides) == 1 else ''} this report is not known",
        "passed": "Passed the model's trust gates",
    }[state]
    if any(one == "passed" for one in states) and state == "unknown":
        headline = "Passed those trust gates that are calibrated"
    gates = [
        (f"{gate.name[:1].upper()}{gate.name[1:]}", one, _WORDS[one], gate.explanation)
        for gate, one in zip(report.gates, states, strict=True)
    ]
    return Verdict(state, headline, tuple(gates))


def parts(report: Report, sentence: Sentence) -> list[tuple[str, bool]]:
    """Return a sentence as it is shown: (characters, whether they are a number that nothing vouches for)."""
    if not sentence.assessable:
        return [(NOT_ASSESSABLE, False)]
    found, at = [], sentence.start
    for start, end in sentence.unverified_numbers:
        found += [(report.text[at:start], False), (report.text[start:end], True)]
        at = end
    return [(text, marked) for text, marked in (*found, (report.text[at : sentence.end], False)) if text]
