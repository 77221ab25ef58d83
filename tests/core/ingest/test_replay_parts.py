"""A replay of a part of a queue: several bulk bodies have one result, and each record is one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from opensearch_batch.core.ingest.account import REPLAY_FILE, ReplayRequest
from opensearch_batch.core.ingest.replay import replay
from opensearch_batch.core.ingest.request import IngestRequest
from opensearch_batch.core.storage.dead_letters import DeadLetters, dead_letter, list_parts, read_letters
from opensearch_batch.core.storage.json_document import save
from opensearch_batch.core.storage.local_files import LocalFiles
from tests.scripted import Scripted

QUEUE = "s3://queue/dead_letters/"
INDEX = {"i": {"settings": {"index": {"uuid": "u"}}, "mappings": {}}}
REFUSED = {"index": {"status": 400, "error": {"type": "mapper", "reason": "no"}}}
WRITTEN = {"index": {"status": 201, "result": "created"}}


@pytest.mark.parametrize(
    ("verdicts", "kept"), [((REFUSED, WRITTEN), [1]), ((WRITTEN, REFUSED), [2]), ((WRITTEN, WRITTEN), [])]
)
def test_a_letter_that_fails_stays_whichever_body_it_is_in(
    tmp_path: Path, scripted: Scripted, verdicts: tuple[dict[str, object], ...], kept: list[int]
) -> None:
    """The last body alone does not decide whether the part is deleted."""
    files = LocalFiles(tmp_path)
    with DeadLetters(files, QUEUE, attempt="1") as dead:
        for line in (1, 2):
            row = b'{"id": %d}' % line
            dead.add(dead_letter(row, stage="ingest", reason="mapper: no", source="s3://in/a.jsonl", line=line))
        dead.write()
    request = IngestRequest("i", {"_id": "$.id", "id": "$.id"}, max_body_bytes=1, max_in_flight=1)
    save(files, f"{QUEUE}{REPLAY_FILE}", ReplayRequest(["a"], request))
    bodies = [{"errors": verdict is REFUSED, "items": [verdict]} for verdict in verdicts]
    scripted.answers = [(200, INDEX), *((200, body) for body in bodies)]
    report = replay(QUEUE, files, scripted.cluster)
    assert (report.read, report.indexed, report.dead_letters) == (2, 2 - len(kept), len(kept))
    assert [letter.line for part in list_parts(files, QUEUE) for letter in read_letters(files, part)] == kept


@pytest.mark.parametrize(
    ("record", "sent"),
    [
        (b'{"id": 1,\n "a": [1,\n2.50]}', b'{"index":{"_id":"1"}}\n{"id":1,"a":[1,2.50]}\n'),
        (b'{"id": 1, "a": 1}\n{"index": {}}', b""),
    ],
)
def test_a_record_that_was_edited_over_several_lines_is_sent_in_one(
    tmp_path: Path, scripted: Scripted, record: bytes, sent: bytes
) -> None:
    """The index would take its lines for actions; several records in one letter stay in the queue."""
    files = LocalFiles(tmp_path)
    with DeadLetters(files, QUEUE, attempt="1") as dead:
        dead.add(dead_letter(record, stage="ingest", reason="no", source="s3://in/a.jsonl", line=1))
        dead.write()
    request = IngestRequest("i", {"_id": "$.id", "id": "$.id", "a": "$.a"})
    save(files, f"{QUEUE}{REPLAY_FILE}", ReplayRequest(["a"], request))
    scripted.answers = [(200, INDEX), *([(200, {"errors": False, "items": [WRITTEN]})] if sent else [])]
    report = replay(QUEUE, files, scripted.cluster)
    assert (report.indexed, report.dead_letters) == (bool(sent), not sent)
    assert [body for body in scripted.bodies if body] == [sent] * bool(sent)
