"use strict";
// Light or dark, on every page of the monitor: as the system has it, or as was chosen by the button or the key `t`.
(() => {
  const root = document.documentElement;
  try {
    const kept = localStorage.getItem("theme");
    if (kept) root.dataset.theme = kept;
  } catch {
    // without storage the choice lasts as long as the page
  }
  function otherTheme() {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    try {
      localStorage.setItem("theme", root.dataset.theme);
    } catch {
      // as above
    }
  }
  const button = document.getElementById("theme");
  if (button) button.addEventListener("click", otherTheme);
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target instanceof HTMLInputElement) return;
    if (event.key === "t") otherTheme();
  });
})();
