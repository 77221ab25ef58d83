"""Renders templates. All values are escaped; a template has no script and no style of its own."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from urllib.parse import quote

import jinja2
import msgspec
from fastapi import Request, Response

from opensearch_batch.core.runs.job_state import FAILED, IN_FLIGHT

FOLDER = Path(__file__).parent
TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".LICENSE": "text/plain"}
SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'self'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
}
PAGE_HEADERS = {**SECURITY_HEADERS, "Cache-Control": "no-store"}
_UNITS = ("B", "kB", "MB", "GB", "TB")
# Colors of the states of Airflow, jobs and shards; the text of an element names the state, too.
_LOOKS = {
    **dict.fromkeys(("success", "COMPLETED", "written"), "good"),
    **dict.fromkeys(("failed", "upstream_failed", *FAILED), "bad"),
    **dict.fromkeys(("running", "deferred", "predicting", "writing", *IN_FLIGHT), "busy"),
}
SIGNS = {"good": "✓", "bad": "✕", "busy": "●", "idle": "○"}
# Fractions of a second, and what Airflow appends to keep ids apart, are left out.
_RUN_ID = re.compile(
    r"(?P<kind>[a-z_]+?)__(?P<day>\d{4}-\d\d-\d\d)T(?P<time>\d\d:\d\d(:\d\d)?)[.\d]*(\+00:00|Z)?(_\w+)?"
)

# A dash, for what has no value.
NOTHING = "\N{EN DASH}"
SMALL, THOUSAND = 10, 1_000


def count(value: float | None) -> str:
    """Return a number with separators."""
    return NOTHING if value is None else f"{value:,.0f}"


def counted(value: int, noun: str) -> str:
    """Return a number of things."""
    return f"{count(value)} {noun}{'' if value == 1 else 's'}"


def label(run_id: str) -> str:
    """Return a readable form of a run id; an id that is not in Airflow's format is returned unchanged."""
    match = _RUN_ID.fullmatch(run_id)
    return f"{match['kind'].replace('_', ' ')} {match['day']} {match['time']}" if match else run_id


def rate(value: float) -> str:
    """Return a number with one digit after the point, if it is small."""
    return f"{value:,.1f}" if value < SMALL else f"{value:,.0f}"


def span(seconds: float | None) -> str:
    """Return a time span in its two largest units."""
    if seconds is None:
        return NOTHING
    whole = max(round(seconds), 0)
    for size, unit, part, smaller in ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // part} {smaller}"
    return f"{whole} s"


def moment(value: datetime | float | None) -> str:
    """Return a time in UTC."""
    if value is None:
        return NOTHING
    at = datetime.fromtimestamp(value, UTC) if isinstance(value, int | float) else value.astimezone(UTC)
    return f"{at:%Y-%m-%d %H:%M}"


def age(value: float | None) -> str:
    """Return how long ago something was."""
    return NOTHING if value is None else span(time.time() - value)


def size(value: float) -> str:
    """Return a number of bytes."""
    power = 0
    while value >= THOUSAND and power < len(_UNITS) - 1:
        value, power = value / THOUSAND, power + 1
    return f"{value:.0f} B" if power == 0 else f"{value:.1f} {_UNITS[power]}"


def look(state: str) -> str:
    """Return the class of a state."""
    return _LOOKS.get(state, "idle")


def share(part: float, whole: float) -> float:
    """Return a percentage for the width of a bar; a part that is not 0 can be seen."""
    return 0.0 if not part or not whole else round(min(max(100 * part / whole, 0.5), 100), 1)


class Renderer:
    """Templates, and the static files, whose addresses change with their content."""

    def __init__(self) -> None:
        self.files = {path.name: path.read_bytes() for path in sorted((FOLDER / "static").iterdir())}
        self._version = hashlib.sha256(b"".join(self.files.values())).hexdigest()[:12]
        self._environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(FOLDER / "templates"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        filters: list[Callable[..., object]] = [count, counted, label, rate, span, moment, age, size, look, share]
        self._environment.filters |= {each.__name__: each for each in filters}
        self._environment.filters["json"] = lambda value: msgspec.json.encode(value).decode()
        self._environment.globals |= {"SIGNS": SIGNS, "version": self._version}

    def page(
        self, request: Request, name: str, values: Mapping[str, object], *, status: int = HTTPStatus.OK
    ) -> Response:
        """Return a page.

        `root` is the address of the pages behind any proxy's prefix, `airflow` that of Airflow's UI, and `here` that of
        this page.
        """
        root: str = request.scope["root_path"]
        here = root + quote(request.scope["path"].removeprefix(root))
        content = self._environment.get_template(name).render(
            values, root=root, here=here, airflow=root.rpartition("/")[0]
        )
        return Response(content, status, PAGE_HEADERS, "text/html; charset=utf-8")

    def file(self, name: str) -> Response | None:
        """Return a static file, None if there is none of this name."""
        content = self.files.get(name)
        if content is None:
            return None
        kept = {"Cache-Control": "private, max-age=31536000, immutable"}
        kind = TYPES.get(Path(name).suffix, "application/octet-stream")
        return Response(content, headers=SECURITY_HEADERS | kept, media_type=kind)
