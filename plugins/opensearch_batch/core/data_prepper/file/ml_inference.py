"""Which model predicts, and how its jobs are submitted; only what runs offline through ML Commons is taken.

Source: Data Prepper's MLProcessorConfig and its configuration package (2.17).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar, Literal

import msgspec
from msgspec import Meta

from opensearch_batch.core.config.option_types import CheckedOptions, Condition, Rule, between, when
from opensearch_batch.core.config.options import Duration
from opensearch_batch.core.data_prepper.options.aws import Dlq, MlAws
from opensearch_batch.core.data_prepper.options.event_rules import key_rules
from opensearch_batch.core.storage.objects import split_uri
from opensearch_batch.core.transform.expressions.expression import compile_condition

BUILT_IN = (
    "amazon.titan-embed-text-v2:0",
    "amazon.titan-embed-image-v1",
    "amazon.nova-2-multimodal-embeddings-v1:0",
)
# What SageMaker and Bedrock call predictions in their rows.
PREDICTION_MEMBERS = ("SageMakerOutput", "modelOutput")


class MlInference(CheckedOptions, frozen=True, kw_only=True):
    """The processor that makes batch jobs of objects; its `dlq` has the region and role of `aws` where it has none."""

    NO_EFFECT: ClassVar[Mapping[str, str]] = {
        "aws_sigv4": "the original never looks at it and signs always; the connection of the cluster decides here",
        "tags_on_failure": "inputs of a job that failed are no events; the run fails and says so, and dlq has them",
    }

    aws: Annotated[MlAws, Meta(examples=[{"region": "us-east-1"}])]
    host: Annotated[str, Meta(min_length=1, examples=["https://search-mydomain.us-east-1.es.amazonaws.com"])]
    model_id: Annotated[str, Meta(min_length=1, examples=["2CkEl5MBZ-PyHUSg2ZGD"])]
    output_path: Annotated[str, Meta(min_length=1, examples=["s3://my-bucket/output"])]
    action_type: Literal["batch_predict", "predict"] = "batch_predict"
    service_name: Literal["sagemaker", "bedrock"] = "sagemaker"
    input_key: str | None = None
    ml_when: Condition | None = None
    max_batch_size: Annotated[int, Meta(ge=1)] = 100
    retry_time_window: Duration = Duration(600)
    retry_interval: Duration = Duration(60)
    dlq: Dlq | None = None

    def __post_init__(self) -> None:
        if self.dlq is not None:
            msgspec.structs.force_setattr(self, "dlq", self.dlq.inheriting(self.aws))

    def rules(self) -> Iterator[Rule]:
        """Yield what is checked, and the option it is about."""
        yield from when(
            wrong=self.action_type == "predict",
            keys=("action_type",),
            cause="models are asked offline only; write batch_predict, or predict in an ingest pipeline of the index",
        )
        yield from when(
            wrong=self.model_id in BUILT_IN,
            keys=("model_id",),
            cause="a built-in model is called past ML Commons, which is not done here; register a model with "
            "a connector for Bedrock and write its id",
        )
        yield ("output_path",), lambda: split_uri(self.output_path)
        if self.ml_when is not None:
            yield ("ml_when",), lambda: compile_condition(self.ml_when)
        yield from key_rules(("input_key",), self.input_key)
        yield from between(("retry_interval",), self.retry_interval, 3, 300)
