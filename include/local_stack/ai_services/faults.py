"""Faults on request. A fault strikes exactly as many times as it was asked for, and is then gone."""

import threading
from enum import StrEnum

import msgspec


class FaultKind(StrEnum):
    """What can go wrong on purpose."""

    THROTTLE = "throttle"
    ERROR = "error"
    DELAY = "delay"
    FAIL = "fail"
    LOST_RESPONSE = "lost_response"
    TRUNCATE = "truncate"


class Fault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One fault: `times` left, `seconds` for a delay, `operation` none for any operation of the service."""

    service: str
    fault: FaultKind
    times: int = 1
    seconds: float = 0.0
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
                    left = msgspec.structs.replace(fault, times=fault.times - 1)
                    self._pending[index : index + 1] = [left] if left.times > 0 else []
                    return fault
        return None
