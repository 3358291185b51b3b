"""How a report was made, in words: by which model, when, with which encoder and which software."""

import math

from wsi_mivpg.reports.report import Report


def made_by(report: Report) -> list[tuple[str, str]]:
    """Return the rows of the table 'How this was made', in reading order; what is not known is left out."""
    made = report.provenance
    rows: list[tuple[str, str | None]] = [("Written", made.created)]
    rows += [(_label(key), None if value is None else _plain(value)) for key, value in report.model.items()]
    rows.append(("Tile encoder", made.encoder))
    rows.append(("Encoder weights (sha256)", made.encoder_weights_sha256))
    if report.mean_logprob is not None:
        probability = math.exp(min(report.mean_logprob, 0.0))  # a file may claim anything
        rows.append(
            (
                "Mean log-probability of a token",
                f"{report.mean_logprob:.3f} (probability {probability:.2f}); how fluent the model found "
                "its own text, not how likely it is to be right",
            )
        )
    rows.append(("Weights of tiles and sentences", report.evidence))
    rows.append(("Time taken", None if made.seconds is None else f"{made.seconds:.1f}\u202fs"))
    rows.append(("Software", ", ".join(f"{name} {version}" for name, version in made.versions.items()) or None))
    return [(label, value) for label, value in rows if value]


def _label(key: str) -> str:
    words = key.replace("_", " ")
    return "Report model" if words in ("name", "model") else words[:1].upper() + words[1:]


def _plain(value: str | int | float | bool) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)
