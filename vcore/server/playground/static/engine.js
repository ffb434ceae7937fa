// The live view of the engine: asks for its state every second while somebody looks, and shows it.

import { ApiError, get } from "./api.js";
import { drawBlocks, redrawBlocks } from "./block_map.js";
import { byId, count, make, rate, setText } from "./dom.js";
import { drawSparkline } from "./sparkline.js";

const EVERY_MS = 1000;
const LONGEST_MS = 5000;
const RATE_OVER_S = 3;

let askForKey = () => {};
let delay = EVERY_MS;
let timer = 0;
let asking = false;
let drawnFor = "";
let latest = null;

const WORDS = {
  ready: "ready",
  starting: "starting",
  restarting: "restarting",
  dead: "dead",
  closed: "closed",
  unreachable: "not reachable, trying again",
  locked: "needs a key",
};

const EXPLAINED = {
  starting: "The engine is starting.",
  restarting: "The engine process died and is being restarted. Open requests have failed; new ones work as soon as it is back.",
  dead: "The engine is dead and will not be restarted.",
  closed: "The engine has been shut down.",
  unreachable: "The server does not answer. This page tries again by itself.",
};

function showHealth(state, reason, faults = []) {
  byId("health").dataset.state = state;
  setText(byId("health-text"), WORDS[state] || state);
  const cause = reason && state !== "ready" ? `Cause: ${reason}` : "";
  const said = [EXPLAINED[state], cause, ...faults].filter(Boolean).join(" ");
  const banner = byId("banner");
  setText(banner, said);
  banner.dataset.state = state;
  banner.hidden = !said;
}

function mean(values) {
  const last = values.slice(-RATE_OVER_S);
  return last.reduce((sum, value) => sum + value, 0) / last.length;
}

function showRates(tokens) {
  setText(byId("output-rate"), rate(mean(tokens.a_second.output)));
  setText(byId("prompt-rate"), rate(mean(tokens.a_second.prompt)));
  drawSparkline(tokens.a_second.output);
}

function showRequests(requests) {
  const { stop = 0, length = 0, abort = 0, error = 0 } = requests.finished;
  setText(byId("running"), count(requests.running));
  setText(byId("waiting"), count(requests.waiting));
  setText(byId("finished"), count(stop + length));
  setText(byId("aborted"), count(abort));
  setText(byId("failed"), count(error));
  setText(byId("preempted"), count(requests.preemptions));
  byId("failed").classList.toggle("alert", error > 0);
}

function showCache(cache) {
  if (!cache) return;
  // Cached blocks may be in use, too; what is used or free never overlaps.
  const usedText = count(cache.used);
  setText(byId("blocks-used"), usedText);
  const queries = cache.query_tokens;
  const hits = queries ? cache.hit_tokens / queries : 0;
  byId("hit-rate").setAttribute("aria-valuenow", (100 * hits).toFixed(1));
  byId("hit-bar").style.width = `${100 * hits}%`;
  const off = cache.prefix_caching ? "no look-ups yet" : "switched off";
  setText(byId("hit-text"), queries ? `${(100 * hits).toFixed(1)} % of ${count(queries)} tokens` : off);
}

async function showBlocks(cache) {
  if (!cache || !byId("blocks").clientWidth) return;
  const key = `${cache.used} ${cache.free} ${cache.cached} ${cache.hit_tokens} ${cache.query_tokens}`;
  if (key === drawnFor) return;
  const response = await get("ui/blocks");
  const numBlocks = Number(response.headers.get("X-Num-Blocks"));
  const packed = new Uint8Array(await response.arrayBuffer());
  if (!numBlocks) return;
  const merged = drawBlocks(packed, numBlocks);
  drawnFor = key;
  showCounts(packed, numBlocks, cache, merged);
}

function showCounts(packed, numBlocks, cache, merged) {
  const counts = [0, 0, 0, 0];
  for (let block = 1; block < numBlocks; block += 1) counts[(packed[block >> 2] >> ((block & 3) * 2)) & 3] += 1;
  const [free, used, cached] = [counts[0], counts[1] + counts[3], counts[2]];
  setText(byId("blocks-used"), count(used));
  setText(byId("blocks-cached"), count(cached));
  setText(byId("blocks-free"), count(free));
  const each = merged > 1 ? `, ${merged} a cell` : "";
  const size = cache.block_size ? ` of ${cache.block_size} tokens` : "";
  setText(byId("blocks-text"), `${count(numBlocks - 1)} blocks${size}${each}`);
  byId("blocks").setAttribute("aria-label", `Map of KV blocks: ${used} used, ${cached} cached, ${free} free`);
}

function duration(seconds) {
  const [hours, minutes] = [Math.floor(seconds / 3600), Math.floor((seconds % 3600) / 60)];
  if (hours >= 48) return `${Math.floor(hours / 24)} days`;
  if (hours) return `${hours} h ${minutes} min`;
  return minutes ? `${minutes} min` : `${Math.floor(seconds)} s`;
}

function showModel(state) {
  const model = state.model;
  if (!model) return;
  setText(byId("model-name"), model.name);
  document.title = `${model.name} · vcore`;
  const facts = {
    Name: model.name,
    Path: model.path === model.name ? "" : model.path,
    Context: `${count(model.max_model_len)} tokens`,
    Vocabulary: count(model.vocab_size),
    "Data type": model.dtype,
    Device: model.device,
    vcore: model.version,
    "Up for": duration(state.uptime_s),
    Restarts: state.engine.restarts ? count(state.engine.restarts) : "",
    "Failed steps": state.engine.failed_steps ? count(state.engine.failed_steps) : "",
  };
  const shown = Object.entries(facts).filter(([, value]) => value);
  byId("facts").replaceChildren(...shown.flatMap(([name, value]) => [make("dt", "", name), make("dd", "", value)]));
}

function showPlugins(plugins) {
  const rows = plugins.map((one) => {
    const version = one.version ? ` ${one.version}` : "";
    const row = make("tr", "", make("td", "", one.kind.replaceAll("_", " ")), make("td", "", one.name));
    row.append(make("td", "", `${one.distribution}${version}`));
    return row;
  });
  byId("plugins").replaceChildren(...rows);
}

async function ask() {
  const response = await get("ui/state");
  const state = await response.json();
  latest = state;
  showHealth(state.engine.state, state.engine.reason, state.engine.faults);
  showRates(state.tokens);
  showRequests(state.requests);
  showCache(state.cache);
  showModel(state);
  showPlugins(state.plugins);
  await showBlocks(state.cache);
}

async function poll() {
  clearTimeout(timer);
  if (asking) return;
  asking = true;
  try {
    await ask();
    delay = EVERY_MS;
  } catch (error) {
    delay = Math.min(LONGEST_MS, delay * 1.5);
    if (error instanceof ApiError && error.status === 401) {
      showHealth("locked", "");
      askForKey(false);
    } else {
      showHealth("unreachable", "");
    }
  } finally {
    asking = false;
  }
  timer = setTimeout(poll, document.hidden ? LONGEST_MS : delay);
}

/** Draw again what is drawn, as when the width or the light has changed, and ask what is new. */
export function redraw() {
  if (latest) drawSparkline(latest.tokens.a_second.output);
  redrawBlocks();
  poll();
}

export function start(whenKeyIsNeeded) {
  askForKey = whenKeyIsNeeded;
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) poll();
  });
  window.addEventListener("online", poll);
  window.addEventListener("resize", redraw);
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  poll();
}
