(() => {
  "use strict";
  const root = document.documentElement;
  const KEY = "bpfpatch-theme";
  const store = (value) => { try { localStorage.setItem(KEY, value); } catch { /* not from file: */ } };
  const stored = () => { try { return localStorage.getItem(KEY); } catch { return null; } };
  const isDark = () => root.dataset.theme
    ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  const before = stored();
  if (before === "dark" || before === "light") root.dataset.theme = before;
  document.getElementById("theme").addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    store(root.dataset.theme);
  });

  const unfold = document.getElementById("unfold");
  unfold?.addEventListener("click", () => {
    const open = unfold.getAttribute("aria-pressed") !== "true";
    unfold.setAttribute("aria-pressed", String(open));
    document.querySelectorAll(".s > details").forEach((one) => { one.open = open; });
  });

  const openAround = (node) => {
    for (let at = node; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
  };
  const showTarget = () => {
    const target = document.getElementById(location.hash.slice(1));
    if (!target) return;
    reveal(target);
    openAround(target);
    target.scrollIntoView({ block: "center" });
  };

  // What is covered, and what another name is looked for, is not shown.
  const todoButton = document.getElementById("todo");
  todoButton.addEventListener("click", () => {
    const on = root.classList.toggle("todo");
    todoButton.setAttribute("aria-pressed", String(on));
  });
  const filter = document.getElementById("filter");
  const named = document.querySelectorAll("main [data-name]");
  const sift = () => {
    const wanted = filter.value.trim().toLowerCase().split(/\s+/);
    let shown = 0;
    named.forEach((one) => {
      const name = one.dataset.name.toLowerCase();
      one.hidden = !wanted.every((word) => name.includes(word));
      shown += !one.hidden;
    });
    document.getElementById("none").hidden = shown > 0;
  };
  filter.addEventListener("input", sift);
  const reveal = (node) => {
    if (node.closest("[hidden]")) { filter.value = ""; sift(); }
    if (root.classList.contains("todo") && !node.offsetParent) todoButton.click();
  };

  // A click on a title sorts: the highest numbers and first names first, then the other way.
  const value = (row, at) => {
    const cell = row.cells[at];
    return cell.dataset.v === undefined ? cell.textContent.toLowerCase() : Number(cell.dataset.v);
  };
  document.querySelectorAll(".list th > button").forEach((button) => {
    button.addEventListener("click", () => {
      const head = button.parentElement, table = head.closest("table"), at = head.cellIndex;
      const rows = [...table.tBodies[0].rows];
      const isNumber = rows.length > 0 && rows[0].cells[at].dataset.v !== undefined;
      const first = isNumber ? "descending" : "ascending";
      const other = isNumber ? "ascending" : "descending";
      const order = head.getAttribute("aria-sort") === first ? other : first;
      table.querySelectorAll("th").forEach((one) => one.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", order);
      const sign = order === "ascending" ? 1 : -1;
      const keyed = rows.map((row) => [value(row, at), row]);
      keyed.sort(([a], [b]) => sign * (a < b ? -1 : a > b ? 1 : 0));
      table.tBodies[0].append(...keyed.map(([, row]) => row));
    });
  });

  const todo = [...document.querySelectorAll("tr.m, tr.p, .blocks > .m")];
  let current = null;
  // Where a row is on the screen; one that is folded away is where its file is.
  const place = (row) => {
    let node = row;
    for (let at = row; at; at = at.parentElement) if (at.tagName === "DETAILS" && !at.open) node = at;
    return node.getBoundingClientRect();
  };
  const onScreen = (row) => {
    const { top, bottom } = place(row);
    return bottom > 0 && top < innerHeight;
  };
  const go = (step) => {
    const rows = todo.filter((row) => !row.closest("[hidden]"));
    if (!rows.length) return;
    let at;
    if (current && rows.includes(current) && onScreen(current)) {
      at = rows.indexOf(current) + step;
    } else if (step > 0) {
      at = rows.findIndex((row) => place(row).top >= 0);
    } else {
      at = rows.findLastIndex((row) => place(row).bottom <= innerHeight);
    }
    if (at < 0 && step > 0) at = 0;
    current = rows[(at + rows.length) % rows.length];
    openAround(current.tagName === "TR" ? current : current.parentElement);
    current.scrollIntoView({ block: "center" });
    const goal = current.querySelector("summary") ?? current;
    if (goal === current) current.tabIndex = -1;
    goal.focus({ preventScroll: true });
  };
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.key === "Escape" && event.target === filter) { filter.value = ""; sift(); filter.blur(); }
    if (event.target.closest("input, textarea")) return;
    if (event.key === "n") go(1);
    if (event.key === "p") go(-1);
    if (event.key === "/") { event.preventDefault(); filter.focus(); }
    // On a line that has the focus, the browser unfolds by itself.
    if (event.key === "Enter" && !event.target.closest("summary, a, button")) {
      const lines = current?.querySelector("details");
      if (lines) lines.open = !lines.open;
    }
  });
  addEventListener("hashchange", showTarget);
  if (location.hash) showTarget();
})();
