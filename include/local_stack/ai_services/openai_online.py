"""OpenAI's embeddings and chat, one request at a time: the answer is the one a batch gives to the same body."""

import time

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from include.local_stack.ai_services.openai_api import NAME, admit, answer, body_of, lose_response
from include.local_stack.ai_services.openai_models import ANSWER, CHAT, EMBEDDINGS, READ, Body
from include.local_stack.ai_services.service import Context

_OPERATIONS = {EMBEDDINGS: "CreateEmbedding", CHAT: "CreateChatCompletion"}


def router(context: Context) -> APIRouter:
    """The endpoints as a part of the app."""
    api = OpenAIOnline(context)
    routes = APIRouter()
    for endpoint in _OPERATIONS:
        routes.add_api_route(endpoint, api.answered, methods=["POST"])
    return routes


class OpenAIOnline:
    """The operations of models."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def answered(self, request: Request) -> Response:
        """Answer one body of whichever endpoint it was sent to."""
        endpoint = request.url.path
        admit(self._context, request, _OPERATIONS[endpoint])
        found = await run_in_threadpool(self._computed, endpoint, await body_of(request))
        self._context.invocations[NAME] += 1
        lose_response(self._context, _OPERATIONS[endpoint])
        return answer(found)

    def _computed(self, endpoint: str, body: Body) -> Body:
        ask = READ[endpoint](body)
        return next(ANSWER[endpoint](self._context.model, [ask], int(time.time())))
