// Talks to the server that this page came from. Knows the API key, and nothing of what is shown.

const KEY = "vcore-api-key";

/** An answer that is an error. */
export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export function apiKey() {
  return sessionStorage.getItem(KEY) || "";
}

export function setApiKey(key) {
  sessionStorage.setItem(KEY, key);
}

function headers(more) {
  const key = apiKey();
  return key ? { ...more, Authorization: `Bearer ${key}` } : more;
}

async function checked(response) {
  if (response.ok) return response;
  let message = `${response.status} ${response.statusText}`.trim();
  try {
    const body = await response.json();
    if (body.error && body.error.message) message = body.error.message;
  } catch {
    // no JSON: the status has to do
  }
  throw new ApiError(response.status, message);
}

/** GET; resolves to the response, rejects with ApiError if it is one, or TypeError if nobody answers. */
export async function get(path) {
  return checked(await fetch(path, { headers: headers({}), cache: "no-store" }));
}

/** POST a request that streams, and yield each event's JSON. Ends with [DONE], or when `signal` aborts it. */
export async function* stream(path, body, signal) {
  const response = await checked(
    await fetch(path, {
      method: "POST",
      headers: headers({ "Content-Type": "application/json" }),
      body: JSON.stringify({ ...body, stream: true }),
      signal,
    }),
  );
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) break;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      const data = line.startsWith("data:") ? line.slice(5).trim() : "";
      if (data === "[DONE]") return;
      if (!data) continue;
      const event = JSON.parse(data);
      if (event.error) throw new ApiError(event.error.code || 500, event.error.message || "the server failed");
      yield event;
    }
  }
  throw new ApiError(0, "The connection ended before the answer did.");
}
