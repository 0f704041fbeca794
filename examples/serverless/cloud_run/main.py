"""A Flask service on Cloud Run: each request is one trace, delivered before its answer is complete."""

import os

import openai
from flask import Flask, Response, jsonify, request

import lumiqtrace
from lumiqtrace.integrations.flask import LumiqFlaskMiddleware

lumiqtrace.init()
lumiqtrace.patch_openai()

app = Flask(__name__)
app.wsgi_app = LumiqFlaskMiddleware(app.wsgi_app, exclude=["/health"])
client = openai.OpenAI()


@app.post("/chat")
def chat() -> Response:
    """Answer `{"message": "...", "user": "..."}` with `{"answer": "..."}`."""
    body = request.get_json()
    lumiqtrace.set_attribute("user.id", body.get("user", "anonymous"))
    response = client.chat.completions.create(
        model=os.environ.get("MODEL", "gpt-4o-mini"),
        messages=[{"role": "user", "content": body["message"]}],
    )
    return jsonify(answer=response.choices[0].message.content)


@app.get("/health")
def health() -> Response:
    """Whether the service runs; makes no trace."""
    return jsonify(status="ok")
