"""What is read out of an event, by the shapes that each service sends, and out of anything else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumiqtrace.integrations import _lambda_event as shapes

REST = {
    "httpMethod": "POST",
    "resource": "/users/{id}",
    "path": "/users/7",
    "requestContext": {"stage": "prod"},
}
HTTP = {
    "version": "2.0", "routeKey": "GET /users/{id}", "rawPath": "/users/7",
    "requestContext": {"domainName": "x1.execute-api.eu-central-1.amazonaws.com", "http": {"method": "GET", "path": "/users/7"}},
}  # fmt: skip
URL = HTTP | {
    "routeKey": "$default",
    "requestContext": {"domainName": "x1.lambda-url.eu-central-1.on.aws", "http": {"method": "GET"}},
}
ALB = {"httpMethod": "GET", "path": "/users/7", "requestContext": {"elb": {"targetGroupArn": "arn"}}}
SOCKET = {
    "requestContext": {"connectionId": "c1", "routeKey": "sendmessage", "eventType": "MESSAGE"},
    "body": "x",
}

TRIGGERS = {
    "api_gateway": REST,
    "api_gateway_v2": HTTP,
    "api_gateway_websocket": SOCKET,
    "function_url": URL,
    "alb": ALB,
    "sqs": {"Records": [{"eventSource": "aws:sqs", "body": "x"}]},
    "sns": {"Records": [{"EventSource": "aws:sns", "Sns": {}}]},
    "s3": {"Records": [{"eventSource": "aws:s3"}]},
    "dynamodb": {"Records": [{"eventSource": "aws:dynamodb"}]},
    "kinesis": {"Records": [{"eventSource": "aws:kinesis"}]},
    "cloudfront": {"Records": [{"cf": {}}]},
    "kafka": {"eventSource": "aws:kafka", "records": {}},
    "mq": {"eventSource": "aws:rmq"},
    "schedule": {"source": "aws.events", "detail-type": "Scheduled Event", "detail": {}},
    "eventbridge": {"source": "shop.orders", "detail-type": "Scheduled Event", "detail": {}},
    "cloudwatch_logs": {"awslogs": {"data": "x"}},
    "firehose": {"deliveryStreamArn": "arn", "records": []},
    "cognito": {"triggerSource": "PreSignUp_SignUp", "userPoolId": "p"},
    "bedrock_agent": {"messageVersion": "1.0", "agent": {"name": "a"}},
    "direct": {"prompt": "Hi"},
}


@pytest.mark.parametrize("trigger", TRIGGERS)
def test_the_trigger_of_a_services_event(trigger):
    assert shapes.trigger_of(TRIGGERS[trigger]) == trigger


def test_the_route_and_not_the_path_is_what_requests_are_grouped_by():
    tags = {trigger: shapes.http_tags(TRIGGERS[trigger], trigger) for trigger in shapes.HTTP_TRIGGERS}
    path = {"http.path": "/users/7"}
    assert tags == {
        "api_gateway": {"http.method": "POST", "http.route": "/users/{id}", **path},
        "api_gateway_v2": {"http.method": "GET", "http.route": "/users/{id}", **path},
        "function_url": {"http.method": "GET", **path},
        "alb": {"http.method": "GET", **path},
        "api_gateway_websocket": {"http.route": "sendmessage"},
    }
    assert shapes.http_tags(TRIGGERS["sqs"], "sqs") == {}


def test_headers_are_found_in_any_case_and_in_either_field():
    for headers in ({"TraceParent": "t"}, {"traceparent": "t", "other": "x"}):
        assert shapes.header_of({"headers": headers}, "traceparent") == "t"
    assert shapes.header_of({"multiValueHeaders": {"Traceparent": ["t", "u"]}}, "traceparent") == "t"
    for nothing in (
        None,
        "x",
        {},
        {"headers": None},
        {"headers": {"a": "t"}},
        {"headers": {"traceparent": 7}},
    ):
        assert shapes.header_of(nothing, "traceparent") is None


def test_how_many_records_a_batch_has():
    assert shapes.records_of({"Records": [1, 2]}) == 2
    assert shapes.records_of({"Records": "x"}) is None
    assert shapes.records_of([1]) is None


@pytest.mark.parametrize(
    ("result", "status"),
    [
        ({"statusCode": 200}, 200), ({"statusCode": "503"}, 503), ({"statusCode": 7}, None), ({}, None),
        ({"statusCode": True}, None), ({"statusCode": "ok"}, None), ("x", None), ({"statusCode": 10**30}, None),
    ],
)  # fmt: skip
def test_the_status_of_a_result(result, status):
    assert shapes.status_code_of(result) == status


KEYS = st.sampled_from(
    [
        "requestContext",
        "Records",
        "headers",
        "http",
        "httpMethod",
        "routeKey",
        "eventSource",
        "source",
        "detail-type",
    ]
)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(KEYS | st.text(max_size=3), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(ANYTHING)
def test_whatever_comes_is_answered(event):
    trigger = shapes.trigger_of(event)
    assert trigger in {*TRIGGERS, "ses", "codecommit"}
    tags = shapes.http_tags(event, trigger)
    assert all(isinstance(value, str) for value in tags.values())
    shapes.header_of(event, "traceparent")
    shapes.records_of(event)
    shapes.status_code_of(event)
