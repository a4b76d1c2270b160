// Teach: a text token by token, what the corpus says of each, and who would teach it under a policy.
import { asker, bar, control, h, many, number, say, setText, share, textField, times, visible } from "./shared.js";

const POLICIES = ["evidence", "half", "long contexts", "where the corpus is unsure"];
const LEAVE_OUT = [["", "nothing: new text"], ["auto", "its document, where known"], ["self", "itself, once"]];
const ESTIMATORS = ["witten-bell", "modified-kneser-ney", "auto", "kneser-ney", "absolute-discounting", "katz", "ppm-c"];
const REASONS = {
  hard: "the label alone: the policy gives the corpus nothing here",
  corpus: "the corpus, as the policy asks",
  "corpus-shorter": "the corpus, from a shorter context than the policy asks for",
  "corpus-fallback": "the corpus, in the place of a silent teacher",
  "hard-fallback": "the label: the corpus doesn't know the context well enough",
  "base-fallback": "the base distribution",
  neural: "the neural teacher, as the policy asks",
  "neural-fallback": "the neural teacher, where the corpus doesn't know the context well enough",
  routed: "the label: one of the most certain positions",
};

export function make({ update }) {
  let fields = {};
  const area = textField("Text to teach", "A text that a student would read …", (text) => { fields.text = text; update({ text, at: null }, { later: true }); delete fields.at; request(); });
  const choose = (name, options) => {
    const select = h("select", { id: name }, options.map((one) => (Array.isArray(one) ? h("option", { value: one[0] }, one[1]) : h("option", { value: one }, one))));
    select.addEventListener("change", () => { fields[name] = select.value; update({ [name]: select.value }, { step: true }); request(true); });
    return select;
  };
  const policy = choose("policy", POLICIES), estimator = choose("estimator", ESTIMATORS), leave = choose("leave_out", LEAVE_OUT);
  const out = h("div", {});
  const asked = asker(out);
  const element = h("div", {}, h("h1", {}, "Who would teach what?"),
    h("p", { class: "lead" }, "For each token: what the corpus expected, on which evidence, and how much of the target the policy takes from it."),
    area, h("div", { class: "controls" }, control("Policy", policy), control("Estimator", estimator), control("Left out of the corpus", leave)), out);

  function request(now = false) {
    if ((fields.text ?? "").length < 2) {
      out.replaceChildren(h("p", { class: "empty" }, "Nothing to teach yet."));
      return;
    }
    const question = { index: fields.index, text: fields.text, policy: fields.policy || policy.value, estimator: estimator.value, leave_out: leave.value || null };
    asked("teach", question, draw, { now });
  }

  function draw(said) {
    const detail = h("div", {});
    if (said.policies.join() !== [...policy.options].map((one) => one.value).join()) {
      policy.replaceChildren(...said.policies.map((one) => h("option", { value: one }, one)));
      policy.value = said.policies.includes(fields.policy) ? fields.policy : "evidence";
    }
    const buttons = said.tokens.map((token, at) => {
      if (at === 0) return h("span", {}, visible(token.text));
      const button = h("button", { type: "button", "aria-pressed": "false", "data-at": at, style: `--share:${Math.round(55 * token.corpus)}%;--miss:${Math.round(100 * Math.min(1, token.nats / 10))}%`, "aria-label": token.text.trim() ? null : "blank", "aria-description": `${token.nats.toFixed(2)} nats, corpus ${share(token.corpus)}` }, token.text);
      button.addEventListener("click", () => {
        out.querySelectorAll(".taught button").forEach((one) => one.setAttribute("aria-pressed", String(one === button)));
        fields.at = String(at);
        update({ at });
        detail.replaceChildren(about(token, said));
      });
      return button;
    });
    const text = h("div", { class: "taught", "aria-label": "The text, token by token" }, words(buttons, said.tokens));
    text.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      event.preventDefault();
      const all = [...text.querySelectorAll("button")];
      const next = all[Math.max(0, Math.min(all.length - 1, all.indexOf(document.activeElement) + step))];
      next?.focus();
      next?.click();
    });
    out.replaceChildren(
      h("dl", { class: "figures" }, [[said.nats.toFixed(3), "nats per token, the corpus alone"], [share(said.corpus_share), "of the target from the corpus"], ...(said.neural ? [[said.neural.nats.toFixed(3), `nats per token, ${said.neural.name} alone`]] : []), [number(said.tokens.length - 1), "tokens predicted"]]
        .map(([value, name]) => h("div", {}, h("dt", {}, name), h("dd", {}, value)))),
      h("div", { class: "columns" },
        h("div", { class: "card" }, text, h("p", { class: "note" }, "Filled: the corpus's share of the target. Underlined: how surprised the corpus is. Arrow keys move.")),
        detail),
      h("details", {}, h("summary", {}, "all tokens as a table"), h("div", { class: "card scroll" }, table(said))),
    );
    const first = buttons[Number(fields.at)] ?? buttons.slice(1).reduce((best, one, at) => (said.tokens[at + 1].corpus > said.tokens[Number(best.dataset.at)].corpus ? one : best), buttons[1]);
    first?.click?.();
    say(`${said.nats.toFixed(2)} nats per token`);
  }

  /** Tokens of one word stay on one line, if the word isn't long. */
  function words(buttons, tokens) {
    const made = [];
    let size = Infinity;
    buttons.forEach((button, at) => {
      const text = tokens[at].text;
      size += text.length;
      if (/^\s/.test(text) || size > 24) {
        made.push(h("span", { class: "word" }));
        size = text.length;
      }
      made.at(-1).append(button);
    });
    return made;
  }

  function about(token, said) {
    const most = Math.max(token.p, token.likeliest[0]?.p ?? 0, 1e-9);
    const isThere = token.likeliest.some((one) => one.text === token.text);
    return h("section", { class: "card", "aria-label": "The token", "aria-live": "polite" },
      h("h2", {}, h("span", { class: "piece" }, "‹", visible(token.text), "›")),
      h("div", { class: "rows" }, bar({ words: "the corpus" }, token.corpus, h("b", {}, share(token.corpus)))),
      token.neural_share === undefined ? "" : h("div", { class: "rows" }, bar({ words: "the model" }, token.neural_share, h("b", {}, share(token.neural_share)))),
      h("div", { class: "rows" }, bar({ words: "the label" }, token.hard, h("b", {}, share(token.hard)), "warm")),
      h("p", {}, `Taught by ${REASONS[token.reason] ?? token.reason}.`),
      h("p", { class: "note" }, evidence(token)),
      h("h2", {}, "The corpus expected"),
      h("div", { class: "aligned" },
        token.likeliest.map((one) => h("div", { class: `rows${one.text === token.text ? " truth" : ""}` }, bar(one.text, one.p / most, share(one.p)))),
        isThere ? "" : h("div", { class: "rows truth" }, bar(token.text, token.p / most, share(token.p)))),
      ...(token.neural_likeliest ? [h("h2", {}, `${said.neural.name} expected`), ...token.neural_likeliest.map((one) => h("div", { class: `rows${one.text === token.text ? " truth" : ""}` }, bar(one.text, one.p, share(one.p)))), h("p", { class: "note" }, `It gave the token that came ${share(token.neural_p)}, ${token.neural_nats.toFixed(2)} nats.`)] : []),
      h("p", { class: "note" }, `The orange one came: ${share(token.p)}, ${token.nats.toFixed(2)} nats. Entropy ${token.entropy.toFixed(2)} nats. ${said.teacher.estimator}, contexts of ≤ ${said.teacher.max_order ?? "any number of"} tokens.`));
  }

  function evidence(token) {
    if (!token.match_len) return "No context is known: this is how often tokens occur at all.";
    const last = token.match_len === 1 ? "The last token occurs" : `The last ${token.match_len} tokens occur`;
    return `${last} ${times(token.count)}, with ${many(token.distinct, "different continuation")}.`;
  }

  function table(said) {
    const heads = ["token", "p", "nats", "context", "count", "distinct", "corpus", "why"];
    return h("table", {}, h("thead", {}, h("tr", {}, heads.map((head) => h("th", { scope: "col" }, head)))),
      h("tbody", {}, said.tokens.slice(1).map((one) => h("tr", {}, h("td", { class: "piece" }, visible(one.text)),
        [share(one.p), one.nats.toFixed(2), one.match_len, number(one.count), number(one.distinct), share(one.corpus), one.reason].map((cell) => h("td", {}, `${cell}`))))));
  }

  return {
    element,
    show(state) {
      fields = { ...state };
      setText(area, state.text ?? "");
      policy.value = [...policy.options].some((one) => one.value === state.policy) ? state.policy : "evidence";
      estimator.value = ESTIMATORS.includes(state.estimator) ? state.estimator : "witten-bell";
      leave.value = ["auto", "self"].includes(state.leave_out) ? state.leave_out : "";
      request(true);
    },
  };
}
