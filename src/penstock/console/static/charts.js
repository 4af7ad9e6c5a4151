"use strict";
// Draws the charts of the last minutes with uPlot, in the page's own colours.

const SPAN = 300;
const LEAST = 60;

const Charts = (() => {
  const number = (digits) => (plot, value) => (value == null ? "–" : value.toFixed(digits));
  const STAGES = ["queue", "parse", "features", "retrieve", "score", "rerank", "serialise", "log"];
  const SHAPES = {
    rate: { lines: ["decisions", "events"], digits: 1 },
    decide: { lines: ["p50", "p99"], digits: 2 },
    freshness: { lines: ["p50", "p99"], digits: 2 },
    tiers: { lines: ["personal", "segment", "popular", "default"], digits: 1, top: 100 },
    stages: { lines: STAGES, digits: 2, stacked: true },
    errors: { lines: ["4xx", "5xx"], digits: 2, colours: ["warn", "bad"] },
  };
  const drawn = new Map();

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

  const clock = (plot, ticks) =>
    ticks.map((at) => {
      const time = new Date(at * 1000);
      return [time.getHours(), time.getMinutes(), time.getSeconds()].map((n) => String(n).padStart(2, "0")).join(":");
    });

  function columns(name, points) {
    const shape = SHAPES[name];
    const values = (line) => points.map((point) => point[name]?.[line] ?? null);
    if (!shape.stacked) return shape.lines.map(values);
    const sums = points.map(() => 0);
    return shape.lines.map((line) =>
      values(line).map((value, at) => (points[at][name] ? (sums[at] += value ?? 0) : null)),
    );
  }

  function series(name, points) {
    const shape = SHAPES[name];
    return shape.lines.map((line, at) => {
      const tint = colour(shape.colours?.[at] ?? `line-${at + 1}`);
      const plain = number(shape.digits);
      return {
        label: line,
        stroke: tint,
        width: shape.stacked ? 0 : 1.5,
        fill: shape.stacked ? tint : undefined,
        points: { show: false },
        // Where nothing is pointed at, the newest.
        value: (plot, value, index, place) => plain(plot, drawn.get(name).points.at(place ?? -1)?.[name]?.[line]),
      };
    });
  }

  function build(name, place, points) {
    const grid = { stroke: colour("line"), width: 1 };
    const axis = { stroke: colour("soft"), grid, ticks: { show: false }, font: "11px system-ui, sans-serif" };
    const top = SHAPES[name].top;
    const options = {
      width: place.clientWidth,
      height: 150,
      padding: [8, 26, 0, 0],
      cursor: { drag: { x: false, y: false }, points: { size: 5 } },
      scales: {
        x: { range: () => [drawn.get(name).start, drawn.get(name).end] },
        y: { range: (plot, low, high) => [0, top ?? Math.max(high * 1.1, 0.1)] },
      },
      axes: [
        { ...axis, values: clock, space: 70, size: 24 },
        { ...axis, size: 44, space: 30, values: (plot, ticks) => ticks.map((tick) => String(+tick.toFixed(3))) },
      ],
      bands: SHAPES[name].stacked ? SHAPES[name].lines.slice(1).map((line, at) => ({ series: [at + 2, at + 1] })) : [],
      series: [{ value: (plot, at) => (at == null ? "–" : clock(plot, [at])[0]) }, ...series(name, points)],
    };
    place.replaceChildren();
    return new uPlot(options, [[], ...SHAPES[name].lines.map(() => [])], place);
  }

  function show(points, end) {
    const start = Math.max(end - SPAN, Math.min(points[0]?.time ?? end, end - LEAST));
    for (const place of document.querySelectorAll("[data-chart]")) {
      const name = place.dataset.chart;
      const known = drawn.get(name) ?? {};
      drawn.set(name, Object.assign(known, { points, start, end, place }));
      known.plot ??= build(name, place, points);
      if (known.plot.width !== place.clientWidth) known.plot.setSize({ width: place.clientWidth, height: 150 });
      known.plot.setData([points.map((point) => point.time), ...columns(name, points)]);
    }
  }

  function again() {
    for (const known of drawn.values()) {
      known.plot?.destroy();
      known.plot = undefined;
    }
    const any = drawn.values().next().value;
    if (any) show(any.points, any.end);
  }

  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
  addEventListener("resize", () => {
    const any = drawn.values().next().value;
    if (any) show(any.points, any.end);
  });
  return { show, STAGES };
})();
