// Dark or light: the system's preference until the button is used; the choice is shared with the monitor's other pages.
const NAMES = ["water", "land", "border", "river", "place", "halo", "moving", "stopped", "silent", "late", "badge", "trail", "circle", "ink"];
const root = document.documentElement;

export function startTheme(button, onChange) {
  const remembered = read();
  if (remembered) root.dataset.theme = remembered;
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", onChange);
  const other = () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    try {
      localStorage.setItem("theme", root.dataset.theme);
    } catch {
      // without storage the choice lasts as long as the page
    }
    onChange();
  };
  button.addEventListener("click", other);
  return other;
}

const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches);

function read() {
  try {
    return localStorage.getItem("theme");
  } catch {
    return null;
  }
}

// Colours of the map, as the style sheet has them.
export function colours() {
  const style = getComputedStyle(root);
  return Object.fromEntries(NAMES.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
}
