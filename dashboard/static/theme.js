// Light or dark: as the system says, unless somebody chose here. Loaded before the page is drawn.

"use strict";

(() => {
  const KEY = "theme";
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  const systems = () => (system.matches ? "dark" : "light");
  const shown = () => root.dataset.theme ?? systems();

  const show = () => {
    document.getElementById("theme")?.setAttribute("aria-pressed", String(shown() === "dark"));
  };

  const remembered = () => {
    try {
      return localStorage.getItem(KEY);
    } catch {
      return null; // A browser may refuse to store anything; the choice then lasts for the page.
    }
  };

  const remember = (theme) => {
    try {
      if (theme === null) localStorage.removeItem(KEY);
      else localStorage.setItem(KEY, theme);
    } catch {
      // As above.
    }
  };

  const chosen = remembered();
  if (chosen === "light" || chosen === "dark") root.dataset.theme = chosen;
  system.addEventListener("change", show);
  addEventListener("DOMContentLoaded", () => {
    show();
    document.getElementById("theme")?.addEventListener("click", () => {
      const wanted = shown() === "dark" ? "light" : "dark";
      if (wanted === systems()) delete root.dataset.theme;
      else root.dataset.theme = wanted;
      remember(root.dataset.theme ?? null);
      show();
    });
  });
})();
