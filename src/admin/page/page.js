// Fetches the page again and puts its inside in place; what was unfolded stays so.
"use strict";
const every_ms = 5000;

async function refresh() {
  if (document.hidden) return;
  try {
    const answer = await fetch(location.pathname, { cache: "no-store" });
    if (!answer.ok) throw new Error(answer.status);
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const open of document.querySelectorAll("details[open]")) {
      fresh.getElementById(open.id)?.setAttribute("open", "");
    }
    document.querySelector("main").replaceWith(fresh.querySelector("main"));
  } catch {
    document.getElementById("stale").hidden = false;
  }
}

setInterval(refresh, every_ms);
document.addEventListener("visibilitychange", refresh);
