// Follows a link to Airflow's UI in its own window. This page may be a frame in it, which may not navigate the window.
"use strict";
addEventListener("click", (event) => {
  const link = event.target.closest("a[data-airflow]");
  if (!link || parent === window || event.button || event.ctrlKey || event.metaKey || event.shiftKey) return;
  try {
    const own = parent.document.createElement("a");
    own.href = link.href;
    parent.document.body.append(own);
    own.click();
    event.preventDefault();
  } catch { /* the window is not Airflow's */ }
});
