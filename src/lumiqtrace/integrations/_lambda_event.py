"""What an AWS Lambda event says about its invocation: who caused it, the route, the caller's trace.

Pure functions of the event as it came; whatever its shape, they answer, and every answer that is grouped by
has few values. The shapes are those of the AWS Lambda developer guide's pages on each service.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

_RECORDS: Final = {
    "aws:sqs": "sqs",
    "aws:sns": "sns",
    "aws:s3": "s3",
    "aws:dynamodb": "dynamodb",
    "aws:kinesis": "kinesis",
    "aws:ses": "ses",
    "aws:codecommit": "codecommit",
}
_SOURCES: Final = {"aws:kafka": "kafka", "SelfManagedKafka": "kafka", "aws:mq": "mq", "aws:rmq": "mq"}

HTTP_TRIGGERS: Final = frozenset(
    {"api_gateway", "api_gateway_v2", "api_gateway_websocket", "function_url", "alb"}
)
"""Those whose event is an HTTP request."""

_DIRECT: Final = "direct"


def trigger_of(event: object) -> str:
    """What caused the invocation: `api_gateway`, `sqs`, `schedule` and so on; `direct` for all else."""
    if not isinstance(event, Mapping):
        return _DIRECT
    request = event.get("requestContext")
    if isinstance(request, Mapping):
        return _http_trigger(event, request)
    first = _first_record(event)
    if first is not None:
        source = first.get("eventSource") or first.get("EventSource")
        return _RECORDS.get(_text(source), "cloudfront" if "cf" in first else _DIRECT)
    if "detail-type" in event and "source" in event:
        scheduled = event["detail-type"] == "Scheduled Event"
        return (
            "schedule" if scheduled and event["source"] in ("aws.events", "aws.scheduler") else "eventbridge"
        )
    return _other_trigger(event)


def _http_trigger(event: Mapping[Any, Any], request: Mapping[Any, Any]) -> str:
    if "elb" in request:
        return "alb"
    if "connectionId" in request:
        return "api_gateway_websocket"
    if "http" in request:
        return "function_url" if ".lambda-url." in _text(request.get("domainName")) else "api_gateway_v2"
    return "api_gateway" if "httpMethod" in event else _DIRECT


def _other_trigger(event: Mapping[Any, Any]) -> str:
    source = event.get("eventSource")
    if isinstance(source, str) and source in _SOURCES:
        return _SOURCES[source]
    if "awslogs" in event:
        return "cloudwatch_logs"
    if "deliveryStreamArn" in event:
        return "firehose"
    if "triggerSource" in event and "userPoolId" in event:
        return "cognito"
    if "agent" in event and "messageVersion" in event:
        return "bedrock_agent"
    return _DIRECT


def http_tags(event: object, trigger: str) -> dict[str, str]:
    """`http.method`, `http.route` and `http.path` of a request; nothing for another trigger.

    The route is API Gateway's, such as `/users/{id}`; a load balancer and a function URL have none.
    """
    if trigger not in HTTP_TRIGGERS or not isinstance(event, Mapping):
        return {}
    request = event["requestContext"]
    http = request.get("http")
    asked = http if isinstance(http, Mapping) else event
    found = {
        "http.method": _text(asked.get("method") or event.get("httpMethod")),
        "http.route": _route(event, request, trigger),
        "http.path": _text(event.get("rawPath") or event.get("path")),
    }
    return {name: value for name, value in found.items() if value}


def _route(event: Mapping[Any, Any], request: Mapping[Any, Any], trigger: str) -> str:
    if trigger == "api_gateway":
        return _text(event.get("resource"))
    if trigger == "api_gateway_v2":
        # `GET /users/{id}`, `ANY /users/{id}`, or `$default` where no route matched.
        return _text(event.get("routeKey")).partition(" ")[2]
    return _text(request.get("routeKey")) if trigger == "api_gateway_websocket" else ""


def header_of(event: object, name: str) -> str | None:
    """The first value of a header of a request, whatever the case of its name; `name` is in lower case."""
    if not isinstance(event, Mapping):
        return None
    for field in ("headers", "multiValueHeaders"):
        headers = event.get(field)
        for key, value in headers.items() if isinstance(headers, Mapping) else ():
            if isinstance(key, str) and key.lower() == name:
                first = value[0] if isinstance(value, list) and value else value
                return first if isinstance(first, str) else None
    return None


def records_of(event: object) -> int | None:
    """How many records a batch of a queue or a stream holds; None for another event."""
    records = event.get("Records") if isinstance(event, Mapping) else None
    return len(records) if isinstance(records, list) else None


def status_code_of(result: object) -> int | None:
    """The HTTP status of a handler's result; None where it has none."""
    code = result.get("statusCode") if isinstance(result, Mapping) else None
    if isinstance(code, str) and code.isdecimal() and len(code) == 3:
        code = int(code)
    return code if isinstance(code, int) and not isinstance(code, bool) and 100 <= code <= 599 else None


def _first_record(event: Mapping[Any, Any]) -> Mapping[Any, Any] | None:
    records = event.get("Records")
    first = records[0] if isinstance(records, list) and records else None
    return first if isinstance(first, Mapping) else None


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
