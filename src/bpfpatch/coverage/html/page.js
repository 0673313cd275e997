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
    if (target) { openAround(target); target.scrollIntoView({ block: "center" }); }
  };
  addEventListener("hashchange", showTarget);
  if (location.hash) showTarget();

  const todo = document.querySelectorAll("tr.m, tr.p, .blocks > .m");
  let at = -1;
  const go = (step) => {
    if (!todo.length) return;
    at = (at + step + todo.length + (at < 0 && step < 0 ? 1 : 0)) % todo.length;
    const row = todo[at];
    openAround(row);
    row.scrollIntoView({ block: "center" });
    const goal = row.querySelector("summary, a") ?? row;
    if (goal === row) row.tabIndex = -1;
    goal.focus({ preventScroll: true });
  };
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || event.target.closest("input, textarea")) return;
    if (event.key === "n") go(1);
    if (event.key === "p") go(-1);
  });
})();
