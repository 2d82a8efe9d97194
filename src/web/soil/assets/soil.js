// Keeps the page up to date: by events, which the server sends when something has changed; where they do not come
// through, by asking again when the server says so. Without this script the page loads itself again. All texts come from
// the server, which knows the reader's language.
(() => {
  "use strict";
  const display = document.querySelector(".soil-display");
  const live = document.getElementById("soil-live");
  const over = (state) => !["waiting", "running"].includes(state);
  const state = () => display.querySelector("[data-state]").dataset.state;
  let told = -1;

  // Readers of screens hear of each quarter and of the end, not of each percent.
  const tell = (view) => {
    const quarter = view.percent === null ? -1 : Math.floor(view.percent / 25);
    if (over(view.state) || (quarter > told && quarter > 0)) live.textContent = view.spoken;
    told = Math.max(told, quarter);
  };

  const show = (view) => {
    document.title = view.title;
    // What has the focus keeps it, if it is still there.
    const focused = display.contains(document.activeElement) && document.activeElement.textContent;
    display.innerHTML = view.html;
    if (focused) {
      const again = [...display.querySelectorAll("a, button")].find((one) => one.textContent === focused);
      (again || display.querySelector("a, button"))?.focus();
    }
    tell(view);
  };

  const later = (ms) => setTimeout(ask, ms);
  const ask = async () => {
    try {
      const answer = await fetch(display.dataset.statusUrl, { cache: "no-store" });
      if (!answer.ok && answer.status < 500) return location.reload(); // the page says why
      const view = await answer.json();
      if (!answer.ok) return later(5000);
      show(view);
      if (!over(view.state)) later(view.next_poll_ms || 2000);
    } catch {
      later(3000); // the server is being started again, say
    }
  };

  const listen = () => {
    const events = new EventSource(display.dataset.eventsUrl);
    events.addEventListener("status", (event) => {
      const view = JSON.parse(event.data);
      show(view);
      if (over(view.state)) events.close();
    });
    events.onerror = () => {
      // It connects again by itself after a cut, but not after an answer that is no stream.
      if (events.readyState === EventSource.CLOSED) ask();
    };
    addEventListener("pagehide", () => events.close());
    addEventListener("pageshow", (event) => event.persisted && location.reload());
  };

  if (display && !over(state())) "EventSource" in window ? listen() : ask();
})();
