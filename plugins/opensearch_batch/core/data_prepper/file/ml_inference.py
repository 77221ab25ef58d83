"""Options of ml_inference: batch jobs or real-time requests, through ML Commons.

Data Prepper sends the body of a batch job to ``_predict`` too, which no model understands. Here `predict` sends each
line of the input in a request of its own, and writes the output that a batch job would write.

Source: Data Prepper's MLProcessorConfig and its configuration package (2.17).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar, Literal

import msgspec
from msgspec import Meta

from opensearch_batch.core.config.option_types import CheckedOptions, Rule, ValueCheck, between
from opensearch_batch.core.config.options import Duration
from opensearch_batch.core.data_prepper.options.aws import Dlq, MlAws
from opensearch_batch.core.data_prepper.options.expressions import Condition, EventKey
from opensearch_batch.core.storage.objects import split_uri
from opensearch_batch.core.transform.events.event import Event
from opensearch_batch.core.types.object_info import ObjectInfo

BUILT_IN = (
    "amazon.titan-embed-text-v2:0",
    "amazon.titan-embed-image-v1",
    "amazon.nova-2-multimodal-embeddings-v1:0",
)
# The keys of the predictions in output rows of SageMaker and Bedrock.
PREDICTION_MEMBERS = ("SageMakerOutput", "modelOutput")


class MlInference(CheckedOptions, frozen=True, kw_only=True):
    """Options of ml_inference. If `dlq` has no region or role, the value in `aws` applies."""

    NO_EFFECT: ClassVar[Mapping[str, str]] = {
        "aws_sigv4": "Data Prepper signs all requests; here the Airflow connection configures signing",
        "tags_on_failure": "inputs of a failed job are not events; the run fails, and dlq receives the inputs",
    }

    aws: Annotated[MlAws, Meta(examples=[{"region": "us-east-1"}])]
    host: Annotated[str, Meta(min_length=1, examples=["https://search-mydomain.us-east-1.es.amazonaws.com"])]
    model_id: Annotated[str, Meta(min_length=1, examples=["2CkEl5MBZ-PyHUSg2ZGD"])]
    output_path: Annotated[str, Meta(min_length=1, examples=["s3://my-bucket/output"]), ValueCheck(split_uri)]
    action_type: Literal["batch_predict", "predict"] = "batch_predict"
    service_name: Literal["sagemaker", "bedrock"] = "sagemaker"
    input_key: EventKey | None = None
    ml_when: Condition | None = None
    max_batch_size: Annotated[int, Meta(ge=1)] = 100
    retry_time_window: Duration = Duration(600)
    retry_interval: Annotated[Duration, between(3, 300)] = Duration(60)
    dlq: Dlq | None = None

    def __post_init__(self) -> None:
        if self.dlq is not None:
            msgspec.structs.force_setattr(self, "dlq", self.dlq.inheriting(self.aws))

    def rules(self) -> Iterator[Rule]:
        if self.model_id in BUILT_IN:
            yield (
                ("model_id",),
                (
                    "built-in models do not run through ML Commons; register a model with a Bedrock "
                    "connector and write its id"
                ),
            )


def input_event(item: ObjectInfo) -> Event:
    """Return the event that ml_inference receives for an object: bucket, key, time (seconds) and length (bytes)."""
    bucket, key = split_uri(item.uri)
    return Event({"bucket": bucket, "key": key, "time": item.modified, "length": item.size_bytes})
