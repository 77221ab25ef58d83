// The theme of Airflow's UI, in which this page may be a frame; without it, that of the browser.
"use strict";
function applyTheme() {
  try {
    const theme = localStorage.getItem("theme");
    document.documentElement.dataset.theme = theme === "light" || theme === "dark" ? theme : "";
  } catch { /* storage is not allowed */ }
}

applyTheme();
addEventListener("storage", applyTheme);
