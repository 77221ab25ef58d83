"""Faults on request. A fault strikes exactly as many times as it was asked for, and is then gone."""

import threading
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Annotated

import msgspec


class FaultKind(StrEnum):
    """What can go wrong on purpose."""

    # One call: refused, or accepted and answered with a 500.
    THROTTLE = "throttle"
    QUOTA = "quota"
    ERROR = "error"
    LOST_RESPONSE = "lost_response"
    # One job: when it starts and how it ends.
    DELAY = "delay"
    FAIL = "fail"
    EXPIRE = "expire"
    # One job's rows.
    PARTIAL = "partial"
    WRONG_DIMENSION = "wrong_dimension"
    MISSING = "missing"
    DUPLICATE = "duplicate"
    REORDER = "reorder"
    # One job's output, or one download.
    TRUNCATE = "truncate"


OF_A_CALL = frozenset({FaultKind.THROTTLE, FaultKind.QUOTA, FaultKind.ERROR, FaultKind.LOST_RESPONSE})
OF_A_JOB = frozenset(FaultKind) - OF_A_CALL


class Fault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One fault: `times` left, `operation` none for any operation of the service.

    `seconds` are those of a delay; of an output's rows `every` n-th is struck, counted from 1.
    """

    service: str
    fault: FaultKind
    times: Annotated[int, msgspec.Meta(ge=1)] = 1
    seconds: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    every: Annotated[int, msgspec.Meta(ge=1)] = 2
    operation: str | None = None


class Faults:
    """The faults not yet spent; safe to share between threads."""

    def __init__(self) -> None:
        self._pending: list[Fault] = []
        self._lock = threading.Lock()

    def add(self, fault: Fault) -> None:
        """Let this fault strike from now on, after those added before."""
        with self._lock:
            self._pending.append(fault)

    def clear(self) -> None:
        """Forget all faults."""
        with self._lock:
            self._pending.clear()

    def pending(self) -> list[Fault]:
        """What has not struck yet."""
        with self._lock:
            return list(self._pending)

    def take(self, kind: FaultKind, service: str, operation: str) -> Fault | None:
        """Spend one strike of the first fault that fits, if there is one."""
        with self._lock:
            for index, fault in enumerate(self._pending):
                if (fault.fault, fault.service) == (kind, service) and fault.operation in (None, operation):
                    self._pending[index : index + 1] = (
                        [msgspec.structs.replace(fault, times=fault.times - 1)] if fault.times > 1 else []
                    )
                    return fault
        return None

    def of_job(self, service: str, operation: str) -> tuple[Fault, ...]:
        """Spend one strike of each kind that a job carries with it."""
        taken = (self.take(kind, service, operation) for kind in FaultKind if kind in OF_A_JOB)
        return tuple(fault for fault in taken if fault is not None)

    def strike(self, service: str, operation: str, errors: Mapping[FaultKind, Callable[[], Exception]]) -> None:
        """Raise the error of the first of these kinds that was asked for."""
        for kind, error in errors.items():
            if self.take(kind, service, operation):
                raise error()
