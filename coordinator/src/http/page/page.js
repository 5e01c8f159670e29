// Keeps a page up to date: asks for the parts that change, and changes what differs. Without it the page is as it was loaded.
"use strict";

const SLOWEST = 10; // seconds between two looks at what does not change
const HIDDEN = 30; // and while nobody looks
const first = Number(document.body.dataset.again || 0);
const connection = document.getElementById("connection");
let pause = first;
let tag = null;
let failures = 0;
let timer = 0;

// Turns one element into another, keeping whatever is the same: with it focus, scrolling, open details and what was typed.
function morph(from, to) {
  if (from.isEqualNode(to)) return;
  for (const { name } of [...from.attributes]) {
    const kept = name === "open" && (from.localName === "details" || from.localName === "dialog");
    if (!kept && !to.hasAttribute(name)) from.removeAttribute(name);
  }
  for (const { name, value } of to.attributes) {
    if (from.getAttribute(name) !== value) from.setAttribute(name, value);
  }
  const [old, next] = [[...from.childNodes], [...to.childNodes]];
  for (let at = 0; at < Math.max(old.length, next.length); at++) {
    const [a, b] = [old[at], next[at]];
    if (!b) a.remove();
    else if (!a) from.append(document.importNode(b, true));
    else if (a.nodeName !== b.nodeName || a.id !== b.id) a.replaceWith(document.importNode(b, true));
    else if (a.nodeType === Node.ELEMENT_NODE) morph(a, b);
    else if (a.nodeValue !== b.nodeValue) a.nodeValue = b.nodeValue;
  }
}

function show(text) {
  const page = new DOMParser().parseFromString(text, "text/html");
  for (const next of page.querySelectorAll("[data-live]")) {
    const now = document.getElementById(next.id);
    if (now) morph(now, next);
  }
}

async function look() {
  const headers = { "evenkeel-fragment": "1" };
  if (tag) headers["if-none-match"] = tag;
  try {
    const answer = await fetch(location.href, { headers, cache: "no-store", signal: AbortSignal.timeout(15000) });
    if (answer.status === 401) return location.reload();
    if (!answer.ok && answer.status !== 304) throw new Error(String(answer.status));
    if (answer.status === 304) {
      pause = Math.min(pause * 1.5, SLOWEST);
    } else {
      pause = first;
      tag = answer.headers.get("etag");
      show(await answer.text());
    }
    if (failures) connection.textContent = "";
    failures = 0;
  } catch {
    failures += 1;
    pause = Math.min(first * 2 ** failures, SLOWEST);
    if (failures > 1) connection.textContent = "Connection lost, trying again. What you see may be old.";
  }
  plan();
}

function plan() {
  clearTimeout(timer);
  timer = setTimeout(look, 1000 * (document.hidden ? HIDDEN : pause));
}

if (first > 0) {
  plan();
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) {
      clearTimeout(timer);
      look();
    }
  });
}

// Questions that are pages of their own open in place.
document.addEventListener("click", (event) => {
  const link = event.target.closest("[data-dialog]");
  const dialog = link && document.getElementById(link.dataset.dialog);
  if (dialog && dialog.showModal) {
    event.preventDefault();
    dialog.showModal();
  }
});
