"""The Lambda function of `serverless.py`: one model call an invocation, with the tracer that `TRACER` names.

Each tracer is set up as its documentation says for AWS Lambda; `bare` is none.
"""

from __future__ import annotations

import os
from typing import Any

import openai
from overhead_probe import MESSAGES, network

TRACER, SINK = os.environ["TRACER"], os.environ["SINK"]


def handler(_event: object, _context: object) -> dict[str, Any]:
    answer = client.chat.completions.create(model="gpt-4o", messages=MESSAGES)
    return {"statusCode": 200, "body": answer.choices[0].message.content}


if TRACER == "lumiqtrace":
    import lumiqtrace
    from lumiqtrace.integrations.aws_lambda import traced_handler

    lumiqtrace.init("lqt_benchmark", base_url=SINK)
    lumiqtrace.patch_openai()
    handler = traced_handler(handler)
elif TRACER == "sentry":
    import sentry_sdk
    from sentry_sdk.integrations.aws_lambda import AwsLambdaIntegration
    from sentry_sdk.integrations.openai import OpenAIIntegration

    sentry_sdk.init(
        dsn=SINK.replace("http://", "http://benchmark@") + "/1",
        traces_sample_rate=1.0,
        integrations=[AwsLambdaIntegration(), OpenAIIntegration()],
    )
elif TRACER == "opentelemetry":
    from openinference.instrumentation.openai import OpenAIInstrumentor
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.instrumentation.aws_lambda import AwsLambdaInstrumentor
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{SINK}/v1/traces")))
    trace.set_tracer_provider(provider)
    OpenAIInstrumentor().instrument()
    AwsLambdaInstrumentor().instrument()

client = openai.OpenAI(api_key="none", max_retries=0, http_client=network()[0])
