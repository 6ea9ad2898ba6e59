// What the browser does not do by itself: open and close the one dialog, show notices, wait for a
// typed name, copy, move by keys, tell the local time. All works without it, in pages.
(() => {
  "use strict";
  const root = document.documentElement;
  const body = document.body;
  const dialog = document.getElementById("dialog");
  const notice = document.getElementById("notice");
  const is = (name, target) => target.closest?.(`[data-${name}]`);
  root.classList.add("js");

  // --- notices: said politely, over everything, gone after a while unless somebody reads them
  const leave = (line, seconds) => setTimeout(() => {
    if (line.matches(":hover, :focus-within")) return leave(line, 3);
    line.remove();
    if (!notice.childElementCount && notice.matches(":popover-open")) notice.hidePopover();
  }, seconds * 1000);
  const say = ({ words, undo, button, act, seconds = 6 }) => {
    const form = document.getElementById("notice-form");
    const line = form ? form.content.firstElementChild.cloneNode(true) : document.createElement("p");
    (line.querySelector("p") || line).textContent = words;
    if (undo) line.action = undo;
    const press = line.querySelector("button");
    if (press && act) {
      press.type = "button";
      press.textContent = button;
      press.onclick = () => { line.remove(); act(); };
    } else if (!undo) press?.remove();
    notice.replaceChildren(line);
    if (notice.popover && !notice.matches(":popover-open")) notice.showPopover();
    leave(line, undo || act ? Math.max(seconds, 10) : seconds);
  };
  if (notice.firstElementChild) {
    if (notice.popover) notice.showPopover();
    leave(notice.firstElementChild, 10);
  }
  notice.addEventListener("submit", (event) => {
    event.preventDefault();
    const form = event.target;
    form.remove();
    htmx.ajax("POST", form.action, { values: Object.fromEntries(new FormData(form)), target: dialog, swap: "innerHTML" });
  });

  // --- the dialog opens when something was put into it, and forgets it when it closes
  let opener = null;
  const returnFocus = () => {
    if (document.activeElement !== body || !opener) return;
    const row = document.getElementById(opener.place);
    const again = opener !== body && opener.isConnected ? opener : row?.querySelector(".menu-button") || row?.querySelector("a");
    (again || document.querySelector("[data-create]") || document.querySelector("h1[tabindex]") || document.getElementById("main")).focus();
  };
  // After Next and Previous one reads on at the top; how many keys were found is said.
  const settled = ({ target, requestConfig }) => {
    const part = document.getElementById(target.id);
    const found = document.querySelector("[data-found]");
    const rows = part?.querySelectorAll("tbody tr").length;
    if (found && target.id === "keys") found.textContent = rows === 1 ? "1 key" : `${rows || "No"} keys`;
    if (!part || !requestConfig.elt.matches?.(".pager")) return false;
    if (part.getBoundingClientRect().top < 0) part.scrollIntoView();
    if (document.activeElement === body) {
      part.tabIndex = -1;
      part.focus({ preventScroll: true });
    }
    return true;
  };
  const open = (link) => {
    htmx.ajax("GET", link.href, { target: dialog, source: link, swap: "innerHTML" });
  };
  body.addEventListener("htmx:afterSwap", (event) => {
    if (event.detail.target !== dialog) return;
    document.querySelectorAll(".menu:popover-open").forEach((menu) => menu.hidePopover());
    if (!dialog.open && dialog.firstElementChild) {
      opener = document.activeElement;
      opener.place = opener.closest("tr")?.id;
      dialog.showModal();
    }
    prepare(dialog);
  });
  const isBell = ({ detail }) => detail.target.id === "bell";  // it asks by itself, beside what matters
  body.addEventListener("htmx:afterSettle", (event) => {
    if (isBell(event)) return;
    if (event.detail.target !== dialog) return settled(event.detail) || returnFocus();
    const first = dialog.querySelector("[aria-invalid=true]") || dialog.querySelector("[autofocus]");
    if (first) first.focus();
  });
  dialog.addEventListener("close", () => {
    dialog.replaceChildren();
    returnFocus();
  });
  body.addEventListener("close-dialog", () => dialog.close());
  body.addEventListener("notice", (event) => say(event.detail));
  body.addEventListener("token", (event) => {
    document.querySelectorAll("[name=csrf_token]").forEach((field) => { field.value = event.detail.value; });
  });
  // What asks by itself, again and again, says nothing of a question that failed.
  const asksByItself = (element) => Boolean(element?.matches("[hx-trigger^=every]"));
  body.addEventListener("htmx:sendError", ({ detail }) => asksByItself(detail.elt) || say({ words: "The server cannot be reached. Try again." }));
  body.addEventListener("htmx:beforeOnLoad", (event) => {
    if (event.detail.xhr.status > 499 && asksByItself(event.detail.elt)) event.preventDefault();
  });
  // What was open is not shown again by Back or Forward.
  addEventListener("pagehide", () => dialog.close());
  addEventListener("pageshow", (event) => event.persisted && location.reload());

  // --- progress: a busy form's buttons wait, and a bar shows what takes longer than a moment
  let running = 0;
  body.addEventListener("htmx:beforeRequest", (event) => {
    root.classList.toggle("busy", ++running > 0);
    if (event.target.matches("form[method=post]")) event.target.ariaBusy = "true";
  });
  body.addEventListener("htmx:afterRequest", (event) => {
    root.classList.toggle("busy", --running > 0);
    event.detail.elt.ariaBusy = null;
  });
  document.addEventListener("submit", (event) => {
    if (event.target.ariaBusy === "true") {
      event.preventDefault();
      event.stopImmediatePropagation();
    }
  }, true);

  // --- the row that changed glows once
  let changed = null;
  body.addEventListener("keys-changed", (event) => { changed = event.detail.id; });
  body.addEventListener("htmx:afterSettle", (event) => {
    const row = changed && !isBell(event) && event.detail.target !== dialog && document.getElementById(changed);
    if (!row) return;
    row.classList.add("changed");
    changed = null;
  });

  // --- the last button waits until the typed name is the key's
  const prepare = (part) => {
    part.querySelectorAll("[data-confirms]").forEach((input) => {
      const button = input.form.querySelector(".actions button");
      const wait = () => { button.disabled = input.value !== input.dataset.confirms; };
      input.addEventListener("input", wait);
      wait();
    });
  };
  prepare(document);

  // --- copying: whether the text is in the clipboard now
  const copy = async (text) => {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      // Without https there is no clipboard to write to: select the text and ask the browser.
      const helper = document.createElement("textarea");
      const focused = document.activeElement;
      helper.value = text;
      (dialog.open ? dialog : body).append(helper);
      helper.select();
      const done = document.execCommand("copy");
      helper.remove();
      focused?.focus();
      return done;
    }
  };

  // --- a secret: hidden from eyes and screen readers until asked for; who leaves without it is asked once
  const dots = "•".repeat(12);
  const secret = () => document.getElementById("secret");
  const whole = (text) => text.replaceAll(dots, secret()?.value);
  const take = (part) => { const box = is("secret", part); if (box) box.dataset.taken = ""; };
  const untaken = () => dialog.querySelector("[data-secret]:not([data-taken])");
  const mayLeave = () => {
    const asks = untaken()?.querySelector("[data-asks][hidden]");
    if (asks) asks.hidden = false;
    return !asks;
  };
  const stay = (event) => { if (!mayLeave()) event.preventDefault(); };
  dialog.addEventListener("cancel", stay);
  addEventListener("beforeunload", stay);
  let kept, forget;
  dialog.addEventListener("close", () => {
    if (!untaken()) return;
    kept = [...dialog.childNodes];
    clearTimeout(forget);
    forget = setTimeout(() => { kept = null; }, 16000);
    const what = untaken().dataset.secret || "key";
    say({ words: `The ${what} was not copied.`, button: "Show it again", seconds: 15, act: () => {
      if (!kept) return say({ words: `The ${what} is gone. Rotate it to get another.` });
      dialog.replaceChildren(...kept);
      kept = null;
      dialog.showModal();
    } });
  }, true);
  addEventListener("pagehide", () => { kept = null; dialog.replaceChildren(); });
  const reveal = (button) => {
    const input = secret();
    const hide = input.type === "text";
    input.type = hide ? "password" : "text";
    button.ariaPressed = String(!hide);
    button.lastElementChild.textContent = hide ? "Show key" : "Hide key";
    is("secret", button).querySelectorAll("pre").forEach((pre) => {
      pre.textContent = hide ? pre.textContent.replaceAll(input.value, dots) : whole(pre.textContent);
    });
    take(button);
  };
  const download = (button) => {
    const link = document.createElement("a");
    const text = whole(document.getElementById(button.dataset.of).textContent);
    link.href = URL.createObjectURL(new Blob([`${text}\n`], { type: "text/plain" }));
    link.download = button.dataset.download;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    take(button);
  };
  document.addEventListener("copy", (event) => {
    if (!is("secret", event.target)) return;
    const text = event.target === secret() ? secret().value : whole(String(getSelection()));
    if (!text.includes(secret().value)) return;
    event.clipboardData.setData("text/plain", text);
    event.preventDefault();
    take(event.target);
  });

  // --- key forms: buttons that add and take away lines of a field
  const linesOf = (area) => area.value.split(/[\s,;]+/).filter(Boolean);
  const press = (button) => {
    const area = document.getElementById(button.dataset.of);
    const { line, lines: preset } = button.dataset;
    const held = linesOf(area);
    const offered = (one) => area.form.querySelector(`[data-line="${CSS.escape(one)}"], [data-lines~="${CSS.escape(one)}"]`);
    if (preset) area.value = [...held.filter((one) => !offered(one)), ...preset.split(" ")].join("\n");
    else if (!held.includes(line)) area.value = [...held, line].join("\n");
    else if (button.ariaPressed) area.value = held.filter((one) => one !== line).join("\n");
    area.dispatchEvent(new Event("input", { bubbles: true }));
  };
  document.addEventListener("input", ({ target }) => {
    target.removeAttribute("aria-invalid");
    target.form?.querySelectorAll(`[aria-pressed][data-of="${target.id}"]`).forEach((button) => {
      button.ariaPressed = String(linesOf(target).includes(button.dataset.line));
    });
  });

  document.addEventListener("click", (event) => {
    const { target } = event;
    const plain = !(event.ctrlKey || event.metaKey || event.shiftKey || event.button);
    const link = is("dialog", target);
    if (link && plain) {
      event.preventDefault();
      return open(link);
    }
    if (is("close", target) && dialog.open) {
      event.preventDefault();
      return (!target.closest("header") || mayLeave()) && dialog.close();
    }
    for (const [name, act] of [["reveal", reveal], ["download", download], ["line", press], ["lines", press]]) {
      const button = is(name, target);
      if (button) return act(button);
    }
    const copier = is("copy", target);
    if (copier) {
      const words = copier.dataset.words ||= copier.textContent;
      const label = copier.dataset.label ??= copier.ariaLabel ?? "";
      const tell = (said, named) => Object.assign(copier, { textContent: said, ariaLabel: named || null });
      copier.ariaLive = "polite";
      const source = document.getElementById(copier.dataset.copy);
      copy(source.value ?? whole(source.textContent)).then((done) => {
        if (done) take(copier);
        const told = done ? "Copied" : "Select it and press Ctrl+C";
        tell(told, label && told);
        setTimeout(tell, 2000, words, label);
      });
    }
  });

  // --- integrate: fills in one's own address; a field at fault gets the focus
  document.addEventListener("click", ({ target }) => {
    const filler = is("fill", target);
    if (!filler) return;
    const field = document.getElementById(filler.dataset.fill);
    field.value = filler.dataset.value;
    field.focus();
  });
  body.addEventListener("htmx:afterSettle", ({ detail }) => {
    if (detail.target.id === "result") document.querySelector("#try [aria-invalid=true]")?.focus();
  });

  // --- keys: / searches, n creates, arrows move in menus and charts
  const shortcuts = { "/": "[data-search]", n: "[data-create]" };
  document.addEventListener("keydown", (event) => {
    const { target, key } = event;
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const menu = target.closest?.(".menu");
    if (menu && (key === "ArrowDown" || key === "ArrowUp" || key === " ")) {
      event.preventDefault();
      if (key === " ") return target.click();
      const items = [...menu.querySelectorAll("a, button")];
      const next = items.indexOf(document.activeElement) + (key === "ArrowDown" ? 1 : -1);
      return items[(next + items.length) % items.length].focus();
    }
    const bar = target.closest?.(".chart g");
    if (bar && (key === "ArrowLeft" || key === "ArrowRight")) {
      const next = key === "ArrowLeft" ? bar.previousElementSibling : bar.nextElementSibling;
      if (!next?.matches("g")) return;
      event.preventDefault();
      bar.setAttribute("tabindex", "-1");
      next.setAttribute("tabindex", "0");
      return next.focus();
    }
    const wanted = key === "." ? target.closest?.(".keys tbody tr")?.querySelector(".menu-button")
      : shortcuts[key] && document.querySelector(shortcuts[key]);
    if (!wanted || dialog.open || target.matches("input:not([type=checkbox]), textarea, select")) return;
    event.preventDefault();
    if (key === "/") wanted.select();
    else wanted.click();
  });
  document.addEventListener("beforetoggle", (event) => {
    // So the browser moves the focus as it opens the menu, not a moment later, in the middle of a key.
    if (event.target.matches?.(".menu")) event.target.querySelector("a, button").autofocus = event.newState === "open";
  }, true);

  // --- key table: several are selected; a row leads to its key, and right-click or . opens its menu
  const on = (type, act) => document.addEventListener(type, act);
  const each = (what, act, part = document) => part.querySelectorAll(what).forEach(act);
  const tally = () => {
    const [all, picked] = ["", ":checked"].map((one) => document.querySelectorAll(`#many tbody input${one}`).length);
    each("[data-picked]", (told) => { told.textContent = picked ? `${picked} selected` : ""; });
    each("[data-all]", (box) => {
      box.checked = picked && picked === all;
      box.indeterminate = picked && picked < all;
    });
  };
  // What was selected stays so when the rows are exchanged, but for a change that was made with it.
  let picked = [];
  on("keys-changed", ({ detail }) => { if (!detail.id) each("#many tbody :checked", (box) => { box.checked = false; }); });
  on("htmx:beforeSwap", ({ detail }) => {
    if (detail.target.id === "keys") picked = [...document.querySelectorAll("#many tbody :checked")].map((box) => box.value);
  });
  on("htmx:afterSettle", ({ detail }) => {
    if (detail.target.id !== "keys") return;
    each("#many tbody input", (box) => { box.checked = picked.includes(box.value); });
    if (document.getElementById("many")) tally();
  });
  on("change", ({ target }) => {
    if (is("all", target)) each("#many tbody input", (box) => { box.checked = target.checked; });
    if (target.form?.id === "many") tally();
  });
  on("reset", () => setTimeout(tally));
  on("submit", ({ target }) => is("file", target) && setTimeout(() => dialog.open && dialog.close()));
  const rowOf = ({ target }) => target.closest?.(".keys tbody tr");
  const near = (event) => {
    const button = rowOf(event)?.querySelector(".menu-button[name]");
    if (!button) return;
    const menu = document.getElementById("row-menu").content.firstElementChild.cloneNode(true);
    each("a", (link) => link.setAttribute("href", link.getAttribute("href").replace("ID", button.value)), menu);
    menu.querySelector(button.closest(".revoked") ? ".revoke" : ".restore")?.remove();
    button.after(menu);
    button.popoverTargetElement = menu;
    button.type = "button";
    button.removeAttribute("name");
  };
  on("pointerover", near);
  on("focusin", near);
  // A table that is fetched anew keeps the menu that is open.
  let openMenu = null;
  on("htmx:beforeSwap", ({ target }) => {
    const menu = target.querySelector(".keys .menu:popover-open");
    openMenu = menu && { row: menu.closest("tr").id, inset: menu.style.inset };
  });
  on("htmx:afterSwap", () => {
    const button = openMenu && document.getElementById(openMenu.row)?.querySelector(".menu-button");
    const { inset } = openMenu || {};
    openMenu = null;
    if (!button) return;
    near({ target: button });
    const menu = button.popoverTargetElement;
    menu.style.inset = inset;
    menu.showPopover({ source: button });
  });
  const isPlain = ({ target }, without) => !target.closest(without) && getSelection().isCollapsed;
  on("click", (event) => {
    const row = isPlain(event, "a, button, input, .menu") && rowOf(event);
    const link = row && row.querySelector(event.target.closest(".pick") ? "input" : "th a");
    if (link) link.dispatchEvent(new MouseEvent("click", event));
  });
  on("contextmenu", (event) => {
    const menu = !event.shiftKey && isPlain(event, "a, input, .menu") && rowOf(event)?.querySelector(".menu");
    if (!menu) return;
    event.preventDefault();
    menu.showPopover();
    const { clientX: x, clientY: y } = event;
    menu.style.inset = `${Math.min(y, innerHeight - menu.offsetHeight)}px auto auto ${Math.min(x, innerWidth - menu.offsetWidth)}px`;
    menu.ontoggle = ({ newState }) => { if (newState === "closed") menu.style.inset = ""; };
  });

  // --- hover and focus: the exact time here too; what a bar of a chart says
  const local = (instant) => new Date(instant).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "long" });
  const tell = (event) => {
    const time = event.target.closest?.("time[datetime]");
    if (time && !time.dataset.local) {
      time.dataset.local = local(time.dateTime);
      time.title += `\n${time.dataset.local}`;
    }
    const bar = event.target.closest?.(".chart g");
    if (bar) bar.closest(".chart").querySelector(".chart-says").textContent = bar.ariaLabel;
  };
  document.addEventListener("mouseover", tell);
  document.addEventListener("focusin", tell);

  // --- alerts: who deals with one by the keyboard goes on with the next
  let dealt = null;
  on("htmx:beforeSwap", ({ detail }) => {
    if (detail.target.id !== "alerts") return;
    const alert = document.activeElement.closest?.(".alert");
    dealt = alert && [...alert.parentElement.children].indexOf(alert);
  });
  on("htmx:afterSettle", ({ detail }) => {
    if (detail.target.id !== "alerts" || dealt === null || document.activeElement !== body) return;
    const left = document.querySelectorAll("#alerts .alert h2 a");
    (left[Math.min(dealt, left.length - 1)] || document.querySelector("h1")).focus();
    dealt = null;
  });

  // --- audit log: new entries come by themselves, unless somebody reads or chooses just then
  let wait = 2000, fresh = 0, told = 0;
  const tellOf = (log, words) => { log.querySelector("[data-says]").textContent = words; };
  const stop = (log, words) => {
    wait = 2000;
    log.removeAttribute("data-live");
    const turn = log.querySelector("[data-turn]");
    turn.textContent = "Live";
    turn.setAttribute("hx-get", turn.dataset.turn);
    htmx.process(turn);
    tellOf(log, `Live is off: ${words}.`);
  };
  const add = (log, text) => {
    const part = document.createElement("template");
    const rows = log.querySelector("tbody");
    if (!rows) return htmx.trigger("#log-filters", "submit");
    part.innerHTML = text;
    fresh += part.content.childElementCount;
    rows.querySelectorAll(".changed").forEach((row) => row.classList.remove("changed"));
    rows.prepend(part.content);
    const past = [...rows.rows].slice(200).filter((row) => !row.contains(document.activeElement));
    if (!past.length) return;
    past.forEach((row) => row.remove());
    const next = document.getElementById("entries-next");
    next.value = rows.lastElementChild.dataset.cursor;
    next.disabled = false;
  };
  const follow = async () => {
    const log = document.querySelector("[data-live]");
    const held = !log || document.hidden || !getSelection().isCollapsed || document.querySelector(".menu:popover-open, .menu:hover") || (dialog.open && !dialog.contains(log));
    if (!held) try {
      const answer = await fetch(log.dataset.newer + log.dataset.newest, { headers: { "HX-Request": "true", "HX-Current-URL": location.href } });
      const text = await answer.text();
      if (answer.status > 499) throw answer;
      wait = 2000;
      if (!answer.ok) stop(log, "you are signed out, or may not read this log");
      else if (log.isConnected) {
        log.dataset.newest = answer.headers.get("Latchkey-Newest");
        if (text) add(log, text);
        if (fresh && Date.now() - told > 10000) {
          tellOf(log, `${fresh} new ${fresh > 1 ? "entries" : "entry"}`);
          told = Date.now();
          fresh = 0;
        }
      }
    } catch {
      wait *= 2;
      if (wait > 30000) stop(log, "the server cannot be reached");
    }
    setTimeout(follow, wait);
  };
  follow();
  const tellHere = () => document.querySelectorAll("[data-here]:empty").forEach((one) => { one.textContent = local(one.dataset.here); });
  tellHere();
  body.addEventListener("htmx:afterSwap", tellHere);

  // --- passkeys: the server says what is to be signed, the browser asks for a finger, face or PIN
  if (window.PublicKeyCredential) root.classList.add("knows-passkeys");
  const bytes = (text) => Uint8Array.from(atob(text.replace(/-/g, "+").replace(/_/g, "/")), (one) => one.charCodeAt(0));
  const base64url = (buffer) => buffer && btoa(String.fromCharCode(...new Uint8Array(buffer))).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
  const known = (list = []) => list.map((one) => ({ ...one, id: bytes(one.id) }));
  const device = (options) => {
    const publicKey = { ...options, challenge: bytes(options.challenge) };
    if (!options.user) return navigator.credentials.get({ publicKey: { ...publicKey, allowCredentials: known(options.allowCredentials) } });
    publicKey.user = { ...options.user, id: bytes(options.user.id) };
    return navigator.credentials.create({ publicKey: { ...publicKey, excludeCredentials: known(options.excludeCredentials) } });
  };
  const asJSON = ({ id, type, rawId, response }) => {
    const parts = ["clientDataJSON", "attestationObject", "authenticatorData", "signature", "userHandle"];
    const sent = Object.fromEntries(parts.map((name) => [name, base64url(response[name])]));
    return { id, type, rawId: base64url(rawId), response: { ...sent, transports: response.getTransports?.() } };
  };
  const send = async (form, address, more) => {
    const fields = { ...Object.fromEntries(new FormData(form)), ...more };
    const headers = { "Content-Type": "application/json", "X-CSRFToken": fields.csrf_token };
    const answer = await fetch(address, { method: "POST", headers, body: JSON.stringify(fields) })
      .catch(() => { throw { told: { message: "The server cannot be reached. Try again." } }; });
    const isJSON = answer.headers.get("Content-Type")?.startsWith("application/json");
    const told = isJSON ? await answer.json() : { message: "That did not work. Reload the page and try again." };
    if (told.message) throw { told };
    return told;
  };
  const failures = {
    NotAllowedError: "No passkey was used: the question was closed, or waited too long. Try again.",
    InvalidStateError: "This device holds a passkey of yours already.",
    SecurityError: "Passkeys are kept for {host} alone. Open Latchkey there.",
  };
  on("submit", async (event) => {
    const form = is("passkey", event.target);
    if (!form) return;
    event.preventDefault();
    const says = form.querySelector("[role=alert]");
    says.textContent = "";
    form.ariaBusy = "true";
    let host;
    try {
      const options = await send(form, form.dataset.options);
      host = options.rpId || options.rp.id;
      const credential = asJSON(await device(options));
      const { location: next } = await send(form, form.action, { credential });
      if (form.elements.place?.value === "dialog") htmx.ajax("GET", next, { target: dialog, swap: "innerHTML" });
      else location.assign(next);
    } catch (error) {
      says.textContent = error.told?.message || failures[error.name]?.replace("{host}", host) || "This device cannot do that. Try another one.";
    }
    form.ariaBusy = null;
  });
})();
