"""A Flask application on Vercel: each request is one trace, delivered after the user has the answer."""

import os

import openai
from flask import Flask, Response, jsonify, request

import lumiqtrace
from lumiqtrace.integrations.vercel import traced

lumiqtrace.init()
lumiqtrace.patch_openai()

app = Flask(__name__)
app.wsgi_app = traced(app.wsgi_app)
client = openai.OpenAI()


@app.post("/api/chat")
def chat() -> Response:
    """Answer `{"message": "...", "user": "..."}` with `{"answer": "..."}`."""
    body = request.get_json()
    lumiqtrace.set_attribute("user.id", body.get("user", "anonymous"))
    response = client.chat.completions.create(
        model=os.environ.get("MODEL", "gpt-4o-mini"),
        messages=[{"role": "user", "content": body["message"]}],
    )
    return jsonify(answer=response.choices[0].message.content)
