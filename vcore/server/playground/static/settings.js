// The sampling controls. What they say is read when a message is sent, and kept for this tab.

import { byId, setText } from "./dom.js";

const RANGES = ["temperature", "top-p", "min-p", "repetition-penalty"];
const FIELDS = [...RANGES, "top-k", "max-tokens", "seed", "stop", "system"];
const STORE = "vcore-settings";

const defaults = Object.fromEntries(FIELDS.map((id) => [id, byId(id).value]));

export function mode() {
  return document.querySelector("input[name=mode]:checked").value;
}

export function systemPrompt() {
  return byId("system").value.trim();
}

/** The fields of a request, without those that are left to the server. */
export function sampling() {
  const fields = {
    temperature: Number(byId("temperature").value),
    top_p: Number(byId("top-p").value),
    min_p: Number(byId("min-p").value),
    repetition_penalty: Number(byId("repetition-penalty").value),
    top_k: byId("top-k").valueAsNumber || 0,
    max_tokens: byId("max-tokens").valueAsNumber || 512,
  };
  const seed = byId("seed").valueAsNumber;
  if (Number.isInteger(seed)) fields.seed = seed;
  const stop = byId("stop").value;
  if (stop) fields.stop = [stop];
  return fields;
}

/** The first field whose value is out of range, or null. */
export function invalidField() {
  return FIELDS.map(byId).find((field) => !field.checkValidity()) || null;
}

function show() {
  for (const id of RANGES) setText(byId(`${id}-value`), Number(byId(id).value).toFixed(2));
  const words = [
    mode() === "chat" ? "chat" : "completion",
    `temperature ${Number(byId("temperature").value)}`,
    `top-p ${Number(byId("top-p").value)}`,
    `${byId("max-tokens").value || 512} tokens`,
  ];
  if (byId("seed").value) words.push(`seed ${byId("seed").value}`);
  if (mode() === "chat" && systemPrompt()) words.push("system prompt");
  setText(byId("settings-text"), words.join(" · "));
  byId("system-field").hidden = mode() !== "chat";
}

function keep() {
  const values = Object.fromEntries(FIELDS.map((id) => [id, byId(id).value]));
  sessionStorage.setItem(STORE, JSON.stringify(values));
  show();
}

export function start() {
  try {
    const kept = JSON.parse(sessionStorage.getItem(STORE) || "{}");
    for (const id of FIELDS) if (typeof kept[id] === "string") byId(id).value = kept[id];
  } catch {
    sessionStorage.removeItem(STORE);
  }
  byId("settings").addEventListener("input", keep);
  byId("settings").addEventListener("change", keep);
  byId("defaults").addEventListener("click", () => {
    for (const id of FIELDS) byId(id).value = defaults[id];
    keep();
  });
  show();
}
