// One turn of the conversation on the page: what was said, and how fast.

import { byId, count, make, rate, setText } from "./dom.js";

const FENCE = /^```([^\n`]*)\n([\s\S]*?)(?:^```[^\S\n]*$\n?|(?![\s\S]))/gm;

const INLINE = /`([^`\n]+)`/g;

/** The pieces of `text` that `pattern` finds, as `found` makes them, and what is between, as `between` does. */
function split(text, pattern, found, between) {
  const made = [];
  let end = 0;
  for (const match of text.matchAll(pattern)) {
    if (match.index > end) made.push(...between(text.slice(end, match.index)));
    made.push(found(match));
    end = match.index + match[0].length;
  }
  if (end < text.length) made.push(...between(text.slice(end)));
  return made;
}

/** The text as nodes: code, fenced or between backticks, as code, everything else as it is. */
function nodes(text) {
  const inline = (piece) => split(piece, INLINE, (match) => make("code", "", match[1]), (rest) => [rest]);
  return split(text, FENCE, (match) => make("pre", "", make("code", "", match[2])), inline);
}

export function userTurn(text) {
  return make("article", "turn user", make("h3", "unseen", "You"), make("div", "text", text));
}

/** The model's answer as it grows. */
export class AnswerTurn {
  constructor(prefix = "") {
    this.body = make("div", "text");
    this.meta = make("div", "meta");
    this.element = make("article", "turn assistant running", make("h3", "unseen", "Model"), this.body, this.meta);
    if (prefix) this.body.append(make("span", "echo", prefix));
    this.prefix = prefix;
    this.text = "";
    this.reasoning = "";
    this.usage = null;
    this.finishReason = null;
    this.start = performance.now();
    this.first = null;
    this.last = null;
    this.tail = null;
  }

  /** Something came: text, or what the model thinks before it. */
  add(text, reasoning) {
    if (!text && !reasoning) return;
    this.last = performance.now();
    this.first ??= this.last;
    if (reasoning) this.addReasoning(reasoning);
    if (!text) return;
    this.text += text;
    this.tail ??= this.body.appendChild(document.createTextNode(""));
    this.tail.appendData(text);
  }

  addReasoning(text) {
    if (!this.reasoning) {
      this.thoughts = make("p", "");
      const details = make("details", "", make("summary", "", "Reasoning"), this.thoughts);
      details.open = true;
      this.element.insertBefore(details, this.body);
    }
    this.reasoning += text;
    this.thoughts.append(text);
  }

  /** The numbers below the answer, as they are known by now. */
  showNumbers() {
    const parts = [];
    const tokens = this.usage ? this.usage.completion_tokens : 0;
    if (this.usage) parts.push(`${count(tokens)} ${tokens === 1 ? "token" : "tokens"}`);
    if (this.usage && this.last > this.first && tokens > 1) {
      parts.push(`${rate((1000 * (tokens - 1)) / (this.last - this.first))} tokens/s`);
    }
    if (this.first !== null) parts.push(`first after ${((this.first - this.start) / 1000).toFixed(2)} s`);
    if (this.usage) {
      const cached = this.usage.prompt_tokens_details?.cached_tokens || 0;
      const prompt = `prompt of ${count(this.usage.prompt_tokens)}`;
      parts.push(cached ? `${prompt}, ${count(cached)} cached` : prompt);
    }
    if (this.finishReason && this.finishReason !== "stop") parts.push(FINISHED[this.finishReason] || this.finishReason);
    this.numbers ??= this.meta.appendChild(make("span", "numbers-text"));
    setText(this.numbers, parts.join(" · "));
  }

  /** Nothing more will come. `again` is called if the answer is asked for once more. */
  finish(again) {
    this.element.classList.remove("running");
    if (this.text.includes("`")) {
      this.body.replaceChildren(...(this.prefix ? [make("span", "echo", this.prefix)] : []), ...nodes(this.text));
    }
    this.showNumbers();
    const copy = make("button", "quiet", "Copy");
    copy.type = "button";
    copy.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(this.text);
        setText(copy, "Copied");
      } catch {
        setText(copy, "No access to the clipboard");
      }
      setTimeout(() => setText(copy, "Copy"), 1500);
    });
    this.again = make("button", "quiet", "Again");
    this.again.type = "button";
    this.again.addEventListener("click", again);
    if (this.text) this.meta.append(copy);
    this.meta.append(this.again);
  }

  fail(message) {
    const said = make("p", "error", message);
    said.setAttribute("role", "alert");
    this.element.insertBefore(said, this.meta);
  }
}

const FINISHED = {
  length: "ended by the token limit",
  stopped: "stopped by you",
  tool_calls: "asked for a tool",
};

export function scrollToEnd() {
  const log = byId("log");
  log.scrollTop = log.scrollHeight;
}

/** Whether the end of the conversation is in view, so that it may be followed. */
export function atEnd() {
  const log = byId("log");
  return log.scrollHeight - log.scrollTop - log.clientHeight < 48;
}
