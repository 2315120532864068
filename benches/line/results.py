"""What was measured, part by part, in one file: what is measured again replaces what it was measured of, no more."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


class Results:
    """The parts that are known."""

    def __init__(self, path: Path):
        self._path = path
        self.parts: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}

    def put(self, name: str, part: dict[str, Any]) -> None:
        """Take a part, and keep it in the file; of the matrix the pulls that were not made again stay."""
        if name == "matrix" and name in self.parts:
            part = merged(self.parts[name], part)
        self.parts[name] = part
        self._path.write_text(json.dumps(self.parts, indent=1), encoding="utf-8")


def merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Return the pulls of both, where both have a link, statement and peer those of the new one; in a steady order."""

    def cell(pull: dict) -> tuple[str, str, str]:
        return pull["link"], pull["statement"], pull["peer"]

    again = {cell(pull) for pull in new["pulls"]}
    pulls = [pull for pull in old["pulls"] if cell(pull) not in again] + new["pulls"]
    # Rows of one table stand together, whenever they were measured.
    order = {"link": {}, "statement": {}, "peer": {}}
    for pull in [*old["pulls"], *new["pulls"]]:
        for key, places in order.items():
            places.setdefault(pull[key], len(places))
    pulls.sort(key=lambda pull: tuple(places[pull[key]] for key, places in order.items()))
    # Who is there now is not absent any more.
    absent = {name: why for name, why in old["absent"].items() if name not in again}
    return {**new, "pulls": pulls, "absent": {**absent, **new["absent"]}}
