// What all views share: elements, questions to the server, tokens and places.

/** An element: h("p", { class: "note" }, "text", child, …); null attributes and children are left out. */
export function h(tag, attributes = {}, ...children) {
  const svg = ["svg", "path", "line", "text", "circle", "rect", "g"].includes(tag);
  const made = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.flat().filter((one) => one !== null && one !== undefined && one !== false));
  return made;
}

/** Ask the server; throws an error with its sentence and status. */
export async function ask(route, fields = null, signal = undefined) {
  const token = sessionStorage.getItem("token");
  const headers = token ? { authorization: `Bearer ${token}` } : {};
  const options = fields ? { method: "POST", body: JSON.stringify(fields), headers: { ...headers, "content-type": "application/json" } } : { headers };
  let answer;
  try {
    answer = await fetch(`api/${route}`, { ...options, signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw Object.assign(new Error("the server doesn't answer: is it still running?"), { status: 0 });
  }
  const said = await answer.json().catch(() => ({ error: `the server answered ${answer.status}` }));
  if (!answer.ok) throw Object.assign(new Error(said.error?.message ?? said.error ?? `the server answered ${answer.status}`), { status: answer.status });
  return said;
}

/** Asks that follow each other quickly: only the last one is answered. */
export function asker(place, { wait = 140 } = {}) {
  let timer, control;
  return (route, fields, then, { now = false } = {}) => {
    clearTimeout(timer);
    control?.abort();
    timer = setTimeout(async () => {
      control = new AbortController();
      place.classList.add("busy");
      place.setAttribute("aria-busy", "true");
      const mine = control;
      try {
        const said = await ask(route, fields, mine.signal);
        if (mine === control) then(said);
      } catch (error) {
        if (error.name === "AbortError") return;
        place.replaceChildren(h("div", { class: "card error", role: "alert" }, h("p", {}, error.message)));
      }
      if (mine === control) {
        place.classList.remove("busy");
        place.removeAttribute("aria-busy");
      }
    }, now ? 0 : wait);
  };
}

/** Tell screen readers, once it is quiet. */
let saying;
export function say(text) {
  clearTimeout(saying);
  saying = setTimeout(() => { document.getElementById("status").textContent = text; }, 500);
}

export const number = (value) => Number(value).toLocaleString("en");
/** A text without its empty lines, for a glance. */
export const tight = (text) => text.replace(/[ \t]*\n\s*\n/g, "\n");
export const times = (count) => (count === 1 ? "once" : `${number(count)} times`);
export const many = (count, noun) => `${number(count)} ${noun}${count === 1 ? "" : "s"}`;
export function share(part) {
  if (part === 0) return "0 %";
  return part >= 0.1 ? `${(100 * part).toFixed(1)} %` : part >= 0.0001 ? `${(100 * part).toPrecision(2)} %` : "< 0.01 %";
}

/** A token's text with its blanks and line ends visible. */
export function visible(text) {
  const parts = [];
  for (const piece of text.split(/([ \n\t\r])/)) {
    const sign = { " ": "·", "\n": "⏎", "\t": "⇥", "\r": "␍" }[piece];
    if (sign) parts.push(h("span", { class: "sign", "aria-hidden": "true" }, sign));
    else if (piece) parts.push(piece);
  }
  return parts;
}

/** Tokens with their boundaries; those from `known` on stand in the corpus. */
export function tokenList(tokens, known) {
  return h("ol", { class: "tokens" }, tokens.map((text, place) =>
    h("li", { class: `token${place >= known ? " known" : ""}` }, visible(text))));
}

export const called = (one) => one.name ?? `document ${number(one.document)}`;

/** A place in the corpus, with the way into its document. */
export function place(one, open) {
  return h("li", {},
    h("div", { class: "where" }, h("b", {}, called(one)),
      h("button", { type: "button", class: "quiet", onclick: () => open(one), "aria-label": `Read on in ${called(one)}` }, "read on")),
    h("div", { class: "snippet" }, one.cut_before ? "… " : "", tight(one.before).trimStart(), h("mark", {}, one.match), tight(one.after).trimEnd(), one.cut_after ? " …" : ""));
}

/** A part of a document, asked for and put into an element. */
export async function openDocument(into, index, one, length) {
  try {
    const said = await ask("document", { index, document: one.document, offset: one.offset, length });
    const facts = Object.entries(said.fields ?? {}).map(([name, value]) => `${name}: ${value}`).join(" · ");
    const mark = h("mark", {}, said.match);
    into.replaceChildren(h("section", { class: "card", "aria-label": called(said) },
      h("div", { class: "where" }, h("h2", {}, called(said)),
        h("button", { type: "button", class: "quiet", onclick: () => into.replaceChildren() }, "close")),
      h("p", { class: "note" }, `tokens ${number(said.begin)} to ${number(said.end)} of ${number(said.num_tokens)}${facts ? ` · ${facts}` : ""}`),
      h("div", { class: "document", tabindex: "0" }, h("div", { class: "snippet" }, said.before, mark, said.after))));
    const box = into.querySelector(".document");
    box.scrollTop = Math.max(0, mark.offsetTop - box.offsetTop - 90);
    into.scrollIntoView({ block: "nearest", behavior: "smooth" });
  } catch (error) {
    into.replaceChildren(h("div", { class: "card error", role: "alert" }, h("p", {}, error.message)));
  }
}

/** A labelled control. */
export function control(label, element, output = null) {
  return h("label", { class: "control", for: element.id }, // said by name, since an output can be labelled too
    h("span", {}, label, output ? [" ", output] : ""), element);
}

/** The field of a text, which tells of each change. */
export function textField(label, hint, changed) {
  const area = h("textarea", { id: "text", "aria-label": label, placeholder: hint, spellcheck: "false", autocapitalize: "off" });
  area.addEventListener("input", () => changed(area.value));
  return area;
}

export function setText(area, text) {
  if (area.value !== text) area.value = text;
}

/** A bar with words before it and a number after it. */
export function bar(text, part, words, kind = "") {
  return [typeof text === "string" ? h("code", { class: "piece" }, visible(text)) : h("span", {}, text.words),
    h("div", { class: "track", "aria-hidden": "true" }, h("div", { class: `fill ${kind}`, style: `width:${Math.max(0, Math.min(100, 100 * part))}%` })),
    h("span", { class: "number" }, words)];
}
