// Corpus: how large it is, what it repeats, what its documents share, and what leaving out costs.
import { ask, asker, bar, h, many, number, say, share, tight, times } from "./shared.js";

export function make({ go }) {
  let fields = {};
  const out = h("div", {});
  const asked = asker(out);
  const element = h("div", {}, h("h1", {}, "The corpus"), h("p", { class: "lead" }, "The text behind every answer."), out);

  function draw(said) {
    const most = Math.max(...said.lengths.map((one) => one.documents));
    out.replaceChildren(
      h("dl", { class: "figures" },
        [[number(said.num_tokens), "tokens"], [number(said.num_documents), said.num_documents === 1 ? "document" : "documents"], [number(said.vocab_size), "vocabulary"], [`${(said.size_bytes / 1e6).toFixed(1)} MB`, "on disk"], said.num_bytes ? [`${(said.num_bytes / 1e6).toFixed(1)} MB`, "of text"] : null]
          .filter(Boolean).map(([value, name]) => h("div", {}, h("dt", {}, name), h("dd", {}, value)))),
      h("div", { class: "columns even" },
        h("section", { class: "card", "aria-label": "Lengths" }, h("h2", {}, "Documents by length in tokens"),
          h("div", { class: "aligned" }, said.lengths.map((one) => h("div", { class: "rows" }, bar({ words: one.below - 1 === one.least ? number(one.least) : `${number(one.least)}–${number(one.below - 1)}` }, one.documents / most, number(one.documents), "blue"))))),
        promise(said)),
      h("section", { class: "card", "aria-label": "Repeated passages" }, h("h2", {}, "Most repeated passages"),
        said.passages.length ? h("ul", { class: "places" }, said.passages.map((one) => h("li", {},
          h("div", { class: "where" }, h("b", {}, times(one.count)), h("button", { type: "button", class: "quiet", onclick: () => go("continue", { index: fields.index, text: one.text }) }, "what follows?")),
          h("div", { class: "snippet" }, tight(one.text).trim()), h("p", { class: "note" }, `first in ${one.name ?? `document ${one.document}`}`))))
          : h("p", { class: "note" }, "No passage of 16 tokens occurs twice, or the index is in shards.")),
      shared(),
      h("p", { class: "note" }, `tokenizer ${said.tokenizer ?? "none: ready tokens"} · fingerprint ${said.fingerprint.slice(0, 16)}…`),
    );
    say(`${number(said.num_tokens)} tokens in ${many(said.num_documents, "document")}`);
  }

  function promise(said) {
    const rows = [["nothing", "as it stands"], ["self", "without itself"], ["document", "without its document"]].filter(([name]) => said.promise[name] !== undefined);
    const most = Math.max(...rows.map(([name]) => said.promise[name]), 1e-9);
    return h("section", { class: "card", "aria-label": "Leaving out" }, h("h2", {}, "What leaving out costs"),
      h("div", { class: "aligned" }, rows.map(([name, words]) => h("div", { class: "rows" }, bar({ words }, said.promise[name] / most, h("b", {}, `${said.promise[name].toFixed(2)} nats`), "warm")))),
      h("p", { class: "note" }, `Cross-entropy of the corpus's own text, ${number(said.promise.tokens ?? 0)} tokens of it, predicted by witten-bell from at most 5 tokens. The last bar is what to expect on new text; in the others the text helps to predict itself.`));
  }

  function shared() {
    const box = h("section", { class: "card", "aria-label": "Near-duplicates" }, h("h2", {}, "What documents share"));
    const button = h("button", { type: "button" }, "count near-duplicates");
    button.addEventListener("click", async () => {
      button.disabled = true;
      button.textContent = "counting …";
      try {
        const said = await ask("near-duplicates", { index: fields.index });
        box.replaceChildren(h("h2", {}, "What documents share"),
          h("div", { class: "scroll" }, h("table", {}, h("thead", {}, h("tr", {}, ["passages of at least", "tokens in them", "share"].map((head) => h("th", { scope: "col" }, head)))),
            h("tbody", {}, said.lengths.map((one) => h("tr", {}, h("td", {}, `${one.length} tokens`), h("td", {}, number(one.tokens)), h("td", {}, share(one.token_share))))))),
          said.pairs.length ? h("ul", { class: "places" }, said.pairs.map((one) => h("li", {}, h("b", {}, one.name ?? `document ${one.document}`), " repeats ", h("b", {}, one.other_name ?? `document ${one.other}`), ` at ${many(one.positions, "position")} (${share(one.share)})`)))
            : h("p", { class: "note" }, `No document shares ${said.top_length} tokens with another one.`));
        say("near-duplicates counted");
      } catch (error) {
        box.replaceChildren(h("p", { role: "alert" }, error.message));
      }
    });
    box.append(h("p", { class: "note" }, "This reads the whole index: seconds per hundred million tokens."), button);
    return box;
  }

  return { element, show(state) { fields = { ...state }; asked("corpus", { index: state.index }, draw, { now: true }); } };
}
