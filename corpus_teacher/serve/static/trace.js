// Trace: which parts of a text stand in the corpus, coloured by how long and how rare they are.
import { asker, called, control, h, many, number, openDocument, say, setText, share, textField, tight, times } from "./shared.js";
import { lineChart } from "./chart.js";

const COUNTS = [1, 2, 5, 10, 30, 100, 300, 1000, 10000, 100000, null];

export function make({ update }) {
  let fields = {};
  const later = (changes) => update(changes, { later: true });
  const area = textField("Text to trace", "Paste a text, or a model's output …", (text) => { fields.text = text; delete fields.span; later({ text, span: null }); request(); });
  const least = h("input", { type: "range", id: "least", min: 2, max: 40, step: 1 });
  const leastSaid = h("output", { for: "least" });
  const most = h("input", { type: "range", id: "most", min: 0, max: COUNTS.length - 1, step: 1 });
  const mostSaid = h("output", { for: "most" });
  const out = h("div", {});
  const tip = h("div", { id: "tip", hidden: true });
  const asked = asker(out);
  least.addEventListener("input", () => { fields.min_length = least.value; told(); later({ min_length: least.value, span: null }); request(); });
  most.addEventListener("input", () => { fields.max_count = COUNTS[most.value]; told(); later({ max_count: COUNTS[most.value], span: null }); request(); });
  const element = h("div", {}, h("h1", {}, "What is copied from the corpus?"),
    h("p", { class: "lead" }, "The longest spans that occur word for word inside one document. Click a span to see where."),
    area, h("div", { class: "controls" }, control("Shortest span", least, leastSaid), control("Most occurrences", most, mostSaid)), out, tip);

  function told() {
    leastSaid.textContent = many(Number(least.value), "token");
    mostSaid.textContent = COUNTS[most.value] === null ? "any" : number(COUNTS[most.value]);
    least.setAttribute("aria-valuetext", leastSaid.textContent);
    most.setAttribute("aria-valuetext", mostSaid.textContent);
  }

  function request(now = false) {
    if (!(fields.text ?? "").trim()) {
      out.replaceChildren(h("p", { class: "empty" }, "Nothing to trace yet."));
      return;
    }
    asked("trace", { index: fields.index, text: fields.text, min_length: Number(least.value), max_count: COUNTS[most.value], places: 6 }, draw, { now });
  }

  function draw(said) {
    const places = h("div", {}), reader = h("div", {});
    const text = h("div", { class: "traced", "aria-label": "The text with its spans" }, segments(said, places, reader));
    out.replaceChildren(
      h("dl", { class: "figures" },
        [[share(said.copied_share), `of ${many(said.tokens.length, "token")} copied`], [many(said.longest, "token"), "the longest match"], [number(said.num_spans), "spans"]]
          .map(([value, name]) => h("div", {}, h("dt", {}, name), h("dd", {}, value)))),
      h("div", { class: "card" }, text, h("div", { class: "legend" }, h("span", {}, "stronger colour: longer span"),
        [["rare0", "occurs once"], ["rare1", "2 to 10 times"], ["rare2", "11 to 1,000"], ["rare3", "more"]].map(([kind, words]) => h("span", { class: kind }, h("i", { "aria-hidden": "true" }), words)))),
      places, reader,
      h("section", { class: "card", "aria-label": "Novelty" }, h("h2", {}, "Novelty"),
        h("p", { class: "note" }, `The share of n-grams that the corpus lacks${said.baseline_of ? `, compared with ${said.baseline_of}` : ""}.`),
        lineChart([
          { name: "this text", colour: "var(--accent)", points: said.novelty.map((one) => ({ x: one.n, y: one.novel })) },
          { name: said.baseline_of ? "the corpus's own" : "", colour: "var(--warm)", points: said.baseline.map((one) => ({ x: one.n, y: one.novel })) },
        ].filter((line) => line.points.length), { label: "Share of new n-grams against their length", x: "n, tokens", y: "Point at the curve to read it." }),
        h("details", {}, h("summary", {}, "as a table"), h("div", { class: "scroll" }, table(said)))),
    );
    if (fields.span !== undefined) text.querySelector(`[data-span="${CSS.escape(fields.span)}"]`)?.click();
    say(`${share(said.copied_share)} copied, ${many(said.num_spans, "span")}`);
  }

  /** The text in pieces; those of a span are buttons. */
  function segments(said, places, reader) {
    const owner = new Array(said.tokens.length).fill(-1);
    said.spans.map((span, at) => [span.end - span.begin, at]).sort((a, b) => a[0] - b[0])
      .forEach(([, at]) => owner.fill(at, said.spans[at].begin, said.spans[at].end));
    const letters = said.begins ? Array.from(fields.text) : null; // the server counts characters, not UTF-16
    const made = letters && said.begins[0] > 0 ? [letters.slice(0, said.begins[0]).join("")] : [];
    for (let begin = 0; begin < owner.length;) {
      let end = begin + 1;
      while (end < owner.length && owner[end] === owner[begin]) end++;
      const text = letters ? letters.slice(said.begins[begin], said.begins[end] ?? letters.length).join("") : said.tokens.slice(begin, end).join("");
      made.push(owner[begin] < 0 ? text : spanButton(said.spans[owner[begin]], owner[begin], text, places, reader));
      begin = end;
    }
    return made;
  }

  function spanButton(span, at, text, places, reader) {
    const size = span.end - span.begin;
    const rare = span.count <= 1 ? 0 : span.count <= 10 ? 1 : span.count <= 1000 ? 2 : 3;
    const about = `${many(size, "token")}, ${times(span.count)}${span.occurrences.length ? `, in ${called(span.occurrences[0])}` : ""}`;
    const button = h("span", { role: "button", tabindex: "0", class: `span rare${rare}`, style: `--heat:${10 + Math.round(32 * Math.min(1, Math.log2(size) / 6))}%`, "data-span": at, "aria-pressed": "false", "aria-description": about }, text);
    const hide = () => { tip.hidden = true; };
    button.addEventListener("pointerenter", (event) => {
      if (event.pointerType === "touch") return;
      tip.textContent = about;
      tip.hidden = false;
      tip.style.left = `${Math.max(8, Math.min(event.clientX + 12, innerWidth - tip.offsetWidth - 8))}px`;
      tip.style.top = `${event.clientY + 18 + tip.offsetHeight > innerHeight ? event.clientY - tip.offsetHeight - 12 : event.clientY + 18}px`;
    });
    button.addEventListener("pointerleave", hide);
    button.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      button.click();
    });
    button.addEventListener("click", () => {
      hide();
      const on = button.getAttribute("aria-pressed") === "true";
      element.querySelectorAll(".span").forEach((one) => one.setAttribute("aria-pressed", String(!on && one.dataset.span === String(at))));
      update({ span: on ? null : at });
      if (on) fields.span = undefined;
      else fields.span = String(at);
      reader.replaceChildren();
      places.replaceChildren(...(on ? [] : [beside(span, size, reader)]));
    });
    return button;
  }

  /** The documents that contain a span, side by side. */
  function beside(span, size, reader) {
    const shown = span.occurrences.length;
    return h("section", { class: "card", "aria-label": "Where the span occurs" },
      h("h2", {}, `${many(size, "token")}, ${times(span.count)}${shown < span.count ? `; ${many(shown, "place")} shown` : ""}`),
      h("div", { class: "side" }, span.occurrences.map((one) => h("div", { class: "card" },
        h("div", { class: "where" }, h("b", {}, called(one)), h("button", { type: "button", class: "quiet", onclick: () => openDocument(reader, fields.index, one, size), "aria-label": `Read on in ${called(one)}` }, "read on")),
        h("div", { class: "snippet" }, one.cut_before ? "… " : "", tight(one.before).trimStart(), h("mark", {}, one.match), tight(one.after).trimEnd(), one.cut_after ? " …" : "")))));
  }

  function table(said) {
    const other = new Map(said.baseline.map((one) => [one.n, one.novel]));
    return h("table", {}, h("thead", {}, h("tr", {}, ["n", "n-grams", "new", "baseline"].map((head) => h("th", { scope: "col" }, head)))),
      h("tbody", {}, said.novelty.map((one) => h("tr", {}, h("td", {}, `${one.n}`), h("td", {}, number(one.ngrams)), h("td", {}, share(one.novel)), h("td", {}, other.has(one.n) ? share(other.get(one.n)) : "–")))));
  }

  return {
    element,
    show(state) {
      fields = { ...state };
      setText(area, state.text ?? "");
      least.value = state.min_length ?? 6;
      const at = COUNTS.indexOf(state.max_count ? Number(state.max_count) : null);
      most.value = at < 0 ? COUNTS.length - 1 : at;
      told();
      request(true);
    },
  };
}
