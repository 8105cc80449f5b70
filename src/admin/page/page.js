// Fetches the page again and puts its inside in place. Nobody is disturbed: what was unfolded stays
// so, where it was scrolled to and focused; and nothing moves while text is selected.
"use strict";
const every_ms = 5000;

function put(main) {
  const unfolded = [...document.querySelectorAll("details[open]")];
  const places = unfolded.map(({ id }) => [id, document.querySelector(`#${id} .scroll`)?.scrollTop]);
  const focused = document.activeElement?.closest("details")?.id;
  for (const { id } of unfolded) main.querySelector(`#${id}`)?.setAttribute("open", "");
  document.querySelector("main").replaceWith(main);
  for (const [id, top] of places) document.querySelector(`#${id} .scroll`)?.scrollTo({ top });
  if (focused) document.querySelector(`#${focused} summary`)?.focus({ preventScroll: true });
}

async function refresh() {
  try {
    const is_busy = document.hidden || !getSelection().isCollapsed;
    if (is_busy) return;
    const answer = await fetch(location.pathname, { cache: "no-store" });
    if (!answer.ok) throw new Error(answer.status);
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    put(fresh.querySelector("main"));
  } catch {
    document.getElementById("stale").hidden = false;
  } finally {
    setTimeout(refresh, every_ms);
  }
}

setTimeout(refresh, every_ms);
