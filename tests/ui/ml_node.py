"""ML Commons on loopback, as far as the API asks it: a model, its jobs as tasks, and a search that matches all."""

from __future__ import annotations

import json
import re
from typing import Any

from tests.serving import Exchange, Server

ML = "/_plugins/_ml/"
MODEL = "lyjxwZABNrAVdFa9zrcZ"
OPENAI = "https://api.openai.com/v1/batches"
PARAMETERS: dict[str, Any] = {
    "model": "text-embedding-ada-002",
    "input_file_id": "file-1",
    "endpoint": "/v1/embeddings",
}
Answer = tuple[int, Any]


def refusal(status: int, reason: str) -> Answer:
    """Answer as OpenSearch refuses."""
    cause = {"type": "status_exception", "reason": reason}
    return status, {"error": {"root_cause": [cause], **cause}, "status": status}


class MLNode(Server):
    """A node whose model submits jobs to `batch_url` with `parameters`; `paid` has the body of each request for a job.

    `tasks` are its tasks by id. `answers` take the place of the next answers, `refuse_jobs` that of the answer to the
    next job; with `lose_answer`, a job is accepted and a gateway answers for the node.
    """

    def __init__(self) -> None:
        self.batch_url, self.parameters = OPENAI, PARAMETERS
        self.tasks: dict[str, dict[str, Any]] = {}
        self.paid: list[dict[str, Any]] = []
        self.asked: list[str] = []
        self.answers: list[Answer] = []
        self.has_index = True
        self.refuse_jobs: Answer | None = None
        self.lose_answer = False
        super().__init__(lambda request: request.reply(*self._answer(request)))

    def reset(self) -> None:
        """Forget everything."""
        self.batch_url, self.parameters, self.has_index = OPENAI, PARAMETERS, True
        self.refuse_jobs, self.lose_answer = None, False
        self.tasks.clear()
        self.paid.clear()
        self.asked.clear()
        self.answers.clear()

    def add(self, task_id: str, **members: Any) -> None:
        """Store a task of a job that runs."""
        fixed = {"task_type": "BATCH_PREDICTION", "function_name": "REMOTE", "state": "RUNNING", "is_async": False}
        times = {"create_time": 1725491751455, "last_update_time": 1725491751455}
        self.tasks[task_id] = {"model_id": MODEL, **fixed, **times, **members}

    def _answer(self, request: Exchange) -> Answer:
        body = json.loads(request.body() or "{}")
        path = request.path.partition("?")[0].removeprefix(ML)
        self.asked.append(f"{request.command} {path}")
        if self.answers:
            return self.answers.pop(0)
        if path == f"models/{MODEL}":
            action = {"action_type": "BATCH_PREDICT", "method": "POST", "url": self.batch_url}
            return 200, {"name": "model", "connector": {"parameters": self.parameters, "actions": [action]}}
        if path == f"models/{MODEL}/_batch_predict":
            return self._predict(body)
        if path == "tasks/_search":
            return self._search(body)
        if match := re.fullmatch(r"tasks/([\w-]+)(/_cancel)?", path):
            return self._task(match[1], is_cancelled=bool(match[2]))
        return refusal(404, "Failed to find model with this id")

    def _predict(self, body: dict[str, Any]) -> Answer:
        if refused := self.refuse_jobs:
            self.refuse_jobs = None
            return refused
        self.paid.append(body)
        given, task_id = body["parameters"], f"KYZSv5EBqL2d0mFvs8{len(self.paid):02d}"
        job = {"id": f"batch_{len(self.paid)}", "input_file_id": given.get("input_file_id", "file-1")}
        status = {"status": "in_progress"}
        if name := given.get("TransformJobName"):
            job = {"TransformJobArn": f"arn:aws:sagemaker:us-east-1:1:transform-job/{name}"}
            status = {"TransformJobStatus": "InProgress"}
        # After any intent, by whatever clock.
        self.add(task_id, remote_job=job | status, create_time=2**42)
        if self.lose_answer:
            self.lose_answer = False
            return refusal(502, "the gateway gave up")
        return 200, {"task_id": task_id, "status": "CREATED", "remote_job": job}

    def _search(self, body: dict[str, Any]) -> Answer:
        if not self.has_index:
            return refusal(404, "no such index [.plugins-ml-task]")
        by = [next(iter(each.items())) for each in body["sort"]]
        hits: list[dict[str, Any]] = [
            {
                "_index": ".plugins-ml-task",
                "_id": task_id,
                "_version": 2,
                "_score": None,
                "_source": task,
                "sort": [task_id if member == "_id" else task.get(member) for member, _ in by],
            }
            for task_id, task in self.tasks.items()
        ]
        for number, (_, how) in reversed(list(enumerate(by))):
            hits.sort(key=lambda hit: hit["sort"][number], reverse=how["order"] == "desc")
        # The stand-in has one page.
        hits = [] if "search_after" in body else hits[: body["size"]]
        found = {"total": {"value": len(self.tasks), "relation": "eq"}, "max_score": None, "hits": hits}
        shards = {"total": 1, "successful": 1, "skipped": 0, "failed": 0}
        return 200, {"took": 1, "timed_out": False, "_shards": shards, "hits": found}

    def _task(self, task_id: str, *, is_cancelled: bool) -> Answer:
        if task_id not in self.tasks:
            return refusal(404, "Failed to find task")
        return 200, {"status": "OK"} if is_cancelled else self.tasks[task_id]
