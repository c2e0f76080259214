// Refreshes the page's content every few seconds while its button is pressed. Everything else of the
// console works without a script.
"use strict";

(() => {
  const EVERY_MS = 5000;
  const button = document.getElementById("live");
  let timer = 0;

  const isBusy = () => {
    const content = document.getElementById("content");
    const at = document.activeElement;
    return (
      document.hidden ||
      content.querySelector("details[open]") !== null ||
      (at !== content && content.contains(at)) ||
      String(document.getSelection()) !== ""
    );
  };

  const refresh = async () => {
    if (!isBusy()) {
      try {
        const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
        if (answer.redirected) {
          location.reload();
          return;
        }
        if (answer.ok) {
          const page = new DOMParser().parseFromString(await answer.text(), "text/html");
          if (!isBusy()) {
            for (const place of ["#content", ".foot time"]) {
              document.querySelector(place).replaceWith(page.querySelector(place));
            }
          }
        }
      } catch {
        // The service is away: the next time it may be back.
      }
    }
    if (button.getAttribute("aria-pressed") === "true") timer = setTimeout(refresh, EVERY_MS);
  };

  const set = (on) => {
    button.setAttribute("aria-pressed", String(on));
    sessionStorage.setItem("live", on ? "on" : "");
    clearTimeout(timer);
    if (on) timer = setTimeout(refresh, EVERY_MS);
  };

  button.hidden = false;
  button.addEventListener("click", () => set(button.getAttribute("aria-pressed") !== "true"));
  if (sessionStorage.getItem("live")) set(true);
})();
