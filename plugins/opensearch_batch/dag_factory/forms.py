"""The form of a manual run: typed fields, which Airflow validates, with the pipeline's values as defaults.

A scheduled run has the default values.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, TypeVar

from airflow.sdk import Param

from opensearch_batch.core.ingest.request import INDEX_NAME_PATTERN
from opensearch_batch.core.pipeline.rules import is_template, template_of
from opensearch_batch.core.pipeline.spec import PipelineSpec
from opensearch_batch.core.types.counts import PERCENT

T = TypeVar("T")
RUN = "This run"
DAY_S = 86_400.0


def form_of(spec: PipelineSpec) -> dict[str, Param]:
    """Return the fields of the form, with the pipeline's values as defaults."""
    uri = spec.source_uri
    render_note = " The default is rendered with the run's date or partition." if is_template(uri) else ""
    return {
        "source": Param(
            uri,
            type="string",
            # Only the default is a template; the input of a user is not rendered.
            pattern=rf"^(s3://[^/{{}}][^{{}}]*|{re.escape(uri)})$",
            description_md=(
                "An S3 prefix that ends in `/`, a glob, or one object; or the location of dead letters of `prepare`, "
                f"to replay them.{render_note}"
                if spec.source.index is None
                else "The index that the pipeline reads; or dead letters of `prepare`, to replay them."
            ),
        ),
        "index": Param(
            spec.ingest.index,
            type="string",
            pattern=INDEX_NAME_PATTERN,
            description="The index to write to: lower case, no spaces.",
        ),
        "service": Param(
            spec.batch_predict.service,
            type="string",
            enum=list(spec.batch_predict.models),
            description_md="The AI service; `batch_predict.instead` of the pipeline file adds others.",
        ),
        "max_records": Param(
            None,
            type=["null", "integer"],
            minimum=1,
            section=RUN,
            description="For a trial: how many records to read, from the first object on; all if empty.",
        ),
        "dry_run": switch(
            "Check everything and log what changed, and the shards and jobs of a run; write nothing, submit nothing.",
            section=RUN,
        ),
        "force": switch(
            "Pay for all predictions again and write every document again, even if nothing changed.",
            section=RUN,
        ),
        "rebuild": switch(
            "Write every document again, from the predictions that are stored; pay nothing.",
            section=RUN,
        ),
        "max_removed": Param(
            None,
            type=["null", "string"],
            pattern=PERCENT,
            section=RUN,
            description_md=(
                "The share of the documents that this run may delete, such as `50%`; if empty, `source.max_removed` of "
                f"the pipeline ({spec.source.max_removed})."
            ),
        ),
    }


def task_defaults(owner: str, task_timeout_s: float) -> dict[str, Any]:
    """Return the default arguments of the tasks; a task that hangs is stopped at its timeout and retried."""
    return {
        "owner": owner,
        "retries": 2,
        "retry_delay": timedelta(seconds=10),
        "execution_timeout": timedelta(seconds=task_timeout_s),
    }


def switch(description: str, section: str | None = None) -> Param:
    """Return a boolean field that is off by default."""
    arguments: dict[str, Any] = {"section": section} if section else {}
    return Param(default=False, type="boolean", description=description, **arguments)


def source_of(spec: PipelineSpec) -> str:
    """Return the template of the source: the form's text; if it is the default, the pipeline's URI, rendered."""
    uri = spec.source_uri
    if not is_template(uri):
        return "{{ params.source }}"
    default, entered = template_of(uri, spec.when.timezone), "{{ params.source }}"
    return f"{{% if params.source == {_quoted(uri)} %}}{default}{{% else %}}{entered}{{% endif %}}"


def value_for_service(default: str, values: Mapping[str, T]) -> T | str:
    """Return the value for the service in the form: the value itself if all services have the same, else a template.

    The template contains objects as JSON strings, which `operators.base.rendered` parses.
    """
    if all(value == values[default] for value in values.values()):
        return values[default]
    texts = {
        name: value if isinstance(value, str) else json.dumps(value) if value else "" for name, value in values.items()
    }
    return f"{{{{ {texts!r}[params.service] }}}}"


def _quoted(text: str) -> str:
    """Return a string as a Jinja string literal."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
