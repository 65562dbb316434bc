// Makes the administrator's page handier. Without it everything works: a dialog is a page of its own then,
// texts are copied by hand, and checks are looked at again by loading the page anew.
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

// A message is said once, not after each reload.
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
        button.textContent = "Not copied";
      }
      setTimeout(() => { button.textContent = "Copy"; }, 2000);
    });
  }
}

// What changes by itself is fetched anew, as the page has it.
const PAUSE = 3000;
const isLive = () => document.querySelector("[data-live], [data-check]");
const isBusy = () => document.hidden || document.querySelector("dialog[open]");

function renew(fresh) {
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

// The page stays, so that nothing on it is lost; it is renewed no more.
function endOfSession() {
  const notice = document.createElement("p");
  notice.className = "notice bad";
  notice.setAttribute("role", "status");
  notice.textContent = "Your session has ended: this page shows an earlier state. Load it again to sign in.";
  document.querySelector("main h1").after(notice);
}

async function look() {
  if (!isBusy()) {
    try {
      const answer = await fetch(location.pathname, { redirect: "error", cache: "no-store" });
      if (answer.status === 401) {
        endOfSession();
        return;
      }
      if (answer.ok) renew(new DOMParser().parseFromString(await answer.text(), "text/html"));
    } catch {
      // The gateway does not answer: the page stays as it is.
    }
  }
  setTimeout(look, PAUSE);
}

if (isLive()) setTimeout(look, PAUSE);
