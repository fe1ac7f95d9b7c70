// Calls to the service that served this page.

let key = "";

export const setKey = (value) => {
  key = value.trim();
};

export const hasKey = () => key !== "";

export const address = (path) => new URL(path, document.baseURI).href;

/** An error response of the service. `status` is 0 if the service could not be reached. */
export class ServiceError extends Error {
  constructor(status, { type = "", message = "", param = null } = {}, retryAfter = 0) {
    super(message);
    Object.assign(this, { status, type, param, retryAfter });
  }
}

/** Returns {content, stages: [[name, ms]…], total: ms}. Throws ServiceError, or AbortError if the signal fires. */
export async function call(path, body, signal) {
  performance.clearResourceTimings();
  const started = performance.now();
  const response = await send(path, body, signal);
  const content = await response.json().catch((error) => {
    if (error.name === "AbortError") throw error;
    return {};
  });
  if (!response.ok) {
    const message = `The service responded with ${response.status} ${response.statusText}.`;
    const seconds = Number.parseInt(response.headers.get("Retry-After"), 10);
    throw new ServiceError(response.status, content.error ?? { message }, Math.max(1, seconds || 1));
  }
  return { content, stages: stages(response.headers.get("Server-Timing")), total: elapsed(path, started) };
}

/** Milliseconds from request to last byte. Resource timing excludes the time that this page spends drawing. */
function elapsed(path, started) {
  return performance.getEntriesByName(address(path), "resource").at(-1)?.duration || performance.now() - started;
}

async function send(path, body, signal) {
  const headers = key ? { Authorization: `Bearer ${key}` } : {};
  const options = body
    ? { method: "POST", headers: { ...headers, "Content-Type": "application/json" }, body: JSON.stringify(body) }
    : { headers };
  try {
    return await fetch(address(path), { ...options, signal, cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServiceError(0, { message: "The service cannot be reached." });
  }
}

/** Parses Server-Timing into [[name, ms]…]. */
function stages(header) {
  return [...(header ?? "").matchAll(/([\w-]+);dur=([\d.]+)/g)].map(([, name, ms]) => [name, Number(ms)]);
}
