"""The requests of the documents for `_batch_ingestion`, as they stand there but for their keys."""

from __future__ import annotations

from typing import Any

DOCUMENTED_SINGLE: dict[str, Any] = {
    "index_name": "my-nlp-index",
    "field_map": {
        "chapter": "$.content[0]",
        "title": "$.content[1]",
        "chapter_embedding": "$.SageMakerOutput[0]",
        "title_embedding": "$.SageMakerOutput[1]",
        "_id": "$.id",
    },
    "ingest_fields": ["$.id"],
    "data_source": {"type": "s3", "source": ["s3://offlinebatch/output/sagemaker_batch.json.out"]},
}
DOCUMENTED_MULTIPLE: dict[str, Any] = {
    "index_name": "my-nlp-index-openai",
    "field_map": {
        "question": "source[1].$.body.input[0]",
        "answer": "source[1].$.body.input[1]",
        "question_embedding": "source[0].$.response.body.data[0].embedding",
        "answer_embedding": "source[0].$.response.body.data[1].embedding",
        "_id": ["source[0].$.custom_id", "source[1].$.custom_id"],
    },
    "ingest_fields": ["source[2].$.custom_field1", "source[2].$.custom_field2"],
    "data_source": {"type": "openAI", "source": ["file-output", "file-input", "file-other"]},
}
