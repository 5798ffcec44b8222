// What the page asks of its server, and what a refusal means for the person who asked.

const HINTS = {
  wrong_key: "Type the key that the server was started with into “API key”.",
  too_large: "Send fewer passages, or split long ones at blank lines.",
  empty: "Paste some passages, add a file, or load the example.",
  deadline: "Take the cascade with fewer candidates, or fewer passages.",
  draining: "Start the server again, then ask once more.",
  unavailable: "Start the server again, then ask once more.",
  no_model: "Reload the page to see the models that the server has now.",
  unreachable: "Is “gpurerank serve” still running? Start it again, then ask once more.",
};

/** A request that was not served; `hint` says what to do, `code` is the server's. */
export class Refused extends Error {
  constructor(message, code, hint = HINTS[code] ?? "") {
    super(message);
    this.code = code;
    this.hint = hint;
  }
}

/** What the server is: whether it wants a key, whether it has the demo corpus, and for who has the key its models. */
export const state = (key) => ask("playground/state", { headers: shown(key) });

/** The demo corpus. */
export const corpus = async () => (await ask("playground/corpus")).passages;

/**
 * Ranks; adds to the answer how long it took from here.
 * @param {object} asked As /v1/rank takes it.
 * @param {string} key The API key, or "".
 * @param {AbortSignal} signal
 */
export async function rank(asked, key, signal) {
  const started = performance.now();
  const headers = { "content-type": "application/json", ...shown(key) };
  const body = JSON.stringify(asked);
  const answer = await ask("v1/rank", { method: "POST", headers, body, signal });
  return { ...answer, took_ms: performance.now() - started };
}

function shown(key) {
  if (/[^\x20-\x7e]/.test(key)) {
    throw new Refused("The API key holds a character that no key can have.", "wrong_key");
  }
  return key ? { authorization: `Bearer ${key}` } : {};
}

async function ask(path, options = {}) {
  let response;
  let answer;
  try {
    response = await fetch(path, options);
    answer = await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    if (response) throw new Refused(`The server answered ${response.status} and no JSON.`, "http");
    throw new Refused("The server does not answer.", "unreachable");
  }
  if (!response.ok) throw refused(response, answer);
  return answer;
}

function refused(response, answer) {
  const code = answer.error?.code ?? "http";
  const message = sentence(answer.message ?? `The server answered ${response.status}`);
  if (response.status === 429) {
    const wait = response.headers.get("retry-after") ?? "a few";
    return new Refused(message, code, `Others are ahead of you. Ask again in ${wait} s.`);
  }
  if (response.status === 424 || response.status === 500) {
    const id = response.headers.get("x-request-id");
    return new Refused(message, code, id ? `The server's log has the reason, request ${id}.` : "");
  }
  return new Refused(message, code);
}

const sentence = (text) => `${text[0].toUpperCase()}${text.slice(1)}${/[.!?]$/.test(text) ? "" : "."}`;
