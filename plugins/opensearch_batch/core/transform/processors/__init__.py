"""Registry of the supported processors. A pipeline with any other processor is rejected when its file is read.

Source: the plugin names of Data Prepper (2.17).
"""

from __future__ import annotations

from collections.abc import Mapping

from opensearch_batch.core.transform.processors.add_entries import AddEntries
from opensearch_batch.core.transform.processors.base import Processor, ProcessorOptions
from opensearch_batch.core.transform.processors.convert_type import ConvertType
from opensearch_batch.core.transform.processors.copy_values import CopyValues
from opensearch_batch.core.transform.processors.delete_entries import DeleteEntries
from opensearch_batch.core.transform.processors.drop_events import DropEvents
from opensearch_batch.core.transform.processors.parse_json import ParseJson
from opensearch_batch.core.transform.processors.rename_keys import RenameKeys
from opensearch_batch.core.transform.processors.select_entries import SelectEntries

__all__ = ["PROCESSORS", "Processor", "ProcessorOptions"]

PROCESSORS: Mapping[str, type[ProcessorOptions]] = {
    "add_entries": AddEntries,
    # Former name of convert_type.
    "convert_entry_type": ConvertType,
    "convert_type": ConvertType,
    "copy_values": CopyValues,
    "delete_entries": DeleteEntries,
    "drop_events": DropEvents,
    "parse_json": ParseJson,
    "rename_keys": RenameKeys,
    "select_entries": SelectEntries,
}
