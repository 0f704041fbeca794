"""What is wrong, and that it is told: an ignore that hides nothing is itself an error of mypy's."""

from __future__ import annotations

import lumiqtrace
from lumiqtrace import LumiqConfig, observe_llm, observe_span
from lumiqtrace.integrations import vercel
from lumiqtrace.integrations.aws_lambda import traced_handler
from lumiqtrace.integrations.cloud_run import traced_function
from lumiqtrace.integrations.serverless import flush_on_return
from lumiqtrace.testing import capture


@observe_span("retrieve")
def observed(question: str) -> list[str]:
    return [question]


@observe_llm(model="gpt-4o")
def model_call(prompt: str) -> bytes:
    return prompt.encode()


@flush_on_return
def flushing(request: bytes) -> str:
    return request.decode()


@traced_handler(background=True)
def handler(event: dict[str, str], context: object) -> str:
    return event["id"]


@traced_function
def cloud_function(request: bytes) -> str:
    return request.decode()


def application(environ: dict[str, str], start_response: object) -> list[bytes]:
    return []


# The arguments and the result are those of the function.
observed(3)  # type: ignore[arg-type]
observed(question="q", more=1)  # type: ignore[call-arg]
number: int = observed("q")  # type: ignore[assignment]
model_call(b"p")  # type: ignore[arg-type]
flushing("r")  # type: ignore[arg-type]
handler({})  # type: ignore[call-arg]
cloud_function()  # type: ignore[call-arg]
vercel.traced(application)({})  # type: ignore[call-arg]
chat = lumiqtrace.wrap_openai("client").chat  # type: ignore[attr-defined]

# A decorator takes a function and its own options.
observe_span("retrieve", kind="retriever")  # type: ignore[call-overload]
observe_span("retrieve")(3)  # type: ignore[type-var]
observe_llm(name="gpt-4o")  # type: ignore[call-overload]
flush_on_return(timeout="1")  # type: ignore[call-overload]
flush_on_return(1.5)  # type: ignore[call-overload]
traced_handler(flush_timeout="1")  # type: ignore[call-overload]
traced_function(background=True)  # type: ignore[call-overload]
vercel.traced(application, excluded=["/health"])  # type: ignore[call-arg]

# Spans, labels and marks.
lumiqtrace.span()  # type: ignore[call-arg]
lumiqtrace.span("plan", kind=3)  # type: ignore[arg-type]
lumiqtrace.span("plan").set_usage(tokens=3)  # type: ignore[call-arg]
lumiqtrace.context(user="u")  # type: ignore[call-arg]
lumiqtrace.context(tags=["plan"])  # type: ignore[arg-type]
lumiqtrace.set_eval_score("good", "yes")  # type: ignore[arg-type]

# The options.
lumiqtrace.init(key="lqt_1")  # type: ignore[call-arg]
lumiqtrace.init(sample_rate="0.5")  # type: ignore[arg-type]
lumiqtrace.init(flush="sometimes")  # type: ignore[arg-type]
lumiqtrace.init(prices={"my-model": 1.0})  # type: ignore[dict-item]
lumiqtrace.init(before_send=lambda event: "no")  # type: ignore[arg-type, return-value]
LumiqConfig(api_key=3)  # type: ignore[arg-type]
LumiqConfig().debug = True  # type: ignore[misc]

with capture() as events:
    events.assert_called(times="1")  # type: ignore[arg-type]
    tokens: int = events[0].tokens  # type: ignore[attr-defined]
