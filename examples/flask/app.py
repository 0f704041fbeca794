"""A Flask application that answers customers' questions: each request is one trace, down to the model calls.

`python app.py` runs it, see README.md. Without an `OPENAI_API_KEY`, a stand-in on this machine plays OpenAI.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

import openai
from flask import Flask, Response, jsonify, request

import lumiqtrace
from lumiqtrace.integrations.flask import (
    LumiqConfig,
    LumiqFlaskMiddleware,
    get_current_trace_id,
    observe_span,
    set_attribute,
)

DOCUMENTS = (
    "Returns: an order can be returned within 30 days of delivery. Faulty goods: within two years.",
    "Shipping: orders leave our warehouse within one working day and arrive in two to four days.",
    "Kettles: descale once a month. A kettle that leaks is faulty and must not be used any more.",
)

logger = logging.getLogger("shop")


def create_app() -> Flask:
    """The application; its key and server are in LUMIQTRACE_API_KEY and LUMIQTRACE_BASE_URL."""
    app = Flask("shop")
    config = LumiqConfig(capture_request_body=True, redact_fields=["order_number"])
    app.wsgi_app = LumiqFlaskMiddleware(app.wsgi_app, config=config, exclude=["/health"])
    lumiqtrace.patch_openai()
    client = openai.OpenAI()

    @observe_span("search documents", span_type="retriever")
    def search(question: str) -> list[str]:
        found = client.embeddings.create(model="text-embedding-3-small", input=[question, *DOCUMENTS])
        wanted, *vectors = [item.embedding for item in found.data]
        scores = [sum(a * b for a, b in zip(wanted, vector, strict=True)) for vector in vectors]
        return [text for _, text in sorted(zip(scores, DOCUMENTS, strict=True), reverse=True)[:2]]

    def answer(question: str, documents: list[str]) -> Iterator[str]:
        messages = [
            {"role": "system", "content": "Answer briefly, from this only:\n" + "\n".join(documents)},
            {"role": "user", "content": question},
        ]
        for chunk in client.chat.completions.create(model="gpt-4o-mini", messages=messages, stream=True):
            if chunk.choices and chunk.choices[0].delta.content:
                yield chunk.choices[0].delta.content

    @app.post("/customers/<customer>/questions")
    def ask(customer: str) -> Response:
        question = request.get_json()["question"]
        set_attribute("user.id", customer)
        set_attribute("feature", "questions")
        logger.info("answering", extra={"lumiqtrace_id": get_current_trace_id()})
        return Response(answer(question, search(question)), mimetype="text/plain")

    @app.get("/health")
    def health() -> Response:
        return jsonify(status="ok")

    return app


@contextmanager
def models() -> Iterator[None]:
    """OpenAI's models where there is a key for them; else the stand-in."""
    if os.environ.get("OPENAI_API_KEY"):
        yield
        return
    from lumiqtrace.demo.provider import serving

    with serving() as url:
        os.environ |= {"OPENAI_BASE_URL": url, "OPENAI_API_KEY": "no-key-needed"}
        yield


if __name__ == "__main__":
    with models():
        create_app().run(port=int(os.environ.get("PORT", "8000")))
