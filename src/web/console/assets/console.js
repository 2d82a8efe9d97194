// Keeps a page up to date while somebody looks at it: by events, or by asking where they do not come through. Rows keep
// their places; forms and what is folded open stay as they are. Without this script a page is whole, with times in UTC.
(() => {
  "use strict";
  const by = (id) => document.getElementById(id);
  const [main, page, age, spoken, keys] = ["main", "page", "age", "spoken", "keys"].map(by);
  if (!page) return;
  const { events, part } = main.dataset;
  const isField = (node) => /^(INPUT|SELECT|TEXTAREA)$/.test(node.nodeName);
  let source = null, timer = 0, held = false, failed = false, seen = Date.now(), woke = seen;
  const rests = () => held || document.hidden;

  const format = new Intl.DateTimeFormat([], { dateStyle: "medium", timeStyle: "medium" });
  const localise = (root) => {
    for (const time of root.querySelectorAll("time[datetime]")) {
      const at = new Date(time.dateTime);
      if (isNaN(at)) continue;
      time.title = time.dateTime;
      time.textContent = format.format(at);
    }
  };

  // Whether what is shown is another part of a list, whose rows come in their own order.
  let isAnew = false;
  const keyOf = (node) => (node.dataset && node.dataset.key) || node.id || "";
  const morph = (from, to) => {
    if (from.isEqualNode(to)) return;
    if (from.nodeType === 1 && (from.hasAttribute("data-still") || (isField(from) && from === document.activeElement))) return;
    if (from.nodeName !== to.nodeName || keyOf(from) !== keyOf(to)) return from.replaceWith(to.cloneNode(true));
    if (from.nodeType !== 1) return void (from.nodeValue = to.nodeValue);
    for (const { name, value } of to.attributes) if (name !== "open" && from.getAttribute(name) !== value) from.setAttribute(name, value);
    for (const { name } of [...from.attributes]) if (name !== "open" && !to.hasAttribute(name)) from.removeAttribute(name);
    children(from, to);
  };
  const children = (from, to) => {
    const old = [...from.childNodes], wanted = [...to.childNodes];
    if (wanted.some((node) => node.dataset && node.dataset.key)) {
      const left = new Map(old.filter(keyOf).map((node) => [keyOf(node), node]));
      for (const node of wanted.filter(keyOf)) {
        const known = left.get(keyOf(node));
        if (known) morph(known, node);
        if (!known || isAnew) from.append(known ?? node.cloneNode(true));
        left.delete(keyOf(node));
      }
      return left.forEach((node) => node.remove());
    }
    wanted.forEach((node, at) => (old[at] ? morph(old[at], node) : from.append(node.cloneNode(true))));
    old.slice(wanted.length).forEach((node) => node.remove());
  };

  // The slider of the history says its place as its reader has it.
  const sayPlace = (text) => {
    const slider = by("slider"), place = slider?.form.querySelector("output");
    if (text) place.textContent = text;
    slider?.setAttribute("aria-valuetext", place.textContent);
  };
  const headline = () => page.querySelector("h1")?.textContent;
  const show = (html, anew = false) => {
    const next = new DOMParser().parseFromString(html, "text/html").body.firstElementChild;
    if (!next) return;
    localise(next);
    const before = headline();
    isAnew = anew;
    children(page, next);
    isAnew = false;
    document.title = next.dataset.title;
    if (headline() !== before) spoken.textContent = headline();
    [seen, failed] = [Date.now(), false];
    const at = age.querySelector("time");
    if (at) at.dateTime = next.dataset.at;
    localise(age);
    sayPlace();
    tell();
  };

  const tell = () => {
    if (!part) return;
    const seconds = Math.round((Date.now() - seen) / 1000);
    const isOld = !rests() && Date.now() - woke > 5000 && (seconds > 30 || (failed && seconds > 10));
    const [mark, word] = age.children;
    mark.className = "mark " + (held || seconds > 5 ? "held" : "fine beat");
    word.textContent = (held ? "held, " : "live, ") + seconds + " s old";
    document.body.classList.toggle("stale", isOld);
    page.querySelectorAll("form[method=post] button").forEach((button) => (button.disabled = isOld));
    let note = by("old");
    if (!isOld) return note?.remove();
    if (!note) {
      note = document.createElement("p");
      note.id = "old";
      note.className = "note bad";
      page.before(note);
    }
    note.textContent = `No connection: this is ${seconds} s old, and nothing can be pressed. Trying again.`;
  };

  const ask = async () => {
    timer = 0;
    try {
      const answer = await fetch(part, { cache: "no-store" });
      if (answer.redirected || answer.status === 401 || answer.status === 403) return location.reload();
      if (answer.ok) show(await answer.text());
      failed = !answer.ok;
    } catch {
      failed = true;
    }
    if (!rests() && !source) timer = setTimeout(ask, failed ? 5000 : 2000);
  };
  const start = () => {
    if (!part || rests() || source || timer) return;
    woke = Date.now();
    if (!("EventSource" in window)) return ask();
    source = new EventSource(events);
    source.addEventListener("part", (event) => show(JSON.parse(event.data)));
    source.onerror = () => {
      failed = true;
      // It connects again by itself after a cut, not after an answer that is no stream.
      if (source && source.readyState === EventSource.CLOSED) {
        source = null;
        ask();
      }
    };
  };
  const stop = () => {
    source?.close();
    clearTimeout(timer);
    [source, timer] = [null, 0];
  };

  // Where the slider rests, its range is shown, and the address is that of the range. The page stays, and so does the focus.
  let turn = 0;
  const slide = async (form, own) => {
    const url = `${form.action}?${new URLSearchParams(new FormData(form))}`;
    const answer = await fetch(`${url}&part=1`, { cache: "no-store" }).catch(() => null);
    const text = answer?.ok && !answer.redirected ? await answer.text() : null;
    if (own !== turn) return;
    if (text === null) return form.submit();
    history.replaceState(null, "", url);
    by("json").href = `${url}&format=json`;
    show(text, true);
  };
  page.addEventListener("input", ({ target }) => {
    if (target.id === "slider") sayPlace(target.value === target.max ? "now" : format.format(target.value * 60000));
  });
  page.addEventListener("change", ({ target }) => {
    if (target.id !== "slider") return;
    const own = ++turn;
    setTimeout(() => own === turn && slide(target.form, own), 200);
  });

  localise(document);
  sayPlace();
  by("zone").textContent = Intl.DateTimeFormat().resolvedOptions().timeZone;
  document.addEventListener("visibilitychange", () => (document.hidden ? stop() : start()));
  addEventListener("pagehide", stop);
  addEventListener("pageshow", start);
  setInterval(tell, 1000);
  start();

  // Single letters are keys, unless somebody has switched that off.
  keys.checked = localStorage.getItem("celeriac-keys") !== "off";
  keys.addEventListener("change", () => localStorage.setItem("celeriac-keys", keys.checked ? "on" : "off"));
  let goes = false;
  addEventListener("keydown", (event) => {
    if (!keys.checked || event.ctrlKey || event.metaKey || event.altKey || isField(event.target)) return;
    const { key } = event;
    if (goes) document.querySelector(`.nav [data-key="${CSS.escape(key)}"]`)?.click();
    goes = !goes && key === "g";
    if (key === "/") {
      event.preventDefault();
      by("find").focus();
    } else if (key === ".") {
      held = !held;
      held ? stop() : start();
      tell();
    } else if (key === "j" || key === "k") {
      const rows = [...page.querySelectorAll("tbody th a")];
      rows[rows.indexOf(document.activeElement) + (key === "j" ? 1 : -1)]?.focus();
    }
  });
})();
