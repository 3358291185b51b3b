"""A report as plain text, as Markdown (CommonMark) and as plain XHTML; what it says is `document`'s."""

import html
import re

from wsi_mivpg.reports.forms.document import printable, sections, shown_lines, status_lines
from wsi_mivpg.reports.report import Report

_ENTITIES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
_MARKS = re.compile(r"([\\`*_{}\[\]#|~])")
_AT_THE_START = re.compile(r"^(\d{1,9}(?=[.)])|(?=[-+=]))")


def plain_text(report: Report) -> str:
    """Return the report for people to read in any editor or mail."""
    title = _one_line(report.case_id)
    lines = [title, "=" * len(title), *status_lines(report), "", *shown_lines(report)]
    for section in sections(report):
        lines += ["", section.title, *(f"  - {line}" for line in section.lines)]
    return "\n".join(lines) + "\n"


def markdown(report: Report) -> str:
    """Return the report as CommonMark; nothing that a model wrote is taken for markup."""
    status = [f"**{_escaped(line)}**" for line in status_lines(report)]
    text = [_escaped(line) for line in shown_lines(report)]
    lines = [f"# {_escaped(_one_line(report.case_id))}", "", "  \n".join(status), "", _with_breaks(text)]
    for section in sections(report):
        lines += ["", f"## {section.title}", "", *(f"- {_escaped(line)}" for line in section.lines)]
    return "\n".join(lines) + "\n"


def xhtml(report: Report) -> str:
    """Return the report as one well-formed XHTML ``div`` without scripts, styles and links, as FHIR narratives are."""
    parts = [f"<h1>{_xml(_one_line(report.case_id))}</h1>"]
    parts += [f"<p><b>{_xml(line)}</b></p>" for line in status_lines(report)]
    parts.append(f"<p>{'<br/>'.join(_xml(line) for line in shown_lines(report))}</p>")
    for section in sections(report):
        items = "".join(f"<li>{_xml(line)}</li>" for line in section.lines)
        parts.append(f"<h2>{section.title}</h2><ul>{items}</ul>")
    return f'<div xmlns="http://www.w3.org/1999/xhtml">{"".join(parts)}</div>'


def _one_line(text: str) -> str:
    return " ".join(printable(text).split())


def _with_breaks(lines: list[str]) -> str:
    """Return lines with hard breaks between them; an empty line ends a paragraph."""
    return "\n".join(
        f"{line}  " if line and after else line for line, after in zip(lines, [*lines[1:], ""], strict=True)
    )


def _escaped(line: str) -> str:
    escaped = _MARKS.sub(r"\\\1", line.strip().translate(_ENTITIES))
    return _AT_THE_START.sub(lambda found: f"{found[0]}\\", escaped)


def _xml(text: str) -> str:
    return html.escape(text, quote=False)
