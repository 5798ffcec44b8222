// What went wrong, readably, with the focus where it can be changed.

const FIELDS = { wrong_key: "key", query: "query", empty: "text", candidates: "candidates" };
const at = (id) => document.getElementById(id);

/** Shows an error; its `hint` says what to do. */
export function fail(error) {
  at("failure-what").textContent = error.message;
  at("failure-hint").textContent = error.hint ?? "";
  at("failure").hidden = false;
  if (error.code === "wrong_key") at("key-field").hidden = false;
  at(FIELDS[error.code])?.focus();
  at("failure").scrollIntoView({ block: "nearest" });
}

/** Takes the last error away. */
export function clear() {
  at("failure").hidden = true;
}
