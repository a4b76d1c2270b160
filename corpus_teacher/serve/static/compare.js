// Compare: two indexes side by side on one context.
import { ask, bar, control, h, many, number, say, setText, share, textField, times, visible } from "./shared.js";

export function make({ update, indexes }) {
  let fields = {}, asking, running;
  const names = indexes.map((one) => one.name);
  const choose = (field) => {
    const select = h("select", { id: field }, names.map((name) => h("option", { value: name }, name)));
    select.addEventListener("change", () => { fields[field] = select.value; update({ [field]: select.value }, { step: true }); request(); });
    return select;
  };
  const left = choose("index"), right = choose("other");
  const area = textField("Context", "One context for both …", (text) => { fields.text = text; update({ text }, { later: true }); request(); });
  left.id = "left";
  right.id = "right";
  const out = h("div", {});
  const element = h("div", {}, h("h1", {}, "Two corpora, one context"),
    h("p", { class: "lead" }, names.length > 1 ? "What each of them continues it with." : "This server has one index. Start it with several, each as NAME=DIR, to compare them."),
    area, h("div", { class: "controls" }, control("Left", left), control("Right", right)), out);

  function request() {
    clearTimeout(asking);
    running?.abort();
    asking = setTimeout(async () => {
      running = new AbortController();
      try {
        const said = await Promise.all([left.value, right.value].map((index) => ask("continue", { index, text: fields.text ?? "", top: 12, places: 0 }, running.signal)));
        draw(said);
      } catch (error) {
        if (error.name !== "AbortError") out.replaceChildren(h("div", { class: "card error", role: "alert" }, h("p", {}, error.message)));
      }
    }, 140);
  }

  function draw(said) {
    const shares = said.map((one) => new Map(one.continuations.map((next) => [next.text, next.share])));
    out.replaceChildren(h("div", { class: "columns even" }, said.map((one, at) => {
      const most = one.continuations[0]?.share || 1;
      return h("section", { class: "card", "aria-label": [left.value, right.value][at] }, h("h2", {}, [left.value, right.value][at]),
        h("p", { class: "note" }, one.match_len ? ["knows ", h("span", { class: "piece" }, "‹", visible(one.match.slice(-40)), "›"), `, ${many(one.match_len, "token")}: followed ${times(one.context_count)}, by ${one.distinct === 1 ? "one token" : many(one.distinct, "different token")}`] : `does not contain it: its ${number(one.distinct)} tokens`),
        h("div", { class: "aligned" }, one.continuations.map((next) => h("div", { class: "rows" }, bar(next.text, next.share / most, [h("b", {}, share(next.share)), ` × ${number(next.count)}`], shares[1 - at].has(next.text) ? "" : "warm")))));
    })), h("p", { class: "note" }, "Orange: not among the twelve likeliest of the other corpus."));
    say(`${left.value}: ${said[0].match_len} tokens known; ${right.value}: ${said[1].match_len}`);
  }

  return {
    element,
    show(state) {
      fields = { ...state };
      setText(area, state.text ?? "");
      left.value = names.includes(state.index) ? state.index : names[0];
      right.value = names.includes(state.other) ? state.other : names[1] ?? names[0];
      request();
    },
  };
}
