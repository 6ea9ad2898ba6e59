// What the browser does not do by itself: open and close the one dialog, show notices, reveal and
// copy a secret, wait for a typed name, move in a menu by arrow keys. All works without it, in pages.
(() => {
  "use strict";
  const root = document.documentElement;
  const dialog = document.getElementById("dialog");
  const notice = document.getElementById("notice");
  root.classList.add("js");

  const say = (words) => {
    const line = document.createElement("p");
    line.textContent = words;
    notice.replaceChildren(line);
    setTimeout(() => line.remove(), 6000);
  };
  if (notice.firstElementChild) setTimeout(() => notice.replaceChildren(), 6000);

  // The dialog opens when something was put into it, and forgets it when it closes.
  document.body.addEventListener("htmx:afterSwap", (event) => {
    if (event.detail.target !== dialog) return;
    document.querySelectorAll("[popover]:popover-open").forEach((menu) => menu.hidePopover());
    if (!dialog.open) dialog.showModal();
    prepare(dialog);
  });
  document.body.addEventListener("htmx:afterSettle", (event) => {
    if (event.detail.target !== dialog) return;
    const first = dialog.querySelector("[aria-invalid=true]") || dialog.querySelector("[autofocus]");
    if (first) first.focus();
  });
  dialog.addEventListener("close", () => dialog.replaceChildren());
  document.body.addEventListener("close-dialog", () => dialog.close());
  document.body.addEventListener("notice", (event) => say(event.detail.value));
  document.body.addEventListener("htmx:sendError", () => say("The server cannot be reached. Try again."));

  // The last button waits until the typed name is the key's.
  const prepare = (part) => {
    part.querySelectorAll("[data-confirms]").forEach((input) => {
      const button = input.form.querySelector(".actions button");
      const wait = () => { button.disabled = input.value !== input.dataset.confirms; };
      input.addEventListener("input", wait);
      wait();
    });
  };
  prepare(document);

  // Whether the text is in the clipboard now.
  const copy = async (source) => {
    const text = "value" in source ? source.value : source.textContent;
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      // Without https there is no clipboard to write to: select the text and ask the browser.
      const helper = document.createElement("textarea");
      helper.value = text;
      (dialog.open ? dialog : document.body).append(helper);
      helper.select();
      const done = document.execCommand("copy");
      helper.remove();
      return done;
    }
  };

  // Escape does not throw away a secret that nobody has taken yet; Done does.
  dialog.addEventListener("cancel", (event) => {
    const secret = dialog.querySelector("[data-secret]");
    if (!secret || "taken" in secret.dataset) return;
    event.preventDefault();
    say("Copy the key first. It is not shown again.");
  });

  document.addEventListener("click", (event) => {
    const target = event.target.closest("[data-close], [data-reveal], [data-copy]");
    if (!target) return;
    if ("close" in target.dataset && dialog.open) {
      event.preventDefault();
      dialog.close();
    } else if ("reveal" in target.dataset) {
      const masked = document.getElementById(target.dataset.reveal).classList.toggle("masked");
      target.setAttribute("aria-pressed", String(!masked));
      target.textContent = masked ? "Show key" : "Hide key";
      target.closest("[data-secret]").dataset.taken = "";
    } else if ("copy" in target.dataset) {
      const words = target.dataset.words ||= target.textContent;
      const secret = target.closest("[data-secret]");
      copy(document.getElementById(target.dataset.copy)).then((done) => {
        if (done && secret) secret.dataset.taken = "";
        target.textContent = done ? "Copied" : "Select it and press Ctrl+C";
        setTimeout(() => { target.textContent = words; }, 2000);
      });
    }
  });

  document.addEventListener("keydown", (event) => {
    const menu = event.target.closest?.(".menu");
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!menu || !(step || event.key === " ")) return;
    event.preventDefault();
    if (event.key === " ") return event.target.click();
    const items = [...menu.querySelectorAll("a")];
    const next = items.indexOf(document.activeElement) + step;
    items[(next + items.length) % items.length].focus();
  });
  document.addEventListener("toggle", (event) => {
    if (event.target.matches?.(".menu") && event.newState === "open") event.target.querySelector("a").focus();
  }, true);
})();
