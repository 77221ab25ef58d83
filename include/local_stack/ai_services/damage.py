"""What faults do to the rows of a job's output. It is the same every time: a job that is computed again is the same.

Rows are numbered from 1 in each output.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from include.local_stack.ai_services.faults import Fault, FaultKind

Row = TypeVar("Row")
_OF_THE_FILE = {FaultKind.MISSING, FaultKind.DUPLICATE, FaultKind.REORDER, FaultKind.TRUNCATE}


class Damage:
    """The faults of one job, asked by its computation."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self._every = {fault.fault: fault.every for fault in faults}

    def fails(self, number: int) -> bool:
        """Whether this row becomes an error."""
        return self._strikes(FaultKind.PARTIAL, number)

    def dropped(self, number: int) -> int:
        """How many numbers the vectors of this row lack at their end."""
        return int(self._strikes(FaultKind.WRONG_DIMENSION, number))

    @property
    def truncates(self) -> bool:
        """Whether the output ends in the middle of its last row."""
        return FaultKind.TRUNCATE in self._every

    def rearranged(self, rows: Iterable[Row]) -> Iterator[Row]:
        """The rows as they are written: some left out, some twice, or from the last to the first."""
        if FaultKind.REORDER in self._every:
            rows = reversed(list(rows))
        for number, row in enumerate(rows, 1):
            if not self._strikes(FaultKind.MISSING, number):
                yield row
                if self._strikes(FaultKind.DUPLICATE, number):
                    yield row

    def invalidate_output(self, output: Path) -> None:
        """Rewrite an output of lines; without a fault for it the file is not even opened."""
        if not self._every.keys() & _OF_THE_FILE:
            return
        lines = list(self.rearranged(output.read_bytes().splitlines(keepends=True)))
        if self.truncates and lines:
            lines[-1] = lines[-1][: len(lines[-1]) // 2]
        output.write_bytes(b"".join(lines))

    def _strikes(self, kind: FaultKind, number: int) -> bool:
        every = self._every.get(kind)
        return every is not None and number % every == 0
