// Continue: what follows a text, order by order, where it stands, and why something isn't found.
import { asker, bar, control, h, many, number, openDocument, place, say, setText, share, textField, times, tokenList, visible } from "./shared.js";

const ESTIMATORS = ["", "witten-bell", "modified-kneser-ney", "kneser-ney", "absolute-discounting", "auto", "jelinek-mercer", "pitman-yor", "katz", "stupid-backoff", "ppm-c", "mle"];
const MORE = 20;

export function make({ update, go }) {
  let fields = {}, places = 4;
  const area = textField("Context", "Type the beginning of a sentence …", (text) => {
    fields.text = text;
    places = 4;
    update({ text }, { later: true });
    request();
  });
  const estimator = h("select", { id: "estimator" }, ESTIMATORS.map((name) => h("option", { value: name }, name || "counts only")));
  estimator.addEventListener("change", () => { update({ estimator: estimator.value }, { step: true }); fields.estimator = estimator.value; request(true); });
  const order = h("select", { id: "order" }, ["", 1, 2, 3, 4, 5, 8].map((value) => h("option", { value }, value ? `${value} tokens` : "any length")));
  order.addEventListener("change", () => { update({ max_order: order.value }, { step: true }); fields.max_order = order.value; request(true); });
  const out = h("div", {});
  const asked = asker(out);
  const element = h("div", {}, h("h1", {}, "What follows?"),
    h("p", { class: "lead" }, "Every continuation that the corpus has, counted exactly. Click one to append it."),
    area, h("div", { class: "controls" }, control("Probabilities", estimator), control("Longest context", order)), out);

  function request(now = false) {
    const question = { index: fields.index, text: fields.text ?? "", estimator: fields.estimator || null, max_order: fields.max_order || null, places };
    asked("continue", question, draw, { now });
  }

  function append(text) {
    const whole = (fields.text ?? "") + text;
    setText(area, whole);
    fields.text = whole;
    places = 4;
    update({ text: whole }, { step: true });
    request(true);
    area.focus();
    area.setSelectionRange(whole.length, whole.length);
  }

  function draw(said) {
    const reader = h("div", {});
    const found = said.match_len > 0;
    out.replaceChildren(
      said.tokens.length ? h("div", { class: "card" },
        h("h2", {}, "As the index reads it"),
        tokenList(said.tokens.map(([, text]) => text), said.tokens.length - said.match_len),
        h("p", { class: "note" }, `${many(said.whole, "token")}${said.cut ? `, the last ${said.tokens.length} are looked up` : ""}; the coloured ones occur in the corpus, in this order.`)) : "",
      why(said) ?? "",
      h("div", { class: "columns" },
        h("div", {},
          h("section", { class: "card", "aria-label": "Continuations" },
            h("h2", {}, found ? ["after ", h("span", { class: "piece" }, "‹", visible(said.match.length > 40 ? `…${said.match.slice(-40)}` : said.match), "›")] : "most frequent tokens"),
            h("p", { class: "note" }, `${many(said.distinct, "different continuation")}, ${number(said.context_count)} in all`),
            continuations(said))),
        h("div", {}, chain(said.backoff, said.explained), said.explained ? estimate(said.explained) : "",
          found ? h("section", { class: "card", "aria-label": "Places" }, h("h2", {}, `Where it occurs: ${times(said.num_occurrences)}`),
            said.sources.length ? h("p", { class: "note" }, "Most often in ", said.sources.slice(0, 3).map((one, at) => `${at ? ", " : ""}${one.name ?? `document ${one.document}`} (${number(one.count)})`)) : "",
            h("ul", { class: "places" }, said.occurrences.map((one) => place(one, () => openDocument(reader, fields.index, one, said.match_len)))),
            said.occurrences.length < said.num_occurrences && places < 100 ? h("button", { type: "button", onclick: () => { places += MORE; request(true); } }, "more places") : "") : "")),
      reader,
    );
    say(found ? `${many(said.distinct, "continuation")} after ${said.match_len} tokens` : "not in the corpus: the most frequent tokens are shown");
  }

  function continuations(said) {
    const most = said.continuations[0]?.share || 1;
    const list = h("ol", { class: "bars aligned" }, said.continuations.map((one) =>
      h("li", {}, h("button", { type: "button", onclick: () => append(one.text), "aria-label": `append ${one.text}: ${times(one.count)}, ${share(one.share)}` },
        bar(one.text, one.share / most, [h("b", {}, share(one.share)), ` × ${number(one.count)}`])))));
    list.addEventListener("keydown", (event) => {
      const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
      if (!step) return;
      event.preventDefault();
      const buttons = [...list.querySelectorAll("button")];
      buttons[Math.max(0, Math.min(buttons.length - 1, buttons.indexOf(document.activeElement) + step))].focus();
    });
    return list;
  }

  function estimate(explained) {
    const most = explained.tokens[0]?.probability || 1;
    return h("section", { class: "card", "aria-label": "Probabilities" }, h("h2", {}, `${explained.estimator}: the likeliest`),
      h("ol", { class: "bars aligned" }, explained.tokens.map((one) => h("li", {}, h("button", { type: "button", onclick: () => append(one.text) },
        bar(one.text, one.probability / most, h("b", {}, share(one.probability)), "warm"))))));
  }

  function chain(backoff, explained) {
    const passed = new Map((explained?.orders ?? []).map((one) => [one.order, one.passed]));
    const rows = [];
    for (const step of backoff) { // neighbours that say the same are one line
      const last = rows.at(-1);
      if (last && last.step.count === step.count && last.step.distinct === step.distinct && step.order > 0) last.least = step.order;
      else rows.push({ step, least: step.order });
    }
    return h("section", { class: "card", "aria-label": "Backoff chain" }, h("h2", {}, "Order by order"),
      h("div", { class: "scroll" }, h("table", {},
        h("thead", {}, h("tr", {}, ["tokens", "times", "different", explained ? "keeps" : null, "most often"].filter(Boolean).map((head) => h("th", { scope: "col" }, head)))),
        h("tbody", {}, rows.map(({ step, least }) => h("tr", {},
          h("td", {}, least === step.order ? `${step.order}` : `${least}–${step.order}`),
          h("td", {}, number(step.count)), h("td", {}, number(step.distinct)),
          explained ? h("td", {}, passed.has(step.order) ? share(1 - passed.get(step.order)) : "") : null,
          h("td", {}, h("span", { class: "piece" }, visible(step.best.text)), ` ${share(step.best.share)}`)))))),
      h("p", { class: "note" }, explained ? "“keeps”: how much of the mass that reaches an order stays there." : "The longest context comes first; an estimator backs off downwards."));
  }

  function take(text) {
    setText(area, text);
    fields.text = text;
    update({ text }, { step: true });
    request(true);
  }

  /** Why the whole of a text isn't found, and what nearby is. */
  function why(said) {
    const missing = said.tokens.length - said.match_len;
    const forms = said.nearby.map((form) => h("button", { type: "button", onclick: () => take(form.text) },
      h("span", { class: "piece" }, "‹", visible(form.text.length > 40 ? `…${form.text.slice(-40)}` : form.text), "›"), ` ${form.what}: ${times(form.count)}`));
    const all = missing === 0 || !said.tokens.length;
    const text = fields.text ?? "";
    if (text.trim() && /\s$/.test(text) && !said.nearby.some((form) => form.text === text.trimEnd())) {
      forms.push(h("button", { type: "button", onclick: () => take(text.trimEnd()) }, "without the blank at its end: most tokens begin with one"));
    }
    if (all && !forms.length) return null;
    const parts = [];
    if (!all && said.match_len === 0) parts.push(h("p", {}, h("b", {}, "Nothing follows it anywhere. "), "The last token ", h("span", { class: "piece" }, "‹", visible(said.tokens.at(-1)[1]), "›"), " has no continuation in the corpus. A text that ends inside a word, or with a blank, often ends in such a token; the boundaries are shown above."));
    else if (!all) parts.push(h("p", {}, h("b", {}, `Only the last ${said.match_len === 1 ? "token occurs" : `${said.match_len} tokens occur`} in the corpus${fields.max_order ? ", or was asked for" : ""}. `), "With ", h("span", { class: "piece" }, "‹", visible(said.tokens[missing - 1][1]), "›"), " before that, the text occurs nowhere: the answer is for the shorter context."));
    if (forms.length) parts.push(h("p", {}, "Try instead:"), h("div", {}, forms));
    else if (said.whole <= 12) parts.push(h("p", { class: "note" }, "No form with another case or other blanks is more frequent."));
    return h("div", { class: "notice", role: "note" }, parts);
  }

  return {
    element,
    show(state) {
      fields = { ...state };
      setText(area, state.text ?? "");
      estimator.value = state.estimator ?? "";
      order.value = state.max_order ?? "";
      request(true);
    },
  };
}
