// The connection to the server: messages until the page is left, opened again when it breaks.
import { eachMessage } from "./frames.js";

const PAUSES_MS = [500, 1000, 2000, 5000, 10000];
const SILENT_MS = 10000; // the server sends something every second

// `take(message)`, `state(text, isGood)`.
export function follow(take, state) {
  let failures = 0;
  async function once() {
    const stop = new AbortController();
    let heard = performance.now();
    const watch = setInterval(() => {
      if (performance.now() - heard > SILENT_MS && !document.hidden) stop.abort();
    }, 1000);
    try {
      const answer = await fetch("api/stream", { signal: stop.signal, cache: "no-store" });
      if (answer.status === 401) {
        location.assign("login");
        return;
      }
      if (!answer.ok) throw new Error((await answer.json().catch(() => ({}))).why ?? `status ${answer.status}`);
      await eachMessage(answer.body.getReader(), (message) => {
        heard = performance.now();
        failures = 0;
        take(message);
      });
      state("the server has ended the connection, connecting again", false);
    } catch (error) {
      state(`no connection (${stop.signal.aborted ? "nothing came for 10 s" : error.message}), trying again`, false);
    } finally {
      clearInterval(watch);
      stop.abort();
    }
    const pause = PAUSES_MS[Math.min(failures, PAUSES_MS.length - 1)];
    failures += 1;
    setTimeout(once, pause * (0.75 + Math.random() / 2));
  }
  once();
}

// JSON about something, or an error with the server's words.
export async function ask(path, values = {}) {
  const answer = await fetch(`api/${path}?${new URLSearchParams(values)}`, { cache: "no-store" });
  if (!answer.ok) throw new Error((await answer.json().catch(() => ({}))).why ?? `status ${answer.status}`);
  return answer.json();
}
