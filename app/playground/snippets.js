// A request as a curl command and as Python code. They read the API key from the environment and never contain it.

/** Quotes one argument for a POSIX shell. */
const quote = (text) => `'${text.replaceAll("'", String.raw`'\''`)}'`;

export function curl(url, body, keyed) {
  const parts = [
    `curl ${quote(url)}`,
    ...(keyed ? ['-H "Authorization: Bearer $L2V_API_KEY"'] : []),
    "-H 'Content-Type: application/json'",
    `-d ${quote(JSON.stringify(body, null, 2))}`,
  ];
  return parts.join(" \\\n  ");
}

/** JSON of strings, lists and objects alone is also valid Python. */
/** `field` is the field of the response to print. */
export function python(url, body, keyed, field) {
  const headers = '    headers={"Authorization": f"Bearer {os.environ[\'L2V_API_KEY\']}"},\n';
  return `${keyed ? "import os\n\n" : ""}import httpx

response = httpx.post(
    ${JSON.stringify(url)},
${keyed ? headers : ""}    json=${JSON.stringify(body, null, 4).replaceAll("\n", "\n    ")},
    timeout=120,
)
response.raise_for_status()
print(response.json()["${field}"])
`;
}

/** Copies to the clipboard, with a fallback for insecure contexts, in which browsers hide `navigator.clipboard`. */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copyBySelection(text);
  }
}

function copyBySelection(text) {
  const focused = document.activeElement;
  const area = document.createElement("textarea");
  area.value = text;
  area.className = "visually-hidden";
  document.body.append(area);
  area.select();
  const copied = document.execCommand("copy");
  area.remove();
  focused?.focus();
  return copied;
}
