"""The published JSON Schema of a report: ``python -m wsi_mivpg.reports.schema > docs/report.schema.json``."""

import json
from typing import Any

from wsi_mivpg.reports.report import SCHEMA, Report


def report_schema() -> dict[str, Any]:
    """Return the schema (draft 2020-12) of one report: of a `<case>.json`, and of a line of `reports.jsonl`."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:{SCHEMA.replace('/', ':')}",
        **Report.model_json_schema(mode="serialization"),
    }


if __name__ == "__main__":
    print(json.dumps(report_schema(), indent=1, ensure_ascii=False))
