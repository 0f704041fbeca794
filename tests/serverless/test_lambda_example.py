"""The example runs as it is deployed, in AWS's runtime, with a model and a backend on loopback."""

from __future__ import annotations

import base64
import json
import re
from contextlib import contextmanager
from pathlib import Path

from lambda_sandbox import invocations, running, serving

from lumiqtrace.demo.provider import serving as model_serving

FOLDER = Path(__file__).parents[2] / "examples" / "serverless" / "aws_lambda"
TEMPLATE = (FOLDER / "template.yaml").read_text(encoding="utf-8")
APP = (FOLDER / "app.py").read_text(encoding="utf-8")


def request(body):
    return {
        "version": "2.0", "routeKey": "POST /questions", "rawPath": "/questions", "body": json.dumps(body),
        "requestContext": {"domainName": "x.execute-api.eu-central-1.amazonaws.com", "http": {"method": "POST"}},
    }  # fmt: skip


QUESTION = {"question": "My kettle leaks. Can I return it?", "user_id": "u-7"}


@contextmanager
def deployed(backend, **environ):
    environ = {"OPENAI_API_KEY": "none", "PYTHONDONTWRITEBYTECODE": "1", **environ}
    with (
        model_serving() as model,
        serving() as api,
        running(FOLDER, api, backend.url, freezes=True, OPENAI_BASE_URL=model, **environ) as box,
    ):
        yield box


def test_an_invocation_is_the_trace_of_the_readme(backend):
    with deployed(backend) as box:
        good = box.invoke(request(QUESTION), 25.0)
        assert len(invocations(backend)) == 1
        bad = box.invoke(request({}), 25.0)
        assert "lumiqtrace" not in box.output()
    assert good.json["statusCode"] == 200
    assert json.loads(good.json["body"]) == {"answer": "yes"}
    assert bad.json["statusCode"] == 400

    root, refused = invocations(backend)
    call = next(
        event for event in backend.events if event["operation"] == "chat" and event["status"] == "success"
    )
    assert (root["name"], root["tags"]["faas.trigger"]) == ("checkout", "api_gateway_v2")
    assert (root["tags"]["http.route"], root["tags"]["http.status_code"]) == ("/questions", "200")
    assert (call["trace_id"], call["parent_span_id"]) == (root["trace_id"], root["span_id"])
    assert call["user_id"] == "u-7"
    assert call["cost_usd"] > 0
    assert (refused["status"], refused["tags"]["http.status_code"]) == ("success", "400")


def test_a_body_of_any_kind_is_answered(backend):
    with deployed(backend) as box:
        for body in ("[]", '"x"', "null", "not json", "", '{"question": 7}'):
            refused = box.invoke({**request({}), "body": body}, 25.0)
            assert (refused.kind, refused.json["statusCode"]) == ("response", 400)
        encoded = base64.b64encode(json.dumps(QUESTION).encode()).decode()
        good = box.invoke({**request({}), "body": encoded, "isBase64Encoded": True}, 25.0)
        assert good.json["statusCode"] == 200
        odd = box.invoke({**request({}), "body": "%", "isBase64Encoded": True}, 25.0)
        assert odd.json["statusCode"] == 400


def test_without_a_key_it_runs_untraced(backend):
    with deployed(backend, LUMIQTRACE_API_KEY="") as box:
        assert box.invoke(request(QUESTION), 25.0).json["statusCode"] == 200
    assert backend.requests == []


def test_the_template_names_the_handler_and_leaves_time_for_the_flush():
    assert re.search(r"^ +Handler: app\.handler$", TEMPLATE, re.MULTILINE)
    timeout = int(re.search(r"^ +Timeout: (\d+)$", TEMPLATE, re.MULTILINE)[1])
    tries = 1 + int(re.search(r"max_retries=(\d+)", APP)[1])
    assert timeout >= tries * float(re.search(r"timeout=([\d.]+)", APP)[1]) + 2.0
    assert all(f"{name}: !Sub" in TEMPLATE for name in ("LUMIQTRACE_API_KEY", "OPENAI_API_KEY"))
