// Numbers in words, as all pages of the monitor have them.
export const count = (n) => (n === null || n === undefined ? "" : Math.round(n).toLocaleString("en"));
export const rate = (n) => (n === null || n === undefined ? "" : (Math.abs(n) >= 9.95 ? count(n) : n.toFixed(1)) + "/s");
export function duration(s) {
  if (s === null || s === undefined) return "";
  if (s < 9.95) return s.toFixed(1) + " s";
  if (s < 120) return Math.round(s) + " s";
  if (s < 7200) return Math.round(s / 60) + " min";
  if (s < 172800) return (s / 3600).toFixed(1) + " h";
  return (s / 86400).toFixed(1) + " d";
}
export const clock = (ms) => new Date(ms).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
