"""A Lambda function behind an HTTP API that answers customers' questions; each invocation is one trace."""

import base64
import json
from typing import Any

import openai

import lumiqtrace
from lumiqtrace.integrations.aws_lambda import traced_handler

# At module level: done once, when the sandbox starts. The keys are in the environment, see template.yaml.
lumiqtrace.init(environment="production")
lumiqtrace.patch_openai()
# Two tries of ten seconds, and two for delivering the events, are less than the function's timeout of 25.
client = openai.OpenAI(timeout=10.0, max_retries=1)

INSTRUCTIONS = "You answer customers of a kitchenware shop, in one or two sentences."


@traced_handler
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:  # noqa: ARG001 - what Lambda passes
    """Answer the `question` of a POST's JSON body."""
    asked = body_of(event)
    question = asked.get("question")
    if not isinstance(question, str) or not question:
        return answer(400, error="question: it is missing")
    with lumiqtrace.context(user_id=asked.get("user_id")):
        completion = client.chat.completions.create(
            model="gpt-4o-mini",
            messages=[
                {"role": "system", "content": INSTRUCTIONS},
                {"role": "user", "content": question},
            ],
        )
    return answer(200, answer=completion.choices[0].message.content)


def body_of(event: dict[str, Any]) -> dict[str, Any]:
    """The JSON object that a request's body is; an empty one where it is something else."""
    body = event.get("body") or ""
    try:
        found = json.loads(base64.b64decode(body) if event.get("isBase64Encoded") else body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def answer(status: int, **body: Any) -> dict[str, Any]:
    """What API Gateway makes a response of."""
    return {
        "statusCode": status,
        "headers": {"content-type": "application/json"},
        "body": json.dumps(body, ensure_ascii=False),
    }
