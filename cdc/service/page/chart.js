// How far behind a pipeline was in the last half an hour.

import { clock, duration, lag } from "./words.js";

const LEAST_POINTS = 3;
const HEIGHT = 176; // as in page.css

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

export class LagChart {
  constructor(section) {
    this.section = section;
    this.place = section.querySelector(".chart");
    this.note = section.querySelector(".note");
    this.plot = null;
    this.data = null;
    new ResizeObserver(() => this.plot?.setSize({ width: this.place.clientWidth, height: HEIGHT })).observe(this.place);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.plot && this.draw());
  }

  // samples: [at, seconds behind, bytes behind, rows per second], oldest first
  show(samples, now) {
    this.data = [samples.map(([at]) => at), samples.map(([, seconds]) => seconds)];
    this.section.hidden = samples.length < LEAST_POINTS;
    if (this.section.hidden) return;
    if (this.plot === null) this.draw();
    else this.plot.setData(this.data);
    const most = Math.max(...this.data[1]);
    const note = `In the last ${duration(now - samples[0][0])} at most ${lag(most)}.`;
    if (this.note.textContent !== note) this.note.textContent = note;
    this.place.setAttribute("aria-label", `How far behind: ${note}`);
  }

  draw() {
    this.plot?.destroy();
    const quiet = colour("--quiet"), line = colour("--line"), ink = colour("--busy");
    const axis = { stroke: quiet, grid: { stroke: line, width: 1 }, ticks: { show: false }, font: "12px system-ui, sans-serif" };
    this.plot = new uPlot({
      width: this.place.clientWidth,
      height: HEIGHT,
      legend: { show: false },
      cursor: { show: false },
      padding: [8, 28, 0, 0],
      scales: { y: { range: (_, _least, most) => [0, Math.max(1, most * 1.15)] } },
      axes: [
        { ...axis, grid: { show: false }, space: 90, size: 30, values: (_, ticks, _axis, _space, step) => ticks.map((at) => clock(at).slice(0, step < 60 ? 8 : 5)) },
        { ...axis, size: 60, space: 40, values: (_, ticks) => ticks.map((seconds) => lag(seconds).replace(".0 ", " ")) },
      ],
      series: [{}, { stroke: ink, width: 2, fill: `color-mix(in srgb, ${ink} 12%, transparent)`, points: { show: false } }],
    }, this.data, this.place);
  }
}
