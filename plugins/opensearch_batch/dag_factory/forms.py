"""What "Trigger" asks for: the pipeline's own values, typed, and checked by Airflow before a run exists.

A run that starts by itself has the same values.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from airflow.sdk import Param

from opensearch_batch.core.ingest.request import INDEX_NAME_PATTERN
from opensearch_batch.core.pipeline.rules import is_template, template_of
from opensearch_batch.core.pipeline.spec import PipelineSpec

RUN = "This run"


def form_of(spec: PipelineSpec) -> dict[str, Param]:
    """Return the form's fields with the pipeline's values."""
    uri = spec.source.uri
    dated = " As it stands here it is filled in with the run's own date or partition." if is_template(uri) else ""
    return {
        "source": Param(
            uri,
            type="string",
            # What is typed is taken as it is; only the pipeline's own text is a template.
            pattern=rf"^(s3://[^/{{}}][^{{}}]*|{re.escape(uri)})$",
            description_md=f"An S3 prefix, or one object: `s3://bucket/prefix/`.{dated}",
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
            description_md="Who predicts; `batch_predict.instead` of the pipeline's file adds others.",
        ),
        "max_records": Param(
            None,
            type=["null", "integer"],
            minimum=1,
            section=RUN,
            description="Take only so many records, from the first object on: for a trial. All of them if empty.",
        ),
        "dry_run": Param(
            default=False,
            type="boolean",
            section=RUN,
            description="Check everything and say which shards and jobs there would be; write and pay nothing.",
        ),
        "force": Param(
            default=False,
            type="boolean",
            section=RUN,
            description="Submit (and pay for) new batch jobs and write every document again, even where that is done.",
        ),
    }


def source_of(spec: PipelineSpec) -> str:
    """Return the template that prepare reads the source from: the form's text, or the pipeline's own filled in."""
    uri = spec.source.uri
    if not is_template(uri):
        return "{{ params.source }}"
    own, typed = template_of(uri), "{{ params.source }}"
    return f"{{% if params.source == {_quoted(uri)} %}}{own}{{% else %}}{typed}{{% endif %}}"


def of_service(own: str, values: Mapping[str, Any]) -> Any:  # noqa: ANN401 - what the values are, or a template
    """Return what depends on the service the form chooses: the value, or the template of its text.

    Objects become JSON texts there, which `stage.chosen` reads.
    """
    if all(value == values[own] for value in values.values()):
        return values[own]
    texts = {
        name: value if isinstance(value, str) else json.dumps(value) if value else "" for name, value in values.items()
    }
    return f"{{{{ {texts!r}[params.service] }}}}"


def _quoted(text: str) -> str:
    """Return a text as Jinja writes one; braces in it would start a template of their own in nobody's eyes but ours."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
