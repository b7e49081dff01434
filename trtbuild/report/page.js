"use strict";
// Sorts and filters the table, switches the theme, and draws the plots. Without it the page is whole but still.
(() => {
  const root = document.documentElement;
  const data = JSON.parse(document.getElementById("data").textContent);

  const dark = () => root.dataset.theme ? root.dataset.theme === "dark"
    : window.matchMedia("(prefers-color-scheme: dark)").matches;

  const colour = (name) => getComputedStyle(root).getPropertyValue(name).trim();

  const draw = async () => {
    const text = colour("--text"), line = colour("--line");
    const config = {
      background: "transparent", font: "system-ui, sans-serif",
      axis: { labelColor: text, titleColor: text, gridColor: line, domainColor: line, tickColor: line },
      legend: { labelColor: text, titleColor: text, symbolBaseFillColor: text, symbolBaseStrokeColor: text, orient: "bottom" }, title: { color: text }, view: { stroke: line },
      text: { color: text }, range: { category: dark() ? data.palette.dark : data.palette.light },
    };
    for (const [name, spec] of Object.entries(data.plots)) {
      const place = document.getElementById(name);
      await window.vegaEmbed(place, spec, {
        actions: false, renderer: "svg", config, tooltip: { theme: dark() ? "dark" : "light" },
      });
    }
  };

  const toggle = document.getElementById("theme");
  const told = () => { toggle.textContent = dark() ? "Light theme" : "Dark theme"; };
  toggle.hidden = false;
  toggle.addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    told();
    draw();
  });
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { told(); draw(); });
  told();

  const body = document.querySelector("#points tbody");
  const heads = [...document.querySelectorAll("#points thead th")];
  const value = (row, at) => row.cells[at].dataset.value ?? row.cells[at].textContent;
  const compare = (numeric) => (a, b) => numeric
    ? (a === "" ? Infinity : Number(a)) - (b === "" ? Infinity : Number(b)) : a.localeCompare(b, undefined, { numeric: true });
  heads.forEach((head, at) => head.querySelector("button")?.addEventListener("click", () => {
    const down = head.getAttribute("aria-sort") === "ascending";
    const order = compare(head.classList.contains("number"));
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const rows = [...body.rows].sort((a, b) => order(value(a, at), value(b, at)));
    body.append(...(down ? rows.reverse() : rows));
  }));

  const filter = document.getElementById("filter"), shown = document.getElementById("shown");
  const sift = () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const row of body.rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
      count += row.hidden ? 0 : 1;
    }
    shown.textContent = `${count} of ${body.rows.length} shown`;
  };
  filter.addEventListener("input", sift);
  sift();

  for (const button of document.querySelectorAll("button.copy")) {
    button.hidden = !navigator.clipboard;
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(button.previousElementSibling.textContent);
      button.textContent = "Copied";
    });
  }
  draw().then(() => { root.dataset.drawn = "true"; });
})();
