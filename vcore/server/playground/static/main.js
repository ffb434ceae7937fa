// Puts the page together: the two views, the API key, the chat and the engine.

import { apiKey, get, setApiKey } from "./api.js";
import * as chat from "./chat.js";
import { byId } from "./dom.js";
import * as engine from "./engine.js";
import * as settings from "./settings.js";

function show(view) {
  byId("columns").dataset.view = view;
  byId("show-chat").setAttribute("aria-pressed", String(view === "chat"));
  byId("show-engine").setAttribute("aria-pressed", String(view === "engine"));
  engine.redraw();
}

function askForKey() {
  const dialog = byId("key-dialog");
  if (!dialog.open) dialog.showModal();
}

async function useKey(event) {
  event.preventDefault();
  setApiKey(byId("key").value.trim());
  byId("key-wrong").hidden = true;
  try {
    await get("v1/models");
  } catch (error) {
    byId("key-wrong").hidden = error.status !== 401;
    if (error.status === 401) return;
  }
  byId("key").value = "";
  byId("key-dialog").close();
  engine.redraw();
  byId("message").focus();
}

byId("show-chat").addEventListener("click", () => show("chat"));
byId("show-engine").addEventListener("click", () => show("engine"));
byId("key-form").addEventListener("submit", useKey);
byId("change-key").addEventListener("click", askForKey);

const guarded = document.body.dataset.guarded === "yes";
byId("change-key").hidden = !guarded;
settings.start();
chat.start(askForKey);
if (guarded && !apiKey()) askForKey();
engine.start(askForKey);
