// Lines over n on a logarithmic axis: hover or arrow keys read them, the keys below switch them on and off.
import { h } from "./shared.js";

const HEIGHT = 250, LEFT = 46, RIGHT = 12, TOP = 12, BOTTOM = 40;

/**
 * @param {{name: string, colour: string, points: {x: number, y: number}[]}[]} lines
 * @param {{label: string, x: string, y: string}} words
 */
export function lineChart(lines, words) {
  const WIDTH = Math.max(280, Math.min(520, innerWidth - 60)); // drawn as wide as it is shown, so that a phone can read it
  const all = lines.flatMap((line) => line.points);
  if (!all.length) return h("p", { class: "empty" }, "Too short for a curve.");
  const most = Math.max(2, ...all.map((point) => point.x));
  const x = (value) => LEFT + (Math.log2(value) / Math.log2(most)) * (WIDTH - LEFT - RIGHT);
  const y = (value) => TOP + (1 - value) * (HEIGHT - TOP - BOTTOM);
  const drawing = h("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": words.label, tabindex: "0" });
  for (const part of [0, 0.25, 0.5, 0.75, 1]) {
    drawing.append(h("line", { class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: y(part), y2: y(part) }),
      h("text", { x: LEFT - 8, y: y(part) + 4, "text-anchor": "end" }, `${100 * part} %`));
  }
  for (let tick = 1; tick <= most; tick *= 2) drawing.append(h("text", { x: x(tick), y: HEIGHT - BOTTOM + 18, "text-anchor": "middle" }, `${tick}`));
  drawing.append(h("text", { x: (LEFT + WIDTH - RIGHT) / 2, y: HEIGHT - 4, "text-anchor": "middle" }, words.x));
  const groups = lines.map((line) => {
    const path = line.points.map((point, place) => `${place ? "L" : "M"}${x(point.x).toFixed(1)} ${y(point.y).toFixed(1)}`).join("");
    const group = h("g", {}, h("path", { class: "line", d: path, style: `stroke:${line.colour}` }),
      line.points.map((point) => h("circle", { cx: x(point.x), cy: y(point.y), r: 2.6, style: `fill:${line.colour}` })));
    drawing.append(group);
    return group;
  });
  const cross = h("line", { class: "cross", y1: TOP, y2: HEIGHT - BOTTOM, visibility: "hidden" });
  drawing.append(cross);
  const told = h("p", { class: "note", "aria-live": "polite" }, words.y);
  const values = [...new Set(all.map((point) => point.x))].sort((a, b) => a - b);
  let at = -1;
  const read = (place) => {
    at = Math.max(0, Math.min(values.length - 1, place));
    const n = values[at];
    cross.setAttribute("x1", x(n));
    cross.setAttribute("x2", x(n));
    cross.setAttribute("visibility", "visible");
    const said = lines.map((line) => [line.name, line.points.find((point) => point.x === n)]).filter(([, point]) => point);
    told.textContent = `n = ${n}: ${said.map(([name, point]) => `${name} ${(100 * point.y).toFixed(1)} %`).join(", ")}`;
  };
  const leave = () => { cross.setAttribute("visibility", "hidden"); told.textContent = words.y; };
  drawing.addEventListener("pointermove", (event) => {
    const box = drawing.getBoundingClientRect();
    const place = ((event.clientX - box.left) / box.width) * WIDTH;
    read(values.reduce((best, n, number) => (Math.abs(x(n) - place) < Math.abs(x(values[best]) - place) ? number : best), 0));
  });
  drawing.addEventListener("pointerleave", leave);
  drawing.addEventListener("blur", leave);
  drawing.addEventListener("keydown", (event) => {
    if (event.key !== "ArrowRight" && event.key !== "ArrowLeft") return;
    event.preventDefault();
    read(at + (event.key === "ArrowRight" ? 1 : -1));
  });
  const keys = h("div", { class: "keys" }, lines.map((line, number) => {
    const key = h("button", { type: "button", "aria-pressed": "true" }, h("i", { style: `background:${line.colour}` }), line.name);
    key.addEventListener("click", () => {
      const on = key.getAttribute("aria-pressed") !== "true";
      key.setAttribute("aria-pressed", String(on));
      groups[number].setAttribute("visibility", on ? "visible" : "hidden");
    });
    return key;
  }));
  return h("figure", {}, drawing, keys, told);
}
