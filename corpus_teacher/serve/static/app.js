// The page's frame: the address is the state, one view at a time, the server asked as one types.
import * as continuing from "./continue.js";
import * as tracing from "./trace.js";
import * as teaching from "./teach.js";
import * as corpus from "./corpus.js";
import * as compare from "./compare.js";
import { ask, h, say } from "./shared.js";

const VIEWS = { continue: continuing, trace: tracing, teach: teaching, corpus, compare };
const TITLES = { continue: "Continue", trace: "Trace", teach: "Teach", corpus: "Corpus", compare: "Compare" };
let indexes = [];
let shown = null; // { name, view } of what stands on the page

/** The view and its fields out of the address: #/trace?index=tales&text=… */
export function stateOf(hash) {
  const [path, query = ""] = hash.replace(/^#\/?/, "").split(/\?(.*)/s);
  return { name: VIEWS[path] ? path : "continue", fields: Object.fromEntries(new URLSearchParams(query)) };
}

function addressOf(name, fields) {
  const kept = Object.entries(fields).filter(([, value]) => value !== undefined && value !== null && value !== "");
  const query = new URLSearchParams(kept).toString();
  return `#/${name}${query ? `?${query}` : ""}`;
}

let pending = null, timer;

/** Change fields of the state: typing replaces the address, a little later; a step is what "back" undoes. */
function update(changes, { step = false, later = false } = {}) {
  if (later) {
    pending = { ...pending, ...changes };
    clearTimeout(timer);
    timer = setTimeout(flush, 250);
    return;
  }
  flush();
  const { name, fields } = stateOf(location.hash);
  const address = addressOf(name, { ...fields, ...changes });
  if (address === location.hash) return;
  history[step ? "pushState" : "replaceState"](null, "", address);
  drawFrame();
}

/** What was typed goes into the address before anything follows it. */
function flush() {
  clearTimeout(timer);
  const changes = pending;
  pending = null;
  if (changes) update(changes);
}

function drawFrame() {
  const { name, fields } = stateOf(location.hash);
  const shared = { index: fields.index, text: fields.text };
  document.getElementById("nav").replaceChildren(
    ...Object.keys(VIEWS).map((one) =>
      h("a", { href: addressOf(one, shared), "aria-current": one === name ? "page" : null, onclick: (event) => {
        if (event.ctrlKey || event.metaKey || event.shiftKey) return;
        event.preventDefault();
        flush(); // the text may be newer than the link
        const now = stateOf(location.hash).fields;
        location.hash = addressOf(one, { index: now.index, text: now.text });
      } }, TITLES[one]),
    ),
  );
  const select = document.getElementById("index");
  select.value = fields.index ?? indexes[0]?.name ?? "";
  select.parentElement.hidden = name === "compare" || indexes.length < 2;
  document.title = `${TITLES[name]} · corpus-teacher`;
}

function draw() {
  clearTimeout(timer);
  pending = null; // the address says it all
  const { name, fields } = stateOf(location.hash);
  drawFrame();
  const main = document.getElementById("view");
  if (shown?.name !== name) {
    const view = VIEWS[name].make({ update, indexes, go: (other, more) => { location.hash = addressOf(other, more); } });
    shown = { name, view };
    main.replaceChildren(view.element);
  }
  shown.view.show({ index: indexes[0]?.name, ...fields });
}

function themes() {
  const button = document.getElementById("theme");
  const order = ["", "light", "dark"];
  const names = { "": "as the system", light: "light", dark: "dark" };
  const set = (theme) => {
    if (theme) document.documentElement.dataset.theme = theme;
    else delete document.documentElement.dataset.theme;
    button.setAttribute("aria-label", `Colours: ${names[theme]}`);
    button.title = `Colours: ${names[theme]}`;
    button.textContent = { "": "◐", light: "☀", dark: "☾" }[theme];
    localStorage.setItem("theme", theme);
  };
  set(order.includes(localStorage.getItem("theme")) ? localStorage.getItem("theme") : "");
  button.addEventListener("click", () => set(order[(order.indexOf(localStorage.getItem("theme") ?? "") + 1) % 3]));
}

/** Ask for the server's token, where it wants one, until it is taken. */
function askForToken(retry) {
  const field = h("input", { type: "password", id: "token", autocomplete: "current-password" });
  const form = h("form", { class: "card" }, h("h1", {}, "This server asks for a token"),
    h("p", { class: "lead" }, "It stays in this tab, and goes with each question."),
    h("label", { for: "token", class: "hidden" }, "Token"), field, " ", h("button", {}, "Go on"));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    sessionStorage.setItem("token", field.value);
    retry();
  });
  document.getElementById("view").replaceChildren(form);
  field.focus();
}

async function begin() {
  try {
    ({ indexes } = await ask("indexes"));
  } catch (error) {
    if (error.status === 401) return askForToken(begin);
    document.getElementById("view").replaceChildren(h("div", { class: "card error" }, h("p", {}, error.message)));
    return;
  }
  const select = document.getElementById("index");
  select.replaceChildren(...indexes.map((one) => h("option", { value: one.name }, one.name)));
  select.addEventListener("change", () => {
    update({ index: select.value }, { step: true });
    draw();
    say(`Index ${select.value}`);
  });
  window.addEventListener("hashchange", draw);
  window.addEventListener("popstate", draw);
  draw();
}

themes();
begin();
