// The slider of the last hour: live at its right end, a moment of the past elsewhere, which may be played.
import { byId, put, say } from "./dom.js";
import { clock, clockS } from "./words.js";

const HOUR_S = 3600;
const TICK_S_MAX = 0.5;

export class Replay {
  // `past`: where the past comes from; `onChange()`: the mode has changed; `wrong(text)`.
  constructor({ past, now, onChange, wrong }) {
    Object.assign(this, { past, now, onChange, wrong });
    this.moment = null; // milliseconds; null: live
    this.playing = false;
    this.steppedAt = 0;
    byId("slider").addEventListener("input", () => this.#slide());
    byId("play").addEventListener("click", () => this.toggle());
    byId("live").addEventListener("click", () => this.live());
  }

  get isLive() {
    return this.moment === null;
  }

  #slide() {
    const back = HOUR_S - Number(byId("slider").value);
    if (back <= 0) this.live();
    else this.seek(this.now() - back * 1000);
  }

  async seek(moment) {
    this.moment = moment;
    this.onChange();
    this.#write();
    if (!this.past.covers(moment)) await this.#load(moment);
  }

  async #load(moment) {
    try {
      await this.past.load(moment);
    } catch (error) {
      this.wrong(error.message);
      this.live();
    }
  }

  live() {
    this.moment = null;
    this.#play(false);
    this.onChange();
    this.#write();
    say("live");
  }

  toggle() {
    if (this.isLive) this.seek(this.now() - 600000);
    this.#play(!this.playing);
    say(this.playing ? `playing from ${clock(this.moment)}` : "paused");
  }

  #play(playing) {
    this.playing = playing;
    put(byId("play"), playing ? "❚❚" : "▶");
    byId("play").setAttribute("aria-label", playing ? "Pause" : "Play");
  }

  // Go on; whether there is something of the past to be drawn.
  step(now) {
    const passed = Math.min(TICK_S_MAX, (now - this.steppedAt) / 1000);
    this.steppedAt = now;
    if (this.isLive) return false;
    if (this.past.covers(this.moment)) {
      if (this.playing) {
        this.moment += passed * 1000 * Number(byId("pace").value);
        if (this.moment >= this.now() - 2000) {
          this.live();
          return false;
        }
      }
      this.past.stepTo(Math.min(this.moment, this.past.until));
    }
    if (!this.past.covers(this.moment) && this.past.loading === null) this.#load(this.moment);
    return this.past.count > 0;
  }

  // The slider and the time; called now and then.
  write() {
    this.#write();
  }

  #write() {
    document.body.classList.toggle("past", !this.isLive);
    byId("live").setAttribute("aria-pressed", String(this.isLive));
    const text = this.isLive ? "now" : clockS(this.moment);
    put(byId("moment"), text);
    byId("slider").setAttribute("aria-valuetext", text);
    const value = this.isLive ? HOUR_S : Math.max(0, Math.round(HOUR_S - (this.now() - this.moment) / 1000));
    if (document.activeElement !== byId("slider") || this.playing) byId("slider").value = String(value);
  }
}
