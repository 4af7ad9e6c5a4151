"use strict";
// Asks for the server's counters and turns what they grew by into the figures, bars and charts of the page.

(() => {
  const EVERY = 2000;
  const WINDOW = 60;
  const POINT = 10;
  const STORE = "penstock-console";
  const TIERS = ["personal", "segment", "popular", "default"];
  let samples = [];
  let points = [];

  const grown = (before, after) => after.map((count, at) => count - (before?.[at] ?? 0));

  // Linear within the bucket that holds the quantile; milliseconds.
  function quantile(bounds, counts, share) {
    const total = counts.at(-1);
    if (!total) return null;
    const at = counts.findIndex((count) => count >= share * total);
    if (at >= bounds.length) return bounds.at(-1) * 1e3;
    const [low, under] = at ? [bounds[at - 1], counts[at - 1]] : [0, 0];
    return (low + ((bounds[at] - low) * (share * total - under)) / (counts[at] - under)) * 1e3;
  }

  function between(first, last) {
    const seconds = last.time - first.time;
    const each = (name) => (last[name] - first[name]) / seconds;
    const total = (group) => Object.values(group).reduce((sum, count) => sum + count, 0);
    const decisions = last.decisions - first.decisions;
    const stages = {};
    for (const [stage, now] of Object.entries(last.stages)) {
      const was = first.stages[stage];
      const counts = grown(was?.counts, now.counts);
      if (counts.at(-1)) {
        stages[stage] = {
          mean: decisions ? ((now.sum - (was?.sum ?? 0)) * 1e3) / decisions : 0,
          p50: quantile(last.bounds, counts, 0.5),
          p99: quantile(last.bounds, counts, 0.99),
        };
      }
    }
    const fresh = grown(first.freshness.counts, last.freshness.counts);
    const tiers = Object.entries(last.tiers).map(([tier, count]) => [tier, count - (first.tiers[tier] ?? 0)]);
    return {
      decisions: each("decisions"),
      events: (total(last.events) - total(first.events)) / seconds,
      refused: each("refused"),
      failed: each("failed"),
      flight: last.in_flight,
      fresh50: quantile(last.bounds, fresh, 0.5),
      fresh99: quantile(last.bounds, fresh, 0.99),
      count: decisions,
      stages,
      tiers: Object.fromEntries(tiers),
    };
  }

  function point(found, time) {
    const means = Object.entries(found.stages).map(([stage, took]) => [stage, took.mean]);
    const shares = TIERS.map((tier) => [tier, (100 * (found.tiers[tier] ?? 0)) / found.count]);
    return {
      time,
      rate: { decisions: found.decisions, events: found.events },
      decide: { p50: found.stages.total?.p50 ?? null, p99: found.stages.total?.p99 ?? null },
      freshness: { p50: found.fresh50, p99: found.fresh99 },
      tiers: found.count ? Object.fromEntries(shares) : null,
      stages: found.count ? Object.fromEntries(means) : null,
      errors: { "4xx": found.refused, "5xx": found.failed },
    };
  }

  const ms = (value) => (value == null ? "–" : `${value.toFixed(value < 10 ? 2 : 1)} ms`);
  const rate = (value) => value.toFixed(value < 10 ? 2 : 1);

  function tiles(found) {
    const total = found.stages.total ?? {};
    const texts = {
      decisions: rate(found.decisions),
      events: rate(found.events),
      p50: ms(total.p50),
      p99: ms(total.p99),
      fresh50: ms(found.fresh50),
      fresh99: ms(found.fresh99),
      personal: found.count ? `${((100 * (found.tiers.personal ?? 0)) / found.count).toFixed(1)} %` : "–",
      refused: rate(found.refused),
      failed: rate(found.failed),
      flight: String(found.flight),
    };
    for (const tile of document.querySelectorAll("[data-figure]")) {
      const name = tile.dataset.figure;
      tile.textContent = texts[name];
      tile.classList.toggle("bad", name === "failed" && found.failed > 0);
    }
  }

  function row(texts, start, width, tint) {
    const line = document.createElement("tr");
    texts.forEach((text, at) => {
      const cell = document.createElement(at ? "td" : "th");
      if (!at) cell.scope = "row";
      cell.textContent = text;
      line.append(cell);
    });
    const bar = document.createElement("span");
    bar.className = `bar ${tint}`;
    bar.style.marginLeft = `${start}%`;
    bar.style.width = `${width && Math.max(width, 0.3)}%`;
    const cell = document.createElement("td");
    cell.className = "bars";
    cell.append(bar);
    line.append(cell);
    return line;
  }

  function tables(found) {
    const place = (name) => document.querySelector(`[data-rows="${name}"]`);
    const whole = found.stages.total?.mean ?? 0;
    let from = 0;
    const stages = Charts.STAGES.filter((stage) => found.stages[stage]).map((stage) => {
      const took = found.stages[stage];
      const width = whole ? Math.min((100 * took.mean) / whole, 100 - from) : 0;
      const line = row([stage, took.mean.toFixed(2), took.p99.toFixed(2)], from, width, `tint-${Charts.STAGES.indexOf(stage) + 1}`);
      from += width;
      return line;
    });
    const total = found.stages.total;
    if (total) stages.push(row(["total", total.mean.toFixed(2), total.p99.toFixed(2)], 0, 100, "tint-all"));
    const tiers = TIERS.map((tier, at) => {
      const count = found.tiers[tier] ?? 0;
      const share = found.count ? (100 * count) / found.count : 0;
      return row([tier, count.toLocaleString("en"), found.count ? `${share.toFixed(1)} %` : "–"], 0, share, `tint-${at + 1}`);
    });
    place("waterfall").replaceChildren(...(stages.length ? stages : [row(["no decision in the last minute", "–", "–"], 0, 0, "tint-none")]));
    place("tiers").replaceChildren(...tiers);
  }

  function take(sample) {
    const last = samples.at(-1);
    // Counters that fall are those of a server that was started again.
    if (last && (sample.requests < last.requests || sample.decisions < last.decisions)) samples = [];
    samples = samples.filter((old) => old.time >= sample.time - WINDOW && old.time < sample.time);
    samples.push(sample);
    if (samples.length < 2) return;
    const near = samples.find((old) => old.time >= sample.time - POINT - 1) ?? samples[0];
    const minute = between(samples[0], sample);
    points = points.filter((old) => old.time > sample.time - SPAN && old.time < sample.time);
    if (near !== sample) points.push(point(between(near, sample), sample.time));
    tiles(minute);
    tables(minute);
    Charts.show(points, sample.time);
  }

  async function ask() {
    const lost = document.getElementById("lost");
    try {
      if (!document.hidden) {
        const answer = await fetch("/console/live", { headers: { accept: "application/json" } });
        if (answer.status === 401) return location.reload();
        if (answer.ok) take(await answer.json());
        lost.hidden = answer.ok;
      }
    } catch {
      lost.hidden = false;
    }
    setTimeout(ask, EVERY);
  }

  function keep() {
    sessionStorage.setItem(STORE, JSON.stringify({ samples, points }));
  }

  document.getElementById("no-script").hidden = true;
  try {
    ({ samples, points } = JSON.parse(sessionStorage.getItem(STORE)) ?? { samples, points });
  } catch {
    sessionStorage.removeItem(STORE);
  }
  addEventListener("pagehide", keep);
  document.querySelector('form[action="/console/sign-out"]').addEventListener("submit", () => {
    removeEventListener("pagehide", keep);
    sessionStorage.removeItem(STORE);
  });
  // A page that nobody looks at asks for nothing.
  document.body.addEventListener("htmx:beforeRequest", (event) => {
    if (document.hidden) event.preventDefault();
  });
  ask();
})();
