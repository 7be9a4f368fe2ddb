// How numbers, times and states are written.
export const MOVING = 1;
export const STOPPED = 2;
export const SILENT = 3;
export const STATE_WORDS = ["", "moving", "stopped", "silent"];

export const count = (n) => Math.round(n).toLocaleString("en");
export const speed = (kmh) => (kmh === null || kmh === undefined || Number.isNaN(kmh) || kmh < 0 ? "unknown" : `${Math.round(kmh)} km/h`);
export const kilometres = (km) => (km === null || km === undefined ? "unknown" : `${km.toLocaleString("en", { maximumFractionDigits: km < 100 ? 1 : 0 })} km`);

export function duration(ms) {
  const s = Math.max(0, Math.round(ms / 1000));
  if (s < 90) return `${s} s`;
  if (s < 5400) return `${Math.round(s / 60)} min`;
  if (s < 172800) return `${(s / 3600).toFixed(1)} h`;
  return `${Math.round(s / 86400)} d`;
}

const TIME = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
const TIME_S = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
export const clock = (ms) => (ms === null || ms === undefined ? "unknown" : TIME.format(ms));
export const clockS = (ms) => (ms === null || ms === undefined ? "unknown" : TIME_S.format(ms));

// A time of today by the clock, one far from now by how far.
const FAR_MS = 12 * 3600000;
export function when(ms, now) {
  if (ms === null || ms === undefined) return "unknown";
  if (Math.abs(ms - now) < FAR_MS) return clock(ms);
  return ms > now ? `in ${duration(ms - now)}` : `${duration(now - ms)} ago`;
}

const WINDS = ["north", "north-east", "east", "south-east", "south", "south-west", "west", "north-west"];
export const wind = (degrees) => WINDS[Math.round(degrees / 45) % 8];

// "AT_RISK" as "at risk".
export const plain = (symbol) => String(symbol).toLowerCase().replaceAll("_", " ");
