// The inputs, kept for a reload and written into links. Neither is sent to the service: the first stays in this tab, and
// browsers keep the fragment of an address to themselves.

const NAME = "inputs";
const FRAGMENT = "#inputs=";

/** Keeps a value until the tab is closed. */
export function keep(value) {
  try {
    sessionStorage.setItem(NAME, JSON.stringify(value));
  } catch {
    // The browser allows no storage, or the texts are larger than it allows.
  }
}

/** The value in the address, else the kept one, else null. Removes it from the address, so that a reload keeps later changes. */
export function restore() {
  const { hash } = location;
  if (hash.startsWith(FRAGMENT)) {
    history.replaceState(null, "", location.pathname + location.search);
    const linked = parse(() => decode(hash.slice(FRAGMENT.length)));
    if (linked) return linked;
  }
  return parse(() => sessionStorage.getItem(NAME));
}

export const isLink = (hash) => hash.startsWith(FRAGMENT);

/** The address of this page with a value in its fragment. */
export function link(value) {
  const bytes = new TextEncoder().encode(JSON.stringify(value));
  const text = btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
  return new URL(FRAGMENT + text.replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, ""), document.baseURI).href;
}

function decode(text) {
  const bytes = Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (character) => character.charCodeAt(0));
  return new TextDecoder().decode(bytes);
}

/** What `read` returns, parsed; null if it fails or is no object. */
function parse(read) {
  try {
    const value = JSON.parse(read());
    return value && typeof value === "object" ? value : null;
  } catch {
    return null;
  }
}
