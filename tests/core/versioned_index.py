"""An index in memory that orders writes by external versions.

`test_the_node_orders_writes_likewise` compares it with a node.
"""

from __future__ import annotations

import json
from typing import Any

from tests.scripted import Answer

CONFLICT = "version_conflict_engine_exception"


class VersionedIndex:
    """Answers bulk requests and `_mget`; `forget` is what `index.gc_deletes` does to the versions of deletions."""

    def __init__(self) -> None:
        self.documents: dict[str, Any] = {}
        self.versions: dict[str, int] = {}
        self.writes = self.fetches = 0

    def answer(self, body: bytes) -> Answer:
        """Answer a request."""
        lines = [json.loads(line) for line in body.splitlines()]
        if "docs" in lines[0]:
            self.fetches += 1
            return 200, {"docs": [self._found(wanted["_id"]) for wanted in lines[0]["docs"]]}
        items = []
        while lines:
            ((action, members),) = lines.pop(0).items()
            document = lines.pop(0) if action != "delete" else None
            items.append({action: self._write(members, document)})
        return 200, {"errors": any("error" in item for answer in items for item in answer.values()), "items": items}

    def update(self, name: str, **members: Any) -> None:
        """Change members of a document, as another writer's `_update` does."""
        self.documents[name] |= members
        self.versions[name] += 1

    def forget(self) -> None:
        """Forget the versions of deleted documents."""
        self.versions = {name: version for name, version in self.versions.items() if name in self.documents}

    def _found(self, name: str) -> dict[str, Any]:
        if name not in self.documents:
            return {"_id": name, "found": False}
        return {"_id": name, "found": True, "_version": self.versions[name], "_source": self.documents[name]}

    def _write(self, members: dict[str, Any], document: Any) -> dict[str, Any]:
        name, current = members["_id"], self.versions.get(members["_id"], 0)
        version = members.get("version", current + 1)
        if version < current:
            return {"status": 409, "error": {"type": CONFLICT, "reason": f"current version [{current}] is higher"}}
        self.writes += 1
        existed = name in self.documents
        self.versions[name] = version
        if document is None:
            self.documents.pop(name, None)
            return {"status": 200, "result": "deleted"} if existed else {"status": 404, "result": "not_found"}
        self.documents[name] = document
        return {"status": 200, "result": "updated"} if existed else {"status": 201, "result": "created"}
