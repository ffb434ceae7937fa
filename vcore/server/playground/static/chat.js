// The conversation: sends messages, streams answers, stops them.

import { stream } from "./api.js";
import { byId } from "./dom.js";
import { invalidField, mode, sampling, systemPrompt } from "./settings.js";
import { AnswerTurn, atEnd, scrollToEnd, userTurn } from "./turn.js";

const messages = [];
let running = null;
let latest = null;
let askForKey = () => {};

function fit(area) {
  area.style.height = "auto";
  area.style.height = `${area.scrollHeight}px`;
}

function showState() {
  byId("send").hidden = running !== null;
  byId("stop-answer").hidden = running === null;
  byId("clear").disabled = latest === null;
  byId("log").setAttribute("aria-busy", String(running !== null));
}

function requestFor(prompt) {
  const options = { include_usage: true, continuous_usage_stats: true };
  const common = { ...sampling(), stream_options: options };
  if (prompt !== null) return ["v1/completions", { ...common, prompt }];
  const system = systemPrompt();
  const said = system ? [{ role: "system", content: system }, ...messages] : messages;
  return ["v1/chat/completions", { ...common, messages: said }];
}

function take(turn, event) {
  if (event.usage) turn.usage = event.usage;
  const choice = event.choices && event.choices[0];
  if (!choice) return;
  const delta = choice.delta || {};
  turn.add(choice.text ?? delta.content ?? "", delta.reasoning_content ?? "");
  if (choice.finish_reason) turn.finishReason = choice.finish_reason;
}

/** Ask for an answer: to `prompt` as it is, or to the conversation if it is null. */
async function answer(prompt) {
  const turn = new AnswerTurn(prompt || "");
  const controller = new AbortController();
  if (latest) latest.again.remove();
  byId("log").append(turn.element);
  scrollToEnd();
  running = controller;
  latest = turn;
  showState();
  try {
    for await (const event of stream(...requestFor(prompt), controller.signal)) {
      const follow = atEnd();
      take(turn, event);
      turn.showNumbers();
      if (follow) scrollToEnd();
    }
  } catch (error) {
    if (error.name === "AbortError") turn.finishReason = "stopped";
    else turn.fail(error instanceof TypeError ? "The server cannot be reached." : error.message);
    if (error.status === 401) askForKey(true);
  }
  const follow = atEnd();
  running = null;
  const isShown = latest === turn; // not if the conversation was cleared meanwhile
  if (prompt === null && turn.text && isShown) messages.push({ role: "assistant", content: turn.text });
  turn.finish(() => again(turn, prompt));
  if (follow) scrollToEnd();
  showState();
}

function again(turn, prompt) {
  if (running) return;
  if (prompt === null && messages.length && messages[messages.length - 1].role === "assistant") messages.pop();
  turn.element.remove();
  latest = null;
  answer(prompt);
}

function send(text) {
  const wrong = invalidField();
  if (wrong) {
    byId("settings").open = true;
    wrong.reportValidity();
    return;
  }
  if (running || !text.trim()) return;
  byId("empty").hidden = true;
  byId("message").value = "";
  fit(byId("message"));
  if (mode() === "completion") {
    answer(text);
    return;
  }
  messages.push({ role: "user", content: text });
  byId("log").append(userTurn(text));
  answer(null);
}

function clear() {
  if (running) running.abort();
  messages.length = 0;
  latest = null;
  byId("log").replaceChildren(byId("empty"));
  byId("empty").hidden = false;
  showState();
  byId("message").focus();
}

export function start(whenKeyIsWrong) {
  askForKey = whenKeyIsWrong;
  const message = byId("message");
  byId("composer").addEventListener("submit", (event) => {
    event.preventDefault();
    send(message.value);
  });
  message.addEventListener("input", () => fit(message));
  message.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      send(message.value);
    }
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && running && !document.querySelector("dialog[open]")) running.abort();
  });
  byId("stop-answer").addEventListener("click", () => {
    running?.abort();
    message.focus();
  });
  byId("clear").addEventListener("click", clear);
  // Whoever reads the end goes on reading it when the settings open below.
  let pinned = true;
  byId("log").addEventListener("scroll", () => { pinned = atEnd(); });
  new ResizeObserver(() => { if (pinned) scrollToEnd(); }).observe(byId("log"));
  for (const idea of document.querySelectorAll(".idea")) {
    idea.addEventListener("click", () => {
      send(idea.textContent);
      message.focus();
    });
  }
  showState();
}
