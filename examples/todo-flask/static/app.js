// The page works without this file. With it, forms and links replace the page's
// content instead of loading it anew; Escape leaves an edit, "/" starts a new task,
// a double click on a title edits it, and a page that was away catches up.
"use strict";
(() => {
  const root = document.documentElement;
  const status = document.getElementById("status");
  const app = () => document.getElementById("app");
  let turn = 0; // the newest request wins

  root.classList.add("js");

  // Each row gets a name so that the browser can move it to its new place.
  const named = () => {
    for (const li of document.querySelectorAll(".tasks li")) li.style.viewTransitionName = li.id;
  };

  function show(html, focus) {
    const next = new DOMParser().parseFromString(html, "text/html");
    const fresh = next.getElementById("app");
    if (!fresh) return false;
    const swap = () => {
      app().replaceWith(fresh);
      document.title = next.title;
      root.dataset.theme = next.documentElement.dataset.theme;
      named();
      const edit = fresh.querySelector(".editing input[name=title]");
      const target = edit || (focus && fresh.querySelector(focus));
      if (target) {
        target.focus({ preventScroll: !edit });
        if (edit) edit.setSelectionRange(edit.value.length, edit.value.length);
      }
    };
    if (document.startViewTransition && document.visibilityState === "visible") document.startViewTransition(swap);
    else swap();
    return true;
  }

  // load fetches a page and shows it; when that fails, otherwise() lets the browser do it.
  async function load(url, options, { focus, push, otherwise, quiet }) {
    const mine = ++turn;
    if (!quiet) root.classList.add("busy");
    try {
      const res = await fetch(url, { credentials: "same-origin", ...options });
      const type = res.headers.get("Content-Type") || "";
      const html = await res.text();
      if (mine !== turn) return;
      if (!type.startsWith("text/html") || !show(html, focus)) return otherwise && otherwise();
      const at = new URL(res.url);
      if (push && res.ok) history.pushState(null, "", at.pathname + at.search);
      if (!quiet && res.ok) status.textContent = document.querySelector(".filters")?.innerText.replace(/\s+/g, " ") || "";
    } catch {
      if (mine === turn && otherwise) otherwise();
    } finally {
      if (mine === turn) root.classList.remove("busy");
    }
  }

  document.addEventListener("submit", (e) => {
    const form = e.target;
    if (e.defaultPrevented || form.method !== "post") return;
    if (form.dataset.ask && !confirm(form.dataset.ask)) return e.preventDefault();
    e.preventDefault();
    const by = e.submitter;
    const body = new URLSearchParams(new FormData(form, by));
    const row = form.closest(".tasks li");
    if (by && by.classList.contains("tick") && row) { // at once, the server's answer follows
      row.classList.toggle("done");
      by.setAttribute("aria-checked", String(row.classList.contains("done")));
    }
    let focus = "#new";
    if (row && !row.classList.contains("editing")) focus = by && by.classList.contains("tick") ? `#${row.id} .tick` : neighbour(row);
    if (form.classList.contains("theme")) focus = ".theme button";
    // Sending the form a second time by way of the browser would repeat what may
    // have happened; the page is loaded anew and shows what did.
    load(form.action, { method: "POST", body }, { focus, push: true, otherwise: () => location.assign(location.pathname === "/" ? location.href : "/") });
  });

  const neighbour = (row) => {
    const other = row.nextElementSibling || row.previousElementSibling;
    return other ? `#${other.id} .tick` : "#new";
  };

  document.addEventListener("click", (e) => {
    const a = e.target.closest("a");
    if (!a || a.origin !== location.origin || a.pathname !== "/" || e.defaultPrevented ||
        e.button || e.metaKey || e.ctrlKey || e.shiftKey || e.altKey) return;
    e.preventDefault();
    const row = a.closest(".tasks li");
    const focus = row ? `#${row.id} .icon` : a.closest(".filters") ? ".filters [aria-current]" : "#new";
    load(a.href, {}, { focus, push: true, otherwise: () => location.assign(a.href) });
  });

  document.addEventListener("dblclick", (e) => {
    const row = e.target.closest(".title")?.closest("li");
    if (row) { getSelection().removeAllRanges(); row.querySelector("a.icon").click(); }
  });

  document.addEventListener("keydown", (e) => {
    if (e.key === "Escape") document.querySelector(".editing .cancel")?.click();
    if (e.key === "/" && !e.target.matches("input") && !e.ctrlKey && !e.metaKey && !e.altKey) {
      e.preventDefault();
      document.getElementById("new").focus();
    }
  });

  addEventListener("popstate", () => load(location.href, {}, { otherwise: () => location.reload() }));

  // Another person, or another instance, may have changed the list meanwhile.
  document.addEventListener("visibilitychange", () => {
    const typing = document.querySelector(".editing") || document.getElementById("new").value;
    if (document.visibilityState === "visible" && !typing && location.pathname === "/") load(location.href, {}, { quiet: true, focus: "#new" });
  });

  named();
})();
