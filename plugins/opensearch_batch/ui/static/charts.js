// Draws the charts of a page with uPlot, again when their data, the width or the theme changes.
"use strict";
const drawn = new Map();


function resolved(name) {
  const probe = document.createElement("span");
  probe.className = name;
  document.body.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}

function shownTime(seconds, step = 1) {
  const iso = new Date(seconds * 1000).toISOString();
  return step >= 86400 ? iso.slice(5, 10) : step >= 60 ? iso.slice(11, 16) : iso.slice(11, 19);
}

function stacked(series) {
  const sums = new Array(series[0].values.length).fill(0);
  return series.map(({values}) => values.map((value, at) => (sums[at] += value ?? 0)));
}

function options(chart, width) {
  const isBars = chart.kind === "bars";
  const units = [...new Set(chart.series.map((each) => each.unit))];
  const text = resolved("muted"), grid = {stroke: resolved("faint"), width: 1};
  const shown = (own) => (plot, value, series, at) => `${own[at] ?? "\u2013"}`;
  const series = chart.series.map((each) => {
    const stroke = resolved(each.color);
    const bars = isBars ? {paths: uPlot.paths.bars({size: [0.7, 40]}), fill: stroke, points: {show: false}} : {};
    return {label: `${each.label} (${each.unit})`, scale: each.unit, stroke, width: isBars ? 0 : 1.5, spanGaps: false,
      value: shown(each.values), ...bars};
  });
  const axes = units.map((unit, at) => ({scale: unit, side: at ? 1 : 3, stroke: text, size: 60, grid: at ? {show: false} : grid,
    ticks: grid, label: unit, labelSize: 20}));
  const scales = Object.fromEntries(units.map((unit) => [unit, {range: (plot, low, high) => [0, high > 0 ? high * 1.05 : 1]}]));
  if (isBars) {
    series.reverse();
    // Half a bar beyond the first and the last.
    scales.x = {range: (plot, low, high) => [low, high].map((at, side) => at + (side - 0.5) * (high - low) / (chart.times.length - 1))};
  }
  const time = {label: "UTC", value: (plot, at) => at === null ? "\u2013" : new Date(at * 1000).toISOString().slice(0, 19).replace("T", " ")};
  const times = {stroke: text, grid, ticks: grid, space: 80, values: (plot, splits, axis, space, step) => splits.map((at) => shownTime(at, step))};
  return {width, height: 200, series: [time, ...series], axes: [times, ...axes], scales,
    tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC"), cursor: {drag: {x: true, y: false}}};
}

function draw(figure) {
  const chart = JSON.parse(figure.dataset.chart), target = figure.querySelector(".plot");
  const width = Math.max(target.clientWidth, 300), old = drawn.get(figure.id);
  if (old?.data === figure.dataset.chart && old.width === width && target.contains(old.plot.root)) return;
  old?.plot.destroy();
  const values = chart.kind === "bars" ? stacked(chart.series).reverse() : chart.series.map((each) => each.values);
  const plot = new uPlot(options(chart, width), [chart.times, ...values], target);
  drawn.set(figure.id, {plot, data: figure.dataset.chart, width});
}

function drawAll() {
  document.querySelectorAll("figure[data-chart]").forEach(draw);
}

document.addEventListener("DOMContentLoaded", drawAll);
document.addEventListener("htmx:after:settle", drawAll);
document.addEventListener("htmx:after:swap", drawAll);
addEventListener("resize", drawAll);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  drawn.forEach((each) => (each.data = ""));
  drawAll();
});
