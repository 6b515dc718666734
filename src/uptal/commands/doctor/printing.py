"""Findings by name, a line each, and problems as a list below; what they mean is known where they come from."""

from __future__ import annotations

import json
from typing import Any


def show(findings: dict[str, Any], subject: str) -> tuple[dict[str, Any], str]:
    """Prints the findings; returns them with the reason to fail, which is that there are `problems`."""
    for key, value in findings.items():
        if key != "problems":
            print(f"{key:<14}{json.dumps(value) if isinstance(value, (list, dict)) else value}")
    problems = findings.get("problems", [])
    for problem in problems:
        print(f"- {problem}")
    count = len(problems)
    found = "1 problem is" if count == 1 else f"{count} problems are"
    return findings, f"{subject}: {found} listed above." if problems else ""
