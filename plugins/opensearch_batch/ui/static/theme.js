// The theme of Airflow's UI, in which this page may be a frame; without it, that of the browser.
try {
  const theme = localStorage.getItem("theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch { /* storage is not allowed */ }
