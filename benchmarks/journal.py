"""What a run of `latency` or `scaling` leaves behind if it is stopped."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from lpips_runtime.errors import UsageError
from lpips_runtime.output import reported
from lpips_runtime.resume import alone
from lpips_runtime.say import say

from .schema import Cell

__all__ = ["Journal"]


class Journal:
    """The cells of a run that is not done, beside its report: one line for each step, so that a run that was stopped
    goes on after the last whole one; and the best of the machine's limits that were measured in it. A context, in which
    no other process writes it, and which removes it unless an exception leaves steps to go on with.

    Raises UsageError if the file belongs to another call, OutputError if it cannot be written.
    """

    def __init__(self, report: Path, call: Mapping[str, Any]) -> None:
        self.path = report.with_name(f".{report.name}.unfinished")
        self.steps: dict[str, list[Cell]] = {}
        self.limits: dict[str, float | None] = {}
        self.began: list[str] = []
        self._call = call

    def __enter__(self) -> Journal:
        with ExitStack() as stack:
            stack.enter_context(alone(self.path))
            with reported(self.path):
                self._read()
            self._lock = stack.pop_all()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None or not self.steps:
            self.done()
        else:
            say(f"steps measured so far: {len(self.steps)}, kept in {self.path}; the same command goes on after them")
        self._lock.close()

    def _read(self) -> None:
        found = self.path.read_bytes() if self.path.exists() else b""
        # A line that was torn off has no end: that step is measured again.
        lines = [line for line in found.splitlines(keepends=True) if line.endswith(b"\n")]
        if lines and lines[0].strip() != json.dumps(self._call, sort_keys=True).encode():
            raise UsageError(
                f"{self.path}: was left by another call, machine or version; delete it, or name another file with -o"
            )
        try:
            for entry in map(json.loads, lines[1:]):
                if "limits" in entry:
                    self._better(entry["limits"])
                elif "began" in entry:
                    self.began.append(entry["began"])
                else:
                    self.steps[entry["step"]] = entry["cells"]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UsageError(
                f"{self.path}: is damaged: {error}; delete it, and what it holds is measured again"
            ) from error
        if found:
            os.truncate(self.path, sum(map(len, lines)))
        if not lines:
            self._append(self._call)

    def add(self, step: str, cells: list[Cell]) -> None:
        self._append({"step": step, "cells": cells})
        self.steps[step] = cells

    def add_beginning(self, words: str) -> None:
        """Of each of the pieces that a run was stopped between: when it began, and what was said of the machine."""
        self._append({"began": words})
        self.began.append(words)

    def add_limits(self, limits: Mapping[str, float | None]) -> None:
        """What a machine does varies with what else it has to do: of several measurements the best counts."""
        self._append({"limits": limits})
        self._better(limits)

    def _better(self, limits: Mapping[str, float | None]) -> None:
        for name, rate in limits.items():
            self.limits[name] = max(filter(None, (rate, self.limits.get(name))), default=None)

    def _append(self, entry: Mapping[str, Any]) -> None:
        with reported(self.path), open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(entry, sort_keys=True) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def done(self) -> None:
        """The report is written."""
        self.path.unlink(missing_ok=True)
