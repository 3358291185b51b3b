"""The evaluation as one HTML page that needs no network: figures, intervals, and the worst cases to read."""

from difflib import SequenceMatcher
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from wsi_mivpg.evaluation.study import Study
from wsi_mivpg.evaluation.tables import cell, difference_rows, headline, metric_groups, number, reasons, verdict

_LONGEST_DIFF = 2_000


def evaluation_page(study: Study) -> str:
    """Return the page. All text is escaped; it has no script."""
    return (
        _environment()
        .get_template("evaluation.html.j2")
        .render(
            study=study,
            headline=headline(study),
            groups=metric_groups(study),
            differences=difference_rows(study),
            reasons=reasons(study),
        )
    )


def marked(text: str, other: str) -> Markup:
    """Return `text` with the words that `other` does not have at that place marked; very long texts stay plain."""
    own, theirs = text.split(), other.split()
    if max(len(own), len(theirs)) > _LONGEST_DIFF:
        return escape(text)
    parts = []
    blocks = SequenceMatcher(None, [w.lower() for w in own], [w.lower() for w in theirs], autojunk=False).get_opcodes()
    for kind, start, end, _, _ in blocks:
        words = escape(" ".join(own[start:end]))
        if words:
            parts.append(words if kind == "equal" else Markup("<mark>{}</mark>").format(words))
    return Markup(" ").join(parts)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("wsi_mivpg.evaluation", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(cell=cell, number=number, verdict=verdict)
    environment.globals["marked"] = marked
    return environment
