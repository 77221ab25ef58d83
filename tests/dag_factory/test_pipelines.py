"""The DAG of a pipeline file: schedule, form, outlets, owner."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jinja2
import pendulum
import pytest
import yaml
from airflow.models.serialized_dag import SerializedDagModel
from airflow.sdk import DAG, Asset, CronDataIntervalTimetable, CronPartitionTimetable
from airflow.serialization.serialized_objects import DagSerialization

from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.pipeline.spec import PipelineSpec
from opensearch_batch.dag_factory import pipelines as pipelines_module
from opensearch_batch.dag_factory.forms import form_of, source_of, value_for_service
from opensearch_batch.dag_factory.pipelines import pipeline_dag
from opensearch_batch.triggers.new_objects import NewObjectsTrigger, uris_of
from opensearch_batch.triggers.repair import UnansweredTrigger

ROOT = Path(__file__).resolve().parents[2]
INCLUDE = ROOT / "include"
PREDICT = yaml.safe_load((INCLUDE / "pipelines" / "passages.yaml").read_text())["batch_predict"]
Make = Callable[..., DAG]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Return a function that builds the DAG of a pipeline with these parts."""
    (tmp_path / "pipelines").mkdir()

    def made(**parts: Any) -> DAG:
        spec = yaml.safe_load((INCLUDE / "pipelines" / "passages.yaml").read_text())
        path = tmp_path / "pipelines" / "books.yaml"
        path.write_text(yaml.safe_dump({**spec, **parts}))
        return pipeline_dag(path)

    return made


def test_a_pipeline_without_a_schedule_waits_for_a_person(make: Make) -> None:
    """Without a schedule the DAG is not paused, because it never runs by itself."""
    dag = make()
    assert dag.schedule is None
    assert (dag.is_paused_upon_creation, dag.catchup) == (None, False)


@pytest.mark.parametrize("configured", ["0 2 * * *", {"cron": "0 2 * * *"}])
def test_a_cron_run_has_the_date_of_the_period_that_ended(make: Make, configured: Any) -> None:
    """A scheduled DAG is paused, because its runs cause costs."""
    dag = make(schedule=configured)
    assert isinstance(dag.timetable, CronDataIntervalTimetable)
    assert dag.is_paused_upon_creation is True


def test_a_partition_is_of_the_period_before(make: Make) -> None:
    """The partition key has the format of the file."""
    timetable = make(schedule={"partitions": "@daily", "key_format": "%Y/%m", "timezone": "Europe/Vienna"}).timetable
    assert isinstance(timetable, CronPartitionTimetable)
    assert (timetable.run_offset, timetable.key_format) == (-1, "%Y/%m")


def test_a_run_may_follow_an_index_or_the_objects(make: Make) -> None:
    """Assets: the index that another pipeline writes, or the source with its own trigger."""
    outlet: Any
    publish: Any = make().task_dict["publish"]
    (outlet,) = publish.outlets
    ingest: Any = make().task_dict["ingest"]
    assert (publish.work_prefix, publish.aws_conn_id) == (ingest.work_prefix, ingest.aws_conn_id)
    followed: Any = make(schedule={"assets": ["x-opensearch://opensearch_default/passages"]}).schedule
    assert [asset.uri for asset in followed] == [outlet.uri]
    dag = make(schedule={"new_objects": {"poll_every_s": 7}})
    watched: Any = dag.schedule
    (source,) = watched
    assert isinstance(source, Asset)
    (watcher,) = source.watchers
    path, arguments = watcher.trigger.serialize()
    assert path == "opensearch_batch.triggers.new_objects.NewObjectsTrigger"
    assert NewObjectsTrigger(**arguments).serialize() == (path, arguments)
    assert (arguments["uri"], arguments["poll_every_s"]) == ("s3://documents/passages/", 7.0)
    prepare: Any = dag.task_dict["prepare"]
    assert prepare.watched


@pytest.mark.parametrize("broken", [False, True])
def test_a_file_takes_no_dag_of_another(make: Make, tmp_path: Path, monkeypatch: Any, broken: bool) -> None:  # noqa: FBT001 - pytest gives it
    """A DAG that runs would become another one: the file that has its name keeps it, even with a mistake in it."""
    make()
    folder = tmp_path / "pipelines"
    if broken:
        (folder / "books.yaml").write_text("source: [")
    shutil.copy(ROOT / "include" / "pipelines" / "passages.yaml", folder / "replay.yaml")
    others = {"a.yaml": ["books", "own"], "b.yaml": ["shared"], "c.yaml": ["shared"]}
    for name in others:
        (folder / name).write_text("taken over")

    def dags(path: Path, _: str) -> list[DAG]:
        names = others.get(path.name)
        return [pipeline_dag(path)] if names is None else [DAG(name, schedule=None) for name in names]

    monkeypatch.setattr(pipelines_module, "_dags", dags)
    found = pipelines_module.dags_of_folder(folder)
    assert sorted(dag.dag_id for dag in found.dags) == (["own"] if broken else ["books", "own"])
    refused = "\n".join(map(str, found.errors))
    assert f"{folder}/a.yaml:1 books: {folder}/books.yaml already uses this DAG id; rename this pipeline" in refused
    assert f"{folder}/b.yaml:1 shared: {folder}/c.yaml already uses" in refused
    assert f"{folder}/c.yaml:1 shared: {folder}/b.yaml already uses" in refused
    assert f"{folder}/replay.yaml:1 replay: this package already uses" in refused


@pytest.mark.parametrize(
    ("dag_id", "read"), [("books", ["books"]), ("other", ["other", "books", "other"]), (None, ["books", "other"])]
)
def test_a_task_reads_only_the_file_of_its_dag(
    make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, dag_id: str | None, read: list[str]
) -> None:
    """Unless that file defines no DAG of this name; then a file of another name may."""
    make()
    folder, built = tmp_path / "pipelines", list[str]()
    (folder / "other.yaml").write_text("source: [")

    def dags(path: Path, _: str) -> list[DAG]:
        built.append(path.stem)
        return [pipeline_dag(path)]

    monkeypatch.setattr(pipelines_module, "_dags", dags)
    monkeypatch.setattr(pipelines_module, "get_parsing_context", lambda: SimpleNamespace(dag_id=dag_id))
    found = pipelines_module.dags_of_folder(folder)
    assert (built, [dag.dag_id for dag in found.dags]) == (read, ["books"])


def test_owner_tags_and_description_come_from_the_file(make: Make) -> None:
    """Owner, tags and description are shown by Airflow."""
    dag = make(owner="search-team", tags=["books"], description="All books.")
    assert {"opensearch", "sagemaker", "books"} <= set(dag.tags)
    assert {task.owner for task in dag.tasks} == {"search-team"}
    assert "All books." in str(dag.doc_md)
    assert "`books.yaml`" in str(dag.doc_md)


def test_the_docs_hold_the_file_and_a_change_of_it_is_a_new_version(make: Make) -> None:
    """Airflow compares the hash of a serialized DAG; a changed retention is no argument of any operator's template."""
    versions = set()
    for days in (30, 31):
        dag = make(retention_days=days)
        assert f"retention_days: {days}" in str(dag.doc_md).partition("~~~~yaml")[2]
        versions.add(SerializedDagModel.hash(DagSerialization.to_dict(dag)))  # type: ignore[no-untyped-call] # Airflow's
    assert len(versions) == 2


def test_mapped_tasks_are_named_after_their_shards(make: Make) -> None:
    """In place of a number; `poll` never runs on a worker, so Airflow renders no name for it."""
    tasks: Any = make().task_dict
    shards = {"id": "00003 to 00004", "records": 500, "documents": 600}
    names = {"batch_predict": "500 records", "ingest": "600 documents"}
    for name, count in names.items():
        template = jinja2.Template(tasks[name].map_index_template)
        assert template.render(task=SimpleNamespace(shards=shards)) == f"shard 00003 to 00004, {count}"


def test_one_repair_follows_the_ingests_of_all_shards(make: Make) -> None:
    """It starts in the triggerer; what it returns is ingested as the shards are, and reconcile runs without it, too."""
    tasks: Any = make(batch_predict={**PREDICT, "repair_at_most": "7%"}).task_dict
    repair, ingest, repaired = (tasks[name] for name in ("repair", "ingest", "ingest_repaired"))
    assert repair.upstream_task_ids == {"ingest"}
    assert repair.repair_at_most == "7%"
    assert repair.start_from_trigger
    arguments = repair.start_trigger_args.trigger_kwargs
    trigger = UnansweredTrigger(**arguments)
    assert trigger.serialize() == (repair.start_trigger_args.trigger_cls, arguments)
    # Airflow renders the arguments that are template fields of the operator and attributes of the trigger.
    assert [name for name in repair.template_fields if name in arguments] == ["manifest"]
    given = vars(ingest) | ingest.settings
    for name in ("index", "field_map", "on_missing", "work_prefix", "service"):
        assert repaired.partial_kwargs[name] == given[name]
    assert tasks["reconcile"].upstream_task_ids == {"ingest_repaired"}
    assert tasks["reconcile"].trigger_rule == "none_failed"


def test_reconcile_links_to_the_index_and_the_dead_letters(make: Make) -> None:
    """It is the last stage of most runs, where a person looks first."""
    reconcile: Any = make().task_dict["reconcile"]
    assert [link.name for link in reconcile.operator_extra_links] == ["Index", "Dead letters"]
    assert (reconcile.index, reconcile.opensearch_conn_id) == ("{{ params.index }}", "opensearch_default")


def test_the_options_of_ingest_reach_it(make: Make) -> None:
    """Every policy of the file reaches its operator."""
    ingest = yaml.safe_load((INCLUDE / "pipelines" / "passages.yaml").read_text())["ingest"]
    configured = {
        "op_type": "upsert",
        "on_missing": {"text": "omit"},
        "on_unmatched": "index_partial",
        "ingest_pipeline": "p",
        "routing": "$.r",
        "load": {"number_of_replicas": 0},
        "max_body_bytes": 5,
        "max_in_flight": 6,
        "compress": True,
    }
    task: Any = make(ingest={**ingest, **configured, "dead_letters": "s3://d/x/"}).task_dict["ingest"]
    for name, value in configured.items():
        told = getattr(task.request(), name)
        assert (told.number_of_replicas if name == "load" else told) == (0 if name == "load" else value)
    assert task.dead_letters == "s3://d/x/"


def test_processors_reach_the_tasks_that_need_them(make: Make) -> None:
    """The stage prepare checks the fields that processors copy predictions to; ingest runs the processors."""
    configured = [{"copy_values": {"entries": [{"from_key": "SageMakerOutput", "to_key": "embedding"}]}}]
    ingest = {"index": "passages", "index_body": "passages", "processors": configured, "when": "/text != null"}
    tasks: Any = make(ingest=ingest, id="$.id", tests=[]).task_dict
    request = tasks["ingest"].request()
    assert (request.when, request.field_map) == ("/text != null", {"_id": "$.id"})
    assert request.processors == tasks["prepare"].processors
    assert request.processors[0]["copy_values"]["entries"][0]["to_key"] == "embedding"


def test_the_form_has_the_files_values(make: Make) -> None:
    """The fields of the form are typed and bounded."""
    params = make().params
    assert {name: params[name] for name in params} == {
        "source": "s3://documents/passages/",
        "index": "passages",
        "service": "sagemaker",
        "max_records": None,
        "dry_run": False,
        "force": False,
        "rebuild": False,
        "max_removed": None,
    }


def test_a_dated_source_is_rendered_unless_another_is_entered() -> None:
    """The form shows the template; a value that a person enters is not rendered and must not be a template."""
    spec = spec_with(source={"uri": "s3://d/dt={{ ds }}/"})
    template = jinja2.Template(source_of(spec))
    day = pendulum.datetime(2026, 1, 2)
    assert template.render(params={"source": spec.source.uri}, logical_date=day) == "s3://d/dt=2026-01-02/"
    assert template.render(params={"source": "s3://other/"}, logical_date=day) == "s3://other/"
    param = form_of(spec)["source"]
    assert param.resolve(value="s3://other/prefix/") == "s3://other/prefix/"
    with pytest.raises(Exception, match="does not match"):
        param.resolve(value="s3://other/{{ ds }}/")


@pytest.mark.parametrize(
    ("timezone", "starts_at", "date"),
    [
        ("Europe/Vienna", "2026-01-04T23:00Z", "2026-01-05"),
        ("Asia/Tokyo", "2026-01-04T17:00Z", "2026-01-05"),
        ("America/New_York", "2026-01-05T03:00Z", "2026-01-04"),
        ("UTC", "2026-01-05T00:00Z", "2026-01-05"),
    ],
)
def test_a_date_is_that_of_the_schedules_time_zone(timezone: str, starts_at: str, date: str) -> None:
    """Airflow's own `ds` is a date in UTC: at midnight in Vienna and at two in Tokyo it is the day before."""
    schedule = {"cron": "0 2 * * *", "timezone": timezone}
    spec = spec_with(source={"uri": "s3://d/{{ ds }}/{{ds_nodash}}/"}, schedule=schedule)
    template = jinja2.Template(source_of(spec), undefined=jinja2.StrictUndefined)
    moment = pendulum.parse(starts_at)
    rendered = template.render(params={"source": spec.source.uri}, logical_date=moment, ds=starts_at[:10])
    assert rendered == f"s3://d/{date}/{date.replace('-', '')}/"


def test_a_partitions_key_is_airflows_own() -> None:
    """A pipeline file is parsed without Airflow."""
    spec = spec_with(source={"uri": "s3://d/'{{partition_key}}'/"}, schedule={"partitions": "@daily"})
    run = {"partition_key": "2026-01"}
    rendered = jinja2.Template(source_of(spec)).render(params={"source": spec.source.uri}, dag_run=run)
    assert rendered == "s3://d/'2026-01'/"


def test_what_depends_on_the_service_is_chosen_by_the_form() -> None:
    """Equal values stay as they are; others become a template by service, objects as JSON."""
    assert value_for_service("a", {"a": {"x": 1}}) == {"x": 1}
    values: dict[str, Any] = {"a": {"x": "it's {{ no }} \\ template"}, "b": None}
    template = jinja2.Template(value_for_service("a", values))
    assert json.loads(template.render(params={"service": "a"})) == values["a"]
    assert template.render(params={"service": "b"}) == ""


def spec_with(**parts: Any) -> PipelineSpec:
    """Return the passages pipeline with other parts."""
    import msgspec

    spec = yaml.safe_load((INCLUDE / "pipelines" / "passages.yaml").read_text())
    return msgspec.convert({**spec, **parts}, PipelineSpec)


S3 = {"Records": [{"s3": {"bucket": {"name": "b"}, "object": {"key": "a+b/c%3Dd.jsonl"}}}]}


@pytest.mark.parametrize(
    ("message", "uris"),
    [
        (S3, ["s3://b/a b/c=d.jsonl"]),
        ({"Type": "Notification", "Message": json.dumps(S3)}, ["s3://b/a b/c=d.jsonl"]),
        ({"detail": {"bucket": {"name": "b"}, "object": {"key": "a b"}}}, ["s3://b/a b"]),
        ({"Event": "s3:TestEvent", "Bucket": "b"}, []),
        ([], []),
        ({"Records": [None]}, []),
        ({"Records": 5}, []),
        ({"Records": [{"s3": {"bucket": "b"}}]}, []),
        ({"detail": {"bucket": [], "object": {}}}, []),
    ],
)
def test_an_event_names_its_objects(message: Any, uris: list[str]) -> None:
    """The formats of S3, SNS and EventBridge name objects; S3's test event names none."""
    assert list(uris_of(json.dumps(message))) == uris
    assert list(uris_of("no JSON")) == []


def test_a_queue_that_refuses_is_a_plain_error() -> None:
    """The trigger logs it and polls again."""
    from botocore.exceptions import ClientError

    class Refused(NewObjectsTrigger):
        def _queue(self) -> Any:
            raise ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, "ReceiveMessage")

    trigger = Refused(uri="s3://b/in/", work_prefix="s3://b/work", pipeline="p", sqs="q")
    with pytest.raises(ConfigError, match=r"^queue q: .*AccessDenied.*; correct the AWS connection"):
        trigger._poll(must_list=False)  # noqa: SLF001 - one poll of an endless loop
