"""Request checks. The constraints are AWS's own, read from botocore's service model, not copied by hand.

Members the model does not know are ignored, as AWS ignores them. Messages have AWS's wording.
"""

import functools
import re
from collections.abc import Iterator
from typing import Any

import botocore.session
from botocore.model import ListShape, MapShape, ServiceModel, Shape, StructureShape

from include.local_stack.ai_services.aws import AwsError, validation_error

_JSON_TYPES: dict[str, tuple[type, ...]] = {
    "structure": (dict,),
    "map": (dict,),
    "list": (list,),
    "string": (str,),
    "integer": (int,),
    "long": (int,),
    "boolean": (bool,),
    "float": (int, float),
    "double": (int, float),
}


@functools.cache
def _service_model(service: str) -> ServiceModel:
    return botocore.session.get_session().get_service_model(service)


def check(service: str, operation: str, body: dict[str, Any]) -> None:
    """Raise AWS's ValidationException unless the body fits the operation's input."""
    shape = _service_model(service).operation_model(operation).input_shape
    problems = list(_problems(shape, body, "")) if shape is not None else []
    if problems:
        noun = "error" if len(problems) == 1 else "errors"
        raise validation_error(f"{len(problems)} validation {noun} detected: {'; '.join(problems)}")


def error(service: str, kind: str, message: str) -> AwsError:
    """An error of the service with the status that its model gives it."""
    shape = _service_model(service).shape_for(kind)
    return AwsError(shape.metadata["error"]["httpStatusCode"], kind, message)


def members(service: str, shape: str) -> frozenset[str]:
    """The member names of a structure of the service."""
    found = _service_model(service).shape_for(shape)
    return frozenset(found.members) if isinstance(found, StructureShape) else frozenset()


def _problems(shape: Shape, value: Any, path: str) -> Iterator[str]:  # noqa: ANN401 -- any JSON value
    value = _whole_number(shape, value)
    kind: str = shape.type_name
    expected = _JSON_TYPES.get(kind)
    if expected and (not isinstance(value, expected) or (isinstance(value, bool) and kind != "boolean")):
        raise AwsError(400, "SerializationException", f"Member at '{path}' cannot be read as {kind}.")
    if isinstance(shape, StructureShape):
        yield from _structure_problems(shape, value, path)
    elif isinstance(shape, ListShape):
        for index, item in enumerate(value, 1):
            yield from _problems(shape.member, item, f"{path}.{index}.member")
    elif isinstance(shape, MapShape):
        for key, item in value.items():
            yield from _problems(shape.value, item, f"{path}.{key}.member")
    else:
        yield from (
            f"Value '{value}' at '{path}' failed to satisfy constraint: Member must {rule}"
            for rule in _broken_rules(shape, value)
        )


def _whole_number(shape: Shape, value: Any) -> Any:  # noqa: ANN401 -- any JSON value
    # ML Commons 2.x turns whole numbers into 1.0; AWS reads them back as integers.
    if isinstance(value, float) and value.is_integer() and shape.type_name in {"integer", "long"}:
        return int(value)
    return value


def _structure_problems(shape: StructureShape, value: dict[str, Any], path: str) -> Iterator[str]:
    if shape.metadata.get("union") and sum(value.get(name) is not None for name in shape.members) != 1:
        yield f"Value '{value}' at '{path}' failed to satisfy constraint: Member must have exactly one member set"
    for name, member in shape.members.items():
        spelled = f"{path}.{name[0].lower()}{name[1:]}".lstrip(".")
        if value.get(name) is not None:
            yield from _problems(member, value[name], spelled)
        elif name in shape.required_members:
            yield f"Value null at '{spelled}' failed to satisfy constraint: Member must not be null"


def _broken_rules(shape: Shape, value: str | float) -> Iterator[str]:
    low, high = shape.metadata.get("min"), shape.metadata.get("max")
    size, what = (len(value), "length") if isinstance(value, str) else (value, "value")
    if low is not None and size < low:
        yield f"have {what} greater than or equal to {low}"
    if high is not None and size > high:
        yield f"have {what} less than or equal to {high}"
    choices = shape.metadata.get("enum")
    if choices and value not in choices:
        yield f"satisfy enum value set: [{', '.join(choices)}]"
    pattern = shape.metadata.get("pattern")
    if pattern and isinstance(value, str) and not _fits(pattern, value):
        yield f"satisfy regular expression pattern: {pattern}"


def _fits(pattern: str, value: str) -> bool:
    try:
        return re.fullmatch(pattern, value) is not None
    except re.error:
        return True  # a Java-only pattern, such as \p{M}: no identifier we depend on has one
