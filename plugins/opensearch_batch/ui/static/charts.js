// Draws the charts of a page with uPlot, again when their data, the width or the theme changes.
"use strict";
const drawn = new Map(), HEIGHT = 200, SHORTEST_S = 10;

function resolved(name) {
  const probe = document.createElement("span");
  probe.className = name;
  document.body.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}

function utc(seconds) {
  return new Date(seconds * 1000).toISOString().slice(0, 19).replace("T", " ");
}

function shownTime(seconds, step) {
  return step >= 86400 ? utc(seconds).slice(5, 10) : step >= 60 ? utc(seconds).slice(11, 16) : utc(seconds).slice(11);
}

function stacked(series) {
  const sums = new Array(series[0].values.length).fill(0);
  return series.map(({values}) => values.map((value, at) => (sums[at] += value ?? 0)));
}

// Few bars that are much higher than all others, such as those of a first run, would hide these: they are cut.
function highest(totals) {
  const sorted = [...totals].sort((one, other) => other - one), cut = Math.ceil(sorted.length / 10);
  const rest = sorted[cut] ?? 0;
  return rest > 0 && sorted[0] > 4 * rest ? 1.6 * rest : sorted[0] * 1.08 || 1;
}

function cutLabels(totals, top, color) {
  return (plot) => totals.forEach((total, at) => {
    if (total <= top) return;
    const {ctx} = plot, ratio = devicePixelRatio;
    ctx.save();
    ctx.font = `${11 * ratio}px ${getComputedStyle(document.body).fontFamily}`;
    ctx.fillStyle = color;
    ctx.textAlign = "center";
    ctx.fillText(`\u2191 ${total.toLocaleString("en")}`, plot.valToPos(at, "x", true), plot.bbox.top - 5 * ratio);
    ctx.restore();
  });
}

// One bar a run, whatever the time between runs.
function barOptions(chart, series, values) {
  const {times} = chart, totals = values[0], top = highest(totals), last = times.length - 1;
  const isOneDay = times[last] - times[0] < 86400;
  const days = (plot, splits) => splits.map((at) => Number.isInteger(at) && at in times ? utc(times[at]).slice(...isOneDay ? [11, 16] : [5, 10]) : "");
  return {
    x: {time: false, range: () => [-0.6, Math.max(last, 6) + 0.6]}, top, days,
    series: series.map((each) => ({...each, width: 0, fill: each.stroke, points: {show: false}, paths: uPlot.paths.bars({size: [0.7, 36]})})),
    draw: [cutLabels(totals, top, resolved("muted"))],
  };
}

function options(chart, values, width) {
  const isBars = chart.kind === "bars", muted = resolved("muted"), grid = {stroke: resolved("faint"), width: 1};
  const font = `12px ${getComputedStyle(document.body).fontFamily}`;
  const shown = isBars ? [...chart.series].reverse() : chart.series;
  let series = shown.map(({label, values: own, color}) => ({
    label, stroke: resolved(`fill ${color}`), width: 2, value: (plot, value, index, at) => at === null ? "" : (own[at] ?? "\u2013").toLocaleString("en"),
    points: {show: chart.times.length < 30, size: 5}, fill: chart.kind === "area" ? `color-mix(in srgb, ${resolved(`fill ${color}`)} 15%, transparent)` : undefined,
  }));
  const bars = isBars ? barOptions(chart, series, values) : null;
  series = bars?.series ?? series;
  const time = {value: (plot, at, index, own) => own === null ? "" : `${utc(chart.times[own])} UTC`};
  const first = chart.times[0], isShort = chart.times.at(-1) < first + SHORTEST_S;
  const range = (plot, low, high) => isShort ? [first, first + SHORTEST_S] : [low, high];
  return {
    width, height: HEIGHT, series: [time, ...series], padding: [18, 8, 0, 0],
    axes: [
      {stroke: muted, font, grid: {show: false}, ticks: grid, size: 34, space: isBars ? 60 : 80, incrs: isBars ? [1, 2, 5, 10, 20, 50] : undefined,
        values: bars?.days ?? ((plot, splits, axis, space, step) => splits.map((at) => shownTime(at, step)))},
      {stroke: muted, font, grid, ticks: {show: false}, size: 52, space: 36},
    ],
    scales: {x: bars?.x ?? {range}, y: {range: (plot, low, high) => [0, bars?.top ?? (high > 0 ? high * 1.08 : 1)]}},
    hooks: {draw: bars?.draw ?? []},
    tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC"),
    cursor: {drag: {x: !isBars, y: false}, sync: {key: chart.kind === "bars" ? "runs" : "run"}, y: false},
  };
}

function draw(figure) {
  const chart = JSON.parse(figure.dataset.chart), target = figure.querySelector(".plot");
  const width = Math.max(target.clientWidth, 250), old = drawn.get(figure.id);
  if (old?.data === figure.dataset.chart && old.width === width && target.contains(old.plot.root)) return;
  old?.plot.destroy();
  const isBars = chart.kind === "bars";
  const values = isBars ? stacked(chart.series).reverse() : chart.series.map((each) => each.values);
  const times = isBars ? chart.times.map((_, at) => at) : chart.times;
  const plot = new uPlot(options(chart, values, width), [times, ...values], target);
  // The legend names the parts of a bar from the bottom up, and the time last.
  const [time, ...rows] = plot.root.querySelectorAll(".u-series");
  time.parentElement.append(...(isBars ? rows.reverse() : rows), time);
  drawn.set(figure.id, {plot, data: figure.dataset.chart, width});
}

function drawAll() {
  document.querySelectorAll("figure[data-chart]").forEach(draw);
}

document.addEventListener("DOMContentLoaded", drawAll);
document.addEventListener("htmx:after:settle", drawAll);
document.addEventListener("htmx:after:swap", drawAll);
addEventListener("resize", drawAll);
for (const [source, event] of [[matchMedia("(prefers-color-scheme: dark)"), "change"], [window, "storage"]]) {
  source.addEventListener(event, () => {
    drawn.forEach((each) => (each.data = ""));
    drawAll();
  });
}
