"use strict";
(() => {
  // Filters the map by subject and opens the failure that a link leads to. Without this script everything can be read.
  addEventListener("error", (event) => { document.documentElement.dataset.problem = event.message; });
  const rows = [...document.querySelectorAll(".map tbody tr")], failures = [...document.querySelectorAll(".failure")];
  const place = document.getElementById("filter");
  const text = new Map([...rows, ...failures].map((e) => [e, (e.querySelector("th, summary")?.textContent ?? "").toLowerCase()]));
  if (place) {
    const search = Object.assign(document.createElement("input"), { type: "search", placeholder: "Search subjects and failed checks", ariaLabel: "Search" });
    const label = document.createElement("label"), only = Object.assign(document.createElement("input"), { type: "checkbox" });
    const tally = Object.assign(document.createElement("span"), { className: "quiet", role: "status" });
    label.append(only, " only what failed");
    place.append(search, label, tally);
    const show = () => {
      const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      let n = 0;
      for (const row of rows) {
        row.hidden = !words.every((w) => text.get(row).includes(w)) || (only.checked && !row.querySelector("td.f, td.u"));
        n += !row.hidden;
      }
      for (const f of failures) f.hidden = !words.every((w) => text.get(f).includes(w));
      tally.textContent = `${n} of ${rows.length} subjects`;
    };
    search.addEventListener("input", show);
    only.addEventListener("change", show);
    show();
  }
  const open = () => {
    const target = location.hash.length > 1 && document.getElementById(location.hash.slice(1));
    if (target && target.tagName === "DETAILS") { target.hidden = false; target.open = true; target.scrollIntoView(); }
  };
  addEventListener("hashchange", open);
  open();
})();
