// Passages from what a person pastes or uploads, and how one is shown in two lines.

const LONGEST_TITLE = 90;

/**
 * Splits text into passages.
 * @param {string} text
 * @param {"auto" | "lines" | "blocks" | "jsonl"} how
 * @returns {{passages: string[], kind: string}} what was found, and how in words
 * @throws {Error} A JSON line has no "text"; the message names the line.
 */
export function split(text, how) {
  const plain = text.replace(/^\uFEFF/, "").replace(/\r\n?/g, "\n");
  const chosen = how === "auto" ? fitting(plain) : how;
  if (chosen === "jsonl") return { passages: jsonLines(plain), kind: "from JSON lines" };
  if (chosen === "blocks") return { passages: blocks(plain), kind: "between blank lines" };
  return { passages: filled(plain.split("\n")), kind: "one a line" };
}

/** Reads a file's passages; a file's name decides where "auto" would guess. */
export async function read(file, how) {
  const jsonl = /\.(jsonl|ndjson)$/i.test(file.name);
  const { passages } = split(await file.text(), how === "auto" && jsonl ? "jsonl" : how);
  return { name: file.name, passages };
}

/** The first line as a title, where there is more than a line; the rest. */
export function titled(passage) {
  const [first, ...rest] = passage.trim().split("\n");
  const body = rest.join(" ").replace(/\s+/g, " ").trim();
  if (!body || first.length > LONGEST_TITLE) return { title: "", body: passage.trim() };
  return { title: first.replace(/^#+ /, ""), body };
}

/** A passage in a few words, for a sentence. */
export function named(passage) {
  const { title, body } = titled(passage);
  const words = title || body;
  const short = Array.from(words).slice(0, 48).join("");
  return `“${short.length < words.length ? `${short.trimEnd()}…` : words}”`;
}

function fitting(text) {
  const first = text.trimStart().split("\n", 1)[0];
  if (first.startsWith("{") && hasText(parsed(first))) return "jsonl";
  return /\n[^\S\n]*\n/.test(text.trim()) ? "blocks" : "lines";
}

function blocks(text) {
  const found = filled(text.split(/\n(?:[^\S\n]*\n)+/));
  // A heading alone would be a passage that answers nothing: it stays with what follows it.
  return found.reduceRight((kept, block) => {
    const heading = /^#{1,6} [^\n]*$/.test(block) && kept.length > 0;
    return heading ? [`${block}\n${kept[0]}`, ...kept.slice(1)] : [block, ...kept];
  }, []);
}

function jsonLines(text) {
  return text.split("\n").flatMap((line, number) => {
    if (!line.trim()) return [];
    const value = parsed(line);
    if (!hasText(value)) throw new Error(`Line ${number + 1} is no JSON object with a "text".`);
    return value.text.trim() ? [value.text] : [];
  });
}

function parsed(line) {
  try {
    return JSON.parse(line);
  } catch {
    return null;
  }
}

const hasText = (value) => typeof value?.text === "string";
const filled = (parts) => parts.map((part) => part.trim()).filter(Boolean);
