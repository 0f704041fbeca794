// POST /api/chat {"message": "...", "user": "..."}: asks a model, and has the call recorded before it answers.

import { Trace } from "../../lumiqtrace.mjs";

export const config = { path: "/api/chat", method: "POST" };

export default async function chat(request) {
  const { message, user } = await request.json();
  const trace = new Trace({ userId: user, tags: { feature: "chat" } });
  let answer;
  try {
    answer = await trace.chat(
      { model: process.env.MODEL ?? "gpt-4o-mini", messages: [{ role: "user", content: message }] },
      {
        url: process.env.OPENAI_BASE_URL,
        key: process.env.OPENAI_API_KEY,
        timeoutMs: Number(process.env.MODEL_TIMEOUT_MS ?? 20_000),
      },
    );
  } catch {
    await trace.deliver(); // a failed call is an event too, and has the reason
    return reply(trace, 502, { error: "The model did not answer." });
  }
  await trace.deliver(); // before the answer: the function may be frozen right after it
  return reply(trace, 200, { answer: answer.choices[0].message.content });
}

function reply(trace, status, body) {
  return Response.json(body, { status, headers: { "x-lumiqtrace-id": trace.traceId } });
}
