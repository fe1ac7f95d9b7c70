// Colours set from JavaScript: the heatmap's ramp for both themes, and the chart's, read from the style sheet.

const DARK = matchMedia("(prefers-color-scheme: dark)");
const RAMPS = {
  light: ["#f4f8fc", "#d5e6f6", "#a3caeb", "#5d9fd8", "#2a6fbb", "#12407f"],
  dark: ["#15202e", "#17395a", "#1a5c8c", "#2787b8", "#5cb8d6", "#bdeaf2"],
};

export const onThemeChange = (react) => DARK.addEventListener("change", react);

export const ramp = () => RAMPS[DARK.matches ? "dark" : "light"];

/** The value of a CSS custom property. */
export const token = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

const channels = (hex) => [1, 3, 5].map((at) => Number.parseInt(hex.slice(at, at + 2), 16));

/** The colour at `share` (0…1) of the ramp, and the text colour with more contrast. */
export function heat(share) {
  const stops = ramp();
  const at = Math.min(1, Math.max(0, share)) * (stops.length - 1);
  const low = Math.min(Math.floor(at), stops.length - 2);
  const [from, to] = [channels(stops[low]), channels(stops[low + 1])];
  const rgb = from.map((value, index) => Math.round(value + (to[index] - value) * (at - low)));
  const light = luminance(rgb);
  return { background: `rgb(${rgb})`, ink: (light + 0.05) / 0.05 >= 1.05 / (light + 0.05) ? "#000" : "#fff" };
}

/** Relative luminance as defined by WCAG. */
function luminance(rgb) {
  const [red, green, blue] = rgb.map((value) => {
    const share = value / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}
