"use strict";
(() => {
  const $ = (selector, root = document) => [...root.querySelectorAll(selector)];
  const make = (tag, properties = {}, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };
  const root = document.documentElement;
  addEventListener("error", (event) => { root.dataset.problem = event.message; });

  const checks = $(".check"), subjects = $(".subject"), tools = document.getElementById("tools");
  for (const check of checks) {
    check.dataset.state = check.classList[1];
    check.dataset.family = check.querySelector("h3").textContent.split(".")[0];
  }
  const first = new Map(checks.map((c, i) => [c, i]));
  const text = new Map(checks.map((c) => [c, c.textContent.toLowerCase()]));
  const names = new Map(subjects.map((s) => [s, s.querySelector("h2").textContent.toLowerCase()]));
  const chosen = new Set();

  // The controls. Statuses and families are read from the page itself, so there is one list of them.
  const search = make("input", { type: "search", placeholder: "Search checks  ( / )", ariaLabel: "Search checks" });
  const chips = make("div", { className: "chips", role: "group", ariaLabel: "Filter by outcome" });
  const tally = make("span", { className: "tally", role: "status" });
  for (const tile of $(".tile")) {
    const [, state] = tile.classList, n = checks.filter((c) => c.dataset.state === state).length;
    if (!n) continue;
    const glyph = tile.querySelector(".glyph").cloneNode(true);
    const label = tile.querySelector("span").textContent.replace(glyph.textContent, "").trim();
    const chip = make("button", { type: "button", className: state, title: tile.title }, glyph, `${label} ${n}`);
    chip.dataset.state = state;
    chip.setAttribute("aria-pressed", "false");
    chip.addEventListener("click", () => {
      if (!chosen.delete(state)) chosen.add(state);
      chip.setAttribute("aria-pressed", String(chosen.has(state)));
      show();
    });
    chips.append(chip);
  }
  const choice = (label, options) => make("select", { ariaLabel: label }, ...options.map(([value, name]) => make("option", { value }, name)));
  const families = [...new Set(checks.map((c) => c.dataset.family))].sort();
  const family = choice("Filter by family", [["", "All families"], ...families.map((f) => [f, f])]);
  const order = choice("Sort checks", [["urgency", "Most urgent first"], ["family", "By family"], ["time", "Slowest first"]]);
  const toggle = make("button", { type: "button" }, "Open all");
  const reset = make("button", { type: "button", hidden: true }, "Clear filters");
  const nothing = make("p", { className: "nothing", hidden: true }, "No check matches these filters.");

  function show() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let seen = 0;
    for (const subject of subjects) {
      let here = 0;
      const list = $(".check", subject);
      for (const check of list) {
        const match = (!chosen.size || chosen.has(check.dataset.state)) && (!family.value || check.dataset.family === family.value)
          && words.every((w) => text.get(check).includes(w) || names.get(subject).includes(w));
        check.hidden = !match;
        here += match;
      }
      subject.hidden = list.length > 0 && !here;
      seen += here;
    }
    const filtered = Boolean(words.length || chosen.size || family.value);
    reset.hidden = !filtered;
    nothing.hidden = seen > 0 || !checks.length;
    tally.textContent = filtered ? `${seen} of ${checks.length} checks` : `${checks.length} checks`;
    label();
  }

  function sort() {
    const by = { urgency: () => 0, family: (a, b) => a.dataset.family.localeCompare(b.dataset.family), time: (a, b) => b.dataset.seconds - a.dataset.seconds };
    for (const list of $(".list")) {
      list.append(...$(".check", list).sort((a, b) => by[order.value](a, b) || first.get(a) - first.get(b)));
    }
  }

  const visible = () => checks.filter((c) => !c.hidden && !c.closest(".subject").hidden);
  const label = () => { toggle.textContent = visible().every((c) => c.open) ? "Close all" : "Open all"; };
  function clear() {
    search.value = family.value = "";
    chosen.clear();
    for (const chip of chips.children) chip.setAttribute("aria-pressed", "false");
    show();
  }

  search.addEventListener("input", show);
  family.addEventListener("change", show);
  order.addEventListener("change", sort);
  reset.addEventListener("click", () => { clear(); search.focus(); });
  toggle.addEventListener("click", () => {
    const open = toggle.textContent === "Open all";
    for (const check of visible()) check.open = open;
    label();
  });
  for (const check of checks) check.addEventListener("toggle", label);
  addEventListener("keydown", (event) => {
    const typing = event.target.matches("input, select, textarea");
    if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      search.focus();
    } else if (event.key === "Escape" && event.target === search) {
      clear();
    }
  });

  // A link to a check shows it, whatever the filters say; a cell of the overview filters by its family.
  function reveal() {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!target || !target.matches(".check, .subject")) return;
    if (target.hidden || target.closest(".subject").hidden) clear();
    if (target.matches(".check")) target.open = true;
    target.scrollIntoView({ behavior: "instant" });
  }
  addEventListener("hashchange", reveal);
  for (const link of $(".matrix a.cell")) {
    link.addEventListener("click", () => { clear(); family.value = link.dataset.family; show(); setTimeout(reveal); });
  }
  for (const link of $('main a[href^="#"]:not(.cell), .causes a')) link.addEventListener("click", () => setTimeout(reveal));

  // Commands and links can be copied; without permission for the clipboard the text is selected instead.
  async function copy(button, what, element) {
    try {
      await navigator.clipboard.writeText(what);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(element);
      button.textContent = "Selected: press Ctrl+C";
    }
    setTimeout(() => { button.textContent = button.title; }, 2500);
  }
  function copies(element, what, title) {
    const button = make("button", { type: "button", className: "copy", title }, title);
    button.addEventListener("click", () => copy(button, what(), element));
    element.after(button);
  }
  for (const code of $(".reproduce code")) copies(code, () => code.textContent, "Copy the command");
  for (const check of checks) {
    const here = make("a", { className: "here", href: `#${encodeURIComponent(check.id)}` }, "Link to this result");
    check.querySelector(".body").append(make("p", { className: "reproduce" }, here));
    copies(here, () => here.href, "Copy the link");
  }

  // Paper has no triangle to click on: everything opens but what passed or was skipped.
  let closed = [];
  addEventListener("beforeprint", () => { closed = $("details:not([open], .passed, .skipped)"); for (const d of closed) d.open = true; });
  addEventListener("afterprint", () => { for (const d of closed) d.open = false; });

  if (checks.length) {
    tools.setAttribute("role", "search");
    tools.setAttribute("aria-label", "Filter and sort the checks");
    tools.append(search, family, order, toggle, chips, reset, tally);
    tools.after(nothing);
    show();
    new ResizeObserver(() => root.style.setProperty("--tools", `${tools.offsetHeight}px`)).observe(tools);
    root.style.setProperty("--tools", `${tools.offsetHeight}px`);
    reveal();
  }
  root.dataset.ready = "yes";
})();
