"""Cohere's datasets, embed jobs and embeddings, driven by the `cohere` package as it is."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cohere
import fastavro
import numpy as np
import pytest
import requests
from cohere.core.api_error import ApiError

from include.local_stack.ai_services.model import MiniLM
from tests.local_stack.ai_services.stand import SECRET_KEY, Stand
from tests.waiting import WAIT_S, eventually

MODEL = "embed-english-light-v3.0"
LIVE = {"processing", "cancelling"}


@pytest.fixture
def client(ai_stand: Stand) -> Iterator[cohere.Client]:
    """A client with the right key."""
    with ai_stand.cohere() as made:
        yield made


def dataset(client: cohere.Client, rows: list[Any], *, name: str = "in.jsonl", **options: Any) -> Any:
    """Upload these rows: the dataset as the API shows it."""
    content = "".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows).encode()
    made = client.datasets.create(name="my_rows", type="embed-input", data=(name, content), **options)
    assert made.id is not None
    return client.datasets.get(made.id).dataset


def submit(client: cohere.Client, rows: list[Any], *, keep: list[str] | None = None, **options: Any) -> str:
    """Start a job over these rows: its id."""
    source = dataset(client, rows, keep_fields=keep or [])
    assert source.validation_status == "validated"
    given: Any = {"model": MODEL, "input_type": "search_document", "truncate": "END", **options}
    return str(client.embed_jobs.create(dataset_id=source.id, **given).job_id)


def ended(client: cohere.Client, job_id: str) -> Any:
    """The job once it has ended."""
    eventually(lambda: client.embed_jobs.get(job_id).status not in LIVE, "the embed job ends")
    return client.embed_jobs.get(job_id)


def saved(client: cohere.Client, job: Any, folder: Path) -> list[Any]:
    """The rows of a job's output, as the package saves them."""
    output = client.datasets.get(job.output_dataset_id).dataset
    client.utils.save_dataset(output, str(folder / "out.jsonl"))
    return [json.loads(row) for row in (folder / "out.jsonl").read_text().splitlines()]


def run(client: cohere.Client, rows: list[Any], folder: Path, **options: Any) -> tuple[Any, list[Any]]:
    """A job over these rows, ended, and the rows of its output."""
    job = ended(client, submit(client, rows, **options))
    return job, saved(client, job, folder)


def texts(count: int) -> list[dict[str, Any]]:
    """Rows with an id and a text."""
    return [{"id": f"r{number}", "text": f"text {number}"} for number in range(1, count + 1)]


def refused(call: Any, **arguments: Any) -> tuple[int | None, str]:
    """Status and message of a call that must fail."""
    with pytest.raises(ApiError, match=r"status_code: [45]") as caught:
        call(**arguments)
    return caught.value.status_code, caught.value.body["message"]


def test_an_embed_job(ai_stand: Stand, client: cohere.Client, ai_model: MiniLM, tmp_path: Path) -> None:
    """Its output has the texts, the fields to keep and the model's vectors, in the order of the input."""
    rows = [{"id": f"r{n}", "n": n, "ok": n > 1, "f": 0.5, "text": f"text {n}", "dropped": 1} for n in range(3)]
    before = ai_stand.job_count("cohere")
    job, found = run(
        client, rows, tmp_path, keep=["id", "n", "ok", "f"], name="mine", embedding_types=["float", "int8"]
    )
    assert (job.status, job.name, job.model, job.truncate) == ("complete", "mine", MODEL, "END")
    assert ai_stand.job_count("cohere") == before + 1
    kept = [{name: row[name] for name in ("text", "id", "n", "ok", "f")} for row in rows]
    assert [{name: value for name, value in row.items() if name != "embeddings"} for row in found] == kept
    vectors = [row["embeddings"]["float"] for row in found]
    assert np.abs(np.array(vectors) - ai_model.encode([f"text {n}" for n in range(3)])).max() < 1e-5
    assert [type(number) for number in found[0]["embeddings"]["int8"][:2]] == [int, int]
    assert [found[0]["embeddings"][kind] for kind in ("uint8", "binary", "ubinary")] == [None] * 3
    assert client.datasets.get(job.output_dataset_id).dataset.dataset_type == "embed-result"


def test_a_large_dataset_has_several_parts(client: cohere.Client, tmp_path: Path) -> None:
    """Read one after the other they are the whole, and each says how many rows it holds."""
    source = dataset(client, texts(2001), optional_fields=["id", "absent"])
    assert [(part.index, part.num_rows) for part in source.dataset_parts] == [(0, 1000), (1, 1000), (2, 1)]
    client.utils.save_dataset(source, str(tmp_path / "rows.avro"), format="avro")
    with (tmp_path / "rows.avro").open("rb") as file:
        rows = list(fastavro.reader(file))
    assert rows == [{"text": f"text {n}", "id": f"r{n}", "absent": None} for n in range(1, 2002)]


def test_the_package_waits_for_both(client: cohere.Client) -> None:
    """`wait` knows the states of datasets and of embed jobs."""
    made = client.datasets.create(name="a", type="embed-input", data=("in.jsonl", b'{"text":"one"}'))
    assert client.wait(made, interval=0.05).dataset.validation_status == "validated"
    assert made.id is not None
    job = client.embed_jobs.create(model=MODEL, dataset_id=made.id, input_type="search_document")
    assert client.wait(job, interval=0.05).status == "complete"


def test_a_csv_file(client: cohere.Client, tmp_path: Path) -> None:
    """Is read by its header."""
    source = dataset(client, ["id,text", 'a,"one, two"'], name="in.CSV", keep_fields=["id"])
    client.utils.save_dataset(source, str(tmp_path / "out.jsonl"))
    assert json.loads((tmp_path / "out.jsonl").read_text()) == {"text": "one, two", "id": "a"}


@pytest.mark.parametrize(
    ("rows", "options", "error"),
    [
        ([{"text": "one"}, {"no": "text"}], {}, "row 2: the required field 'text' is missing"),
        ([{"text": 7}], {}, "row 1: the required field 'text' is missing"),
        ([{"text": "one"}, "not json"], {}, "row 2: no JSON"),
        ([{"text": "one"}], {"keep_fields": ["id"]}, "row 1: the field 'id' of keep_fields is missing"),
        ([{"text": "one", "id": [1]}], {"keep_fields": "id"}, "the field 'id' is no string, number or boolean"),
        ([{"text": "one", "id": 1 << 63}], {"keep_fields": "id"}, "the field 'id' is no 64-bit number"),
        ([{"text": "one"}], {"optional_fields": ["a-b"]}, "cannot have a field named 'a-b'"),
        ([], {}, "the file holds no rows"),
    ],
)
def test_a_dataset_that_fails_its_validation(client: cohere.Client, rows: list[Any], options: Any, error: str) -> None:
    """Is kept, says why, has no parts, and is no input for a job."""
    source = dataset(client, rows, **options)
    assert (source.validation_status, source.dataset_parts) == ("failed", [])
    assert error in source.validation_error
    status, message = refused(client.embed_jobs.create, model=MODEL, dataset_id=source.id, input_type="search_document")
    assert (status, "is failed" in message) == (400, True)


def test_malformed_rows_can_be_dropped(client: cohere.Client) -> None:
    """Each leaves a warning."""
    source = dataset(client, [{"text": "one"}, "not json", {"no": 1}], skip_malformed_input=True)
    assert (source.validation_status, source.dataset_parts[0].num_rows) == ("validated", 1)
    assert [warning[:5] for warning in source.validation_warnings] == ["row 2", "row 3"]


def test_datasets_are_listed_and_deleted(client: cohere.Client) -> None:
    """The newest first; a deleted one is unknown, and a second of the same name is another."""
    one, two = (dataset(client, [{"text": "x"}]) for _ in range(2))
    listed = client.datasets.list(dataset_type="embed-input", limit=2, validation_status="validated").datasets or []
    assert [found.id for found in listed] == [two.id, one.id]
    assert client.datasets.delete(one.id) == {}
    assert refused(client.datasets.get, id=one.id) == (404, f"dataset with id {one.id} not found")
    assert client.datasets.get(two.id).dataset.name == "my_rows"
    assert one.id not in [found.id for found in client.datasets.list().datasets or []]


def test_a_part_is_read_by_its_signature_alone(client: cohere.Client) -> None:
    """Without the key; a changed url reads nothing."""
    url = dataset(client, [{"text": "x"}]).dataset_parts[0].url
    assert list(fastavro.reader(io.BytesIO(requests.get(url, timeout=WAIT_S).content))) == [{"text": "x"}]
    for changed in (url[:-1] + ("0" if url[-1] != "0" else "1"), url.partition("?")[0]):
        assert requests.get(changed, timeout=WAIT_S).status_code == 403


def test_embeddings_at_once(ai_stand: Stand, client: cohere.Client, ai_model: MiniLM) -> None:
    """In both versions of the API; a hundred texts are two calls of the package."""
    many = [f"text {number}" for number in range(100)]
    plain = client.embed(texts=many, model=MODEL, input_type="search_query")
    assert plain.response_type == "embeddings_floats"
    assert np.abs(np.array(plain.embeddings) - ai_model.encode(many)).max() < 1e-5
    kinds: Any = ["float", "int8", "uint8", "binary", "ubinary", "base64"]
    with cohere.ClientV2(api_key=SECRET_KEY, base_url=ai_stand.app_url) as second:
        given: Any = {"texts": ["one"], "model": MODEL, "input_type": "search_query"}
        found = second.embed(**given, embedding_types=kinds).embeddings
    assert found.float_ is not None
    assert found.base64 is not None
    assert np.abs(np.array(found.float_) - ai_model.encode(["one"])).max() < 1e-5
    sizes = [len(one[0]) for one in (found.int8, found.uint8, found.binary, found.ubinary) if one]
    assert sizes == [384, 384, 48, 48]


def test_refused_requests(client: cohere.Client) -> None:
    """Wrong requests get Cohere's status and message."""
    source = dataset(client, [{"text": "x"}])
    good: Any = {"model": MODEL, "dataset_id": source.id, "input_type": "search_document"}
    wrong: list[tuple[Any, int]] = [
        ({"model": "nobody"}, 404),
        ({"dataset_id": "nobody"}, 404),
        ({"input_type": "nothing"}, 400),
        ({"embedding_types": ["base64"]}, 400),
        ({"embedding_types": ["nothing"]}, 400),
        ({"truncate": "MIDDLE"}, 400),
    ]
    for change, status in wrong:
        assert refused(client.embed_jobs.create, **{**good, **change})[0] == status
    assert refused(client.embed, texts=["x"], model=MODEL)[0] == 400
    assert refused(client.embed, texts=["x"] * 97, model=MODEL, input_type="search_query", batching=False)[0] == 400
    assert refused(client.datasets.create, name="a", type="chat-finetune-input", data=("a", b""))[0] == 400
    assert refused(client.embed_jobs.get, id="nobody") == (404, "embed job with id nobody not found")
    assert refused(client.embed_jobs.cancel, id="nobody")[0] == 404


def test_only_the_key_passes(ai_stand: Stand) -> None:
    """A wrong one is a 401 for each operation."""
    with ai_stand.cohere(key="guess") as wrong:
        for call in (wrong.embed_jobs.list, wrong.datasets.list):
            assert refused(call) == (401, "invalid api token")
    unsigned = requests.get(f"{ai_stand.app_url}/v1/datasets", timeout=WAIT_S)
    assert (unsigned.status_code, unsigned.json()["message"]) == (401, "no api key supplied")


def test_calls_fail_as_often_as_asked(ai_stand: Stand, client: cohere.Client) -> None:
    """Throttling, the trial key's quota and errors have Cohere's status; the package does not hide them here."""
    for fault, status in (("throttle", 429), ("quota", 429), ("error", 500)):
        ai_stand.fault(fault, service="cohere", operation="ListEmbedJobs")
        answer = ai_stand.bearer("GET", "/v1/embed-jobs", host="api.cohere.ai")
        assert (answer.status_code, sorted(answer.json())) == (status, ["id", "message"])
        client.embed_jobs.list()


def test_a_lost_response_hides_an_accepted_job(ai_stand: Stand, client: cohere.Client) -> None:
    """The list has it, by its name and dataset."""
    source = dataset(client, [{"text": "x"}])
    ai_stand.fault("lost_response", service="cohere", operation="CreateEmbedJob")
    options: Any = {"request_options": {"max_retries": 0}}
    given: Any = {"model": MODEL, "dataset_id": source.id, "input_type": "search_document", "name": "lost"}
    assert refused(client.embed_jobs.create, **given, **options)[0] == 500
    jobs = client.embed_jobs.list().embed_jobs or []
    (found,) = [job for job in jobs if job.input_dataset_id == source.id]
    assert (jobs[0].job_id, found.name, ended(client, found.job_id).status) == (found.job_id, "lost", "complete")


def test_a_delayed_job_that_is_cancelled(ai_stand: Stand, client: cohere.Client) -> None:
    """It is cancelling, then cancelled, without an output; cancelling once more is refused. So ML Commons calls it."""
    ai_stand.fault("delay", service="cohere", operation="CreateEmbedJob", seconds=3600)
    job_id = submit(client, texts(1))
    path, host = f"/v1/embed-jobs/{job_id}", "api.cohere.com"
    assert ai_stand.bearer("GET", path, host=host).json()["status"] == "processing"
    assert ai_stand.bearer("GET", path, host="api.openai.com").status_code == 404
    source = ai_stand.bearer("GET", f"/v1/datasets/{client.embed_jobs.get(job_id).input_dataset_id}", host=host).json()
    assert source["dataset"]["dataset_parts"][0]["url"].startswith(f"https://{host}/v1/datasets/")
    assert ai_stand.bearer("POST", f"{path}/cancel", host=host).status_code == 200
    job = ended(client, job_id)
    assert (job.status, job.output_dataset_id) == ("cancelled", None)
    assert refused(client.embed_jobs.cancel, id=job_id)[0] == 400


def test_a_dataset_that_is_still_being_validated(ai_stand: Stand, client: cohere.Client) -> None:
    """Its parts are not shown yet, and it is no input; one that is told to fail has failed."""
    ai_stand.fault("delay", service="cohere", operation="CreateDataset", seconds=3600)
    waiting = dataset(client, [{"text": "x"}])
    assert (waiting.validation_status, waiting.dataset_parts) == ("processing", [])
    given: Any = {"model": MODEL, "dataset_id": waiting.id, "input_type": "search_document"}
    assert refused(client.embed_jobs.create, **given)[0] == 400
    ai_stand.fault("fail", service="cohere", operation="CreateDataset")
    assert dataset(client, [{"text": "x"}]).validation_status == "failed"


@pytest.mark.parametrize(
    ("fault", "ids"),
    [
        ("partial", ["r1", "r2", "r3", "r4"]),
        ("missing", ["r1", "r3"]),
        ("duplicate", ["r1", "r2", "r2", "r3", "r4", "r4"]),
        ("reorder", ["r4", "r3", "r2", "r1"]),
    ],
)
def test_faults_of_rows(ai_stand: Stand, client: cohere.Client, tmp_path: Path, fault: str, ids: list[str]) -> None:
    """The output is not what the input was; a row that failed has no embeddings."""
    ai_stand.fault(fault, service="cohere", operation="CreateEmbedJob")
    job, rows = run(client, texts(4), tmp_path, keep=["id"])
    assert job.status == "complete"
    assert [row["id"] for row in rows] == ids
    without = [row["id"] for row in rows if row["embeddings"]["float"] is None]
    assert without == (["r2", "r4"] if fault == "partial" else [])


def test_faults_within_rows(ai_stand: Stand, client: cohere.Client, tmp_path: Path) -> None:
    """Every second vector lacks a number; a file that is cut cannot be read to its end."""
    ai_stand.fault("wrong_dimension", service="cohere", operation="CreateEmbedJob")
    _, rows = run(client, texts(2), tmp_path)
    assert [len(row["embeddings"]["float"]) for row in rows] == [384, 383]
    ai_stand.fault("truncate", service="cohere", operation="CreateEmbedJob")
    job = ended(client, submit(client, texts(2)))
    (part,) = client.datasets.get(job.output_dataset_id).dataset.dataset_parts or []
    content = requests.get(str(part.url), timeout=WAIT_S).content
    assert len(content) == (part.size_bytes or 0) - 24
    with pytest.raises(EOFError, match=r"Expected \d+ bytes, read \d+"):
        list(fastavro.reader(io.BytesIO(content)))


def test_a_download_that_breaks_off(ai_stand: Stand, client: cohere.Client) -> None:
    """The connection ends in the middle, and the next download is whole."""
    url = dataset(client, texts(1000)).dataset_parts[0].url
    ai_stand.fault("truncate", service="cohere", operation="DownloadDatasetPart")
    with pytest.raises(requests.exceptions.ChunkedEncodingError, match="IncompleteRead"):
        requests.get(url, timeout=WAIT_S)
    assert len(list(fastavro.reader(io.BytesIO(requests.get(url, timeout=WAIT_S).content)))) == 1000


def test_a_job_that_fails(ai_stand: Stand, client: cohere.Client) -> None:
    """Because it was told to, or because its dataset is gone; it has no output."""
    ai_stand.fault("fail", service="cohere", operation="CreateEmbedJob")
    told = ended(client, submit(client, texts(1)))
    ai_stand.fault("delay", service="cohere", operation="CreateEmbedJob", seconds=3600)
    job_id = submit(client, texts(1))
    client.datasets.delete(client.embed_jobs.get(job_id).input_dataset_id)
    ai_stand.end_delays()
    assert [(job.status, job.output_dataset_id) for job in (told, ended(client, job_id))] == [("failed", None)] * 2


@pytest.mark.slow
def test_a_job_outlives_its_worker(ai_stand: Stand, client: cohere.Client, tmp_path: Path) -> None:
    """The next worker computes it from its start, into one dataset."""
    job_id = submit(client, [{"text": f"{number} the sea is wide and " * 8} for number in range(300)])
    eventually(lambda: any((ai_stand.state_dir / "work").glob("*")), "the job is computed")
    ai_stand.kill_worker()
    assert client.embed_jobs.get(job_id).status == "processing"
    before = len(client.datasets.list(dataset_type="embed-result").datasets or [])
    ai_stand.start_worker()
    job = ended(client, job_id)
    assert len(saved(client, job, tmp_path)) == 300
    assert len(client.datasets.list(dataset_type="embed-result").datasets or []) == before + 1
