// Optional enhancements of the administration page. Without scripts, the dialog is a page of its own,
// there are no copy buttons, and checks are refreshed by reloading the page.
"use strict";

for (const opener of document.querySelectorAll("[data-opens]")) {
  opener.addEventListener("click", (event) => {
    const dialog = document.getElementById(opener.dataset.opens);
    if (!dialog || typeof dialog.showModal !== "function") return;
    event.preventDefault();
    dialog.showModal();
  });
}

for (const closer of document.querySelectorAll("[data-closes]")) {
  closer.addEventListener("click", () => closer.closest("dialog").close());
}

// Shows a flash message once, not after each reload.
if (new URLSearchParams(location.search).has("done")) {
  history.replaceState(null, "", location.pathname);
}

if (navigator.clipboard) {
  for (const button of document.querySelectorAll("[data-copies]")) {
    button.hidden = false;
    button.addEventListener("click", async () => {
      const text = document.getElementById(button.dataset.copies).textContent;
      try {
        await navigator.clipboard.writeText(text);
        button.textContent = "Copied";
      } catch {
        button.textContent = "Copy failed";
      }
      setTimeout(() => { button.textContent = "Copy"; }, 2000);
    });
  }
}

// Live parts are refreshed from the page, as the server renders them.
const PAUSE = 3000; // milliseconds
const isLive = () => document.querySelector("[data-live], [data-check]");
const isBusy = () => document.hidden || document.querySelector("dialog[open]");

function update(fresh) {
  for (const old of document.querySelectorAll("[data-live]")) {
    const now = fresh.querySelector(`[data-live="${old.dataset.live}"]`);
    if (now && now.innerHTML !== old.innerHTML && !old.contains(document.activeElement)) {
      old.replaceWith(document.adoptNode(now));
    }
  }
  for (const old of document.querySelectorAll("[data-check]")) {
    const now = fresh.querySelector(`[data-check="${old.dataset.check}"]`);
    if (now && now.outerHTML !== old.outerHTML) old.replaceWith(document.adoptNode(now));
  }
}

// Keeps the page, so that no input is lost, and stops refreshing.
function endOfSession() {
  const notice = document.createElement("p");
  notice.className = "notice bad";
  notice.setAttribute("role", "status");
  notice.textContent = "Your session has ended. This page is out of date: reload it to sign in.";
  document.querySelector("main h1").after(notice);
}

async function refresh() {
  if (!isBusy()) {
    try {
      const answer = await fetch(location.pathname, { redirect: "error", cache: "no-store" });
      if (answer.status === 401) {
        endOfSession();
        return;
      }
      if (answer.ok) update(new DOMParser().parseFromString(await answer.text(), "text/html"));
    } catch {
      // The gateway is unavailable: retried after the next pause.
    }
  }
  setTimeout(refresh, PAUSE);
}

if (isLive()) setTimeout(refresh, PAUSE);
