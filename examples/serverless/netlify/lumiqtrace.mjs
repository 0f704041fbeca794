// Posts events to LumiqTrace's ingest API: what the SDK does, for a place where there is none.
// Node 20 or newer, no dependency.

import { createHash, randomBytes, randomUUID } from "node:crypto";
import { gzipSync } from "node:zlib";

const VERSION = "netlify-example/1";
const INGEST = "/v1/ingest";
const BATCH = 100; // the ingest API takes no more events in one request
const ATTEMPTS = 3;
const ATTEMPT_MS = 2000; // the function's user waits for it
// Providers repeat a wrong key in their message.
const KEY = /\b(?:(?:sk|gsk|lqt)[-_][\w*.-]+|AIza[\w*-]+|[Bb]earer\s+[\w*.~+/=-]{8,})/g;

// US dollars for a million tokens: what is sent, what of it was cached, what came back. Yours may differ.
const PRICES = {
  "gpt-4o": [2.5, 1.25, 10],
  "gpt-4o-mini": [0.15, 0.075, 0.6],
};

/** One request of your user, and the calls made in it: `await trace.deliver()` before you answer. */
export class Trace {
  constructor({ userId, sessionId, tags = {} } = {}) {
    this.traceId = randomBytes(16).toString("hex");
    this.events = [];
    this.common = { user_id: userId, session_id: sessionId, tags };
  }

  /** Call a chat completions API and note the call. Gives its answer; throws where there is none. */
  async chat(request, { url = "https://api.openai.com/v1", key, timeoutMs = 20_000 }) {
    const event = this.begin(request);
    const began = performance.now();
    try {
      const response = await fetch(`${url}/chat/completions`, {
        method: "POST",
        headers: { "content-type": "application/json", authorization: `Bearer ${key}` },
        body: JSON.stringify(request),
        signal: AbortSignal.timeout(timeoutMs),
      });
      const answer = await response.json().catch((error) => {
        if (response.ok) throw error;
        return {}; // a proxy's page: its status says what happened
      });
      if (!response.ok) throw new ProviderError(response.status, answer?.error);
      try {
        noteAnswer(event, answer);
      } catch (problem) {
        event.tags.cost = "unknown"; // an answer of another shape is an answer all the same
        console.error(`lumiqtrace: the usage of an answer could not be read: ${problem.message}`);
      }
      return answer;
    } catch (error) {
      noteError(event, error);
      throw error;
    } finally {
      event.latency_ms = Math.round((performance.now() - began) * 1000) / 1000;
      this.events.push(event);
    }
  }

  begin(request) {
    return {
      event_id: randomUUID(), // the same on every attempt: a repeated event is stored once
      trace_id: this.traceId,
      span_id: randomBytes(8).toString("hex"),
      timestamp: new Date().toISOString(),
      provider: "openai",
      model: request.model ?? "unknown",
      operation: "chat",
      latency_ms: 0,
      input_tokens: 0,
      output_tokens: 0,
      cost_usd: 0,
      status: "success",
      stream: false,
      environment: process.env.LUMIQTRACE_ENVIRONMENT ?? process.env.CONTEXT ?? "production",
      sdk_version: VERSION,
      span_kind: "llm",
      prompt_hash: createHash("sha256").update(JSON.stringify(request.messages) ?? "").digest("hex"),
      ...this.common,
      tags: { ...this.common.tags },
    };
  }

  /** Send what was noted. True if it arrived; false, with a line in the log, if not: never an error. */
  async deliver() {
    const waiting = this.events.splice(0);
    let arrived = true;
    for (let at = 0; at < waiting.length; at += BATCH) {
      arrived = (await post(waiting.slice(at, at + BATCH))) && arrived;
    }
    return arrived;
  }
}

class ProviderError extends Error {
  constructor(status, told) {
    super(told?.message ?? `the provider answered ${status}`);
    this.name = "ProviderError";
    this.status = status;
    this.code = told?.code ?? told?.type ?? `http_${status}`;
  }
}

function noteAnswer(event, answer) {
  const usage = answer.usage ?? {};
  const choice = answer.choices?.[0] ?? {};
  const tools = (choice.message?.tool_calls ?? []).map((call) => call.function?.name).filter(Boolean);
  event.model = answer.model ?? event.model;
  event.input_tokens = usage.prompt_tokens ?? 0;
  event.output_tokens = usage.completion_tokens ?? 0;
  event.cached_tokens = usage.prompt_tokens_details?.cached_tokens || undefined;
  event.finish_reason = choice.finish_reason ?? undefined;
  event.tools_used = tools.length ? tools : undefined;
  const cost = costOf(event);
  if (cost === undefined) event.tags.cost = "unknown"; // 0 would say that it was free
  else event.cost_usd = cost;
}

function noteError(event, error) {
  const rateLimited = error.status === 429;
  event.status = rateLimited ? "rate_limited" : error.name === "TimeoutError" ? "timeout" : "error";
  const codes = [error.code, error.cause?.code, error.name]; // of a fetch that failed, the cause has it
  event.error_code = codes.find((code) => typeof code === "string");
  event.error_message = String(error.message).replace(KEY, "[REDACTED]").slice(0, 500);
}

/** Dollars; a dated model (`gpt-4o-2024-08-06`) costs what the model costs. */
function costOf({ model, input_tokens, cached_tokens = 0, output_tokens }) {
  const prices = PRICES[model.replace(/-\d{4}-\d{2}-\d{2}$/, "")];
  if (prices === undefined) return undefined;
  const [sent, cached, received] = prices;
  const fresh = input_tokens - cached_tokens;
  return (fresh * sent + cached_tokens * cached + output_tokens * received) / 1e6;
}

async function post(events) {
  const base = process.env.LUMIQTRACE_BASE_URL ?? "https://api.lumiqtrace.com";
  const body = gzipSync(events.map((event) => JSON.stringify(event)).join("\n"));
  const headers = {
    "x-api-key": process.env.LUMIQTRACE_API_KEY ?? "",
    "content-type": "application/x-ndjson",
    "content-encoding": "gzip",
  };
  let problem;
  for (let attempt = 1; attempt <= ATTEMPTS; attempt += 1) {
    try {
      const signal = AbortSignal.timeout(ATTEMPT_MS);
      const response = await fetch(base + INGEST, { method: "POST", headers, body, signal, redirect: "error" });
      const told = await response.json().catch(() => ({}));
      if (response.ok) {
        for (const { line, error } of told.errors ?? []) console.error(`lumiqtrace: event ${line}: ${error}`);
        return !told.errors?.length;
      }
      problem = `${response.status} ${told.error ?? ""}`.trim();
      if (response.status < 500 && response.status !== 429) break; // the next attempt would fare no better
    } catch (error) {
      problem = error.cause?.code ?? error.name;
    }
    await new Promise((resolve) => setTimeout(resolve, 100 * 2 ** attempt * Math.random()));
  }
  console.error(`lumiqtrace: ${events.length} events were not delivered: ${problem}`);
  return false;
}
