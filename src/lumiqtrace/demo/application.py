"""The application of the demonstration: it answers a customer's question from documents and an order system.

Nothing here knows of tracing but the spans around its own steps; the model calls are recorded because
`patch_openai()` was called. It retrieves by embedding, asks with a tool, streams its answer and checks it.
"""

from __future__ import annotations

import contextlib
import json
from typing import Any, Final

from .._span import span

MODEL: Final = "gpt-4o-mini"
EMBEDDING_MODEL: Final = "text-embedding-3-small"
QUESTION: Final = "Can I still return order 1042? The kettle leaks."

DOCUMENTS: Final = (
    "Returns: an order can be returned within 30 days of delivery. Faulty goods: within two years.",
    "Shipping: orders leave our warehouse within one working day and arrive in two to four days.",
    "Kettles: descale once a month. A kettle that leaks is faulty and must not be used any more.",
    "Gift cards are valid for three years and cannot be paid out.",
)

ORDERS: Final = {"1042": {"item": "kettle", "delivered": "2026-03-02", "price_usd": 39.9}}

TOOLS: Final = [
    {
        "type": "function",
        "function": {
            "name": "look_up_order",
            "description": "What was ordered, and when it was delivered",
            "parameters": {
                "type": "object",
                "properties": {"order_id": {"type": "string"}},
                "required": ["order_id"],
            },
        },
    }
]


def answer(options: dict[str, Any]) -> str:
    """Answer `QUESTION`, printing it as it is streamed; gives the id of the trace."""
    import openai

    client = openai.OpenAI(**options)
    with span("answer customer", "agent") as request:
        context = _retrieve(client)
        messages = [
            {"role": "system", "content": "Answer briefly, from this only:\n" + "\n".join(context)},
            {"role": "user", "content": QUESTION},
        ]
        messages += _ask_with_tool(client, messages)
        _stream(client, messages)
        _grade(client)
        _try_a_newer_model(client, messages)
    return request.trace_id or ""


def _retrieve(client: Any) -> list[str]:
    """The two documents nearest to the question."""
    with span("search documents", "retriever", documents=len(DOCUMENTS)) as search:
        found = client.embeddings.create(model=EMBEDDING_MODEL, input=[QUESTION, *DOCUMENTS])
        question, *vectors = [item.embedding for item in found.data]
        scores = [_dot(question, vector) for vector in vectors]
        ranked = sorted(zip(scores, DOCUMENTS, strict=True), reverse=True)
        search.set_eval_score("best_score", ranked[0][0])
        return [document for _, document in ranked[:2]]


def _dot(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def _ask_with_tool(client: Any, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One turn in which the model may look the order up; what it adds to the conversation."""
    turn = client.chat.completions.create(model=MODEL, messages=messages, tools=TOOLS)
    message = turn.choices[0].message
    added = [message.to_dict()]
    for call in message.tool_calls or []:
        with span(call.function.name, "tool"):
            order = ORDERS.get(json.loads(call.function.arguments).get("order_id"), {})
            added.append({"role": "tool", "tool_call_id": call.id, "content": json.dumps(order)})
    return added


def _stream(client: Any, messages: list[dict[str, Any]]) -> None:
    stream = client.chat.completions.create(
        model=MODEL, messages=messages, tools=TOOLS, stream=True, stream_options={"include_usage": True}
    )
    for chunk in stream:
        if chunk.choices and chunk.choices[0].delta.content:
            print(chunk.choices[0].delta.content, end="", flush=True)
    print()


def _grade(client: Any) -> None:
    """A second opinion. The demonstration's provider refuses it once; the client tries again by itself."""
    with span("check the answer", "guardrail"):
        client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "Is this about a return? " + QUESTION}]
        )


def _try_a_newer_model(client: Any, messages: list[dict[str, Any]]) -> None:
    """A call that fails, as some do; the application goes on without it."""
    import openai

    with contextlib.suppress(openai.APIStatusError):
        client.chat.completions.create(model="gpt-99-preview", messages=messages[:2])
