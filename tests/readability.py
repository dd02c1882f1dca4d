"""What a reader would find wrong with a page, in any colour scheme and at any width."""

WIDTHS = (390, 1280)  # of a phone and of a desktop, in pixels
SCHEMES = ("light", "dark")
SMALLEST_CONTRAST = 4.5  # of text, as WCAG 2 asks for at level AA

# Text whose colour has less contrast than that with the nearest background that is not transparent; colours are drawn
# on a canvas, since style sheets may write them in many ways.
_LOW_CONTRAST = """
smallest => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", {willReadFrequently: true});
  const pixel = colors => {
    canvas.clearRect(0, 0, 1, 1);
    for (const color of colors) { canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1); }
    return canvas.getImageData(0, 0, 1, 1).data;
  };
  const luminance = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const probe = document.body.appendChild(document.createElement("div"));
  probe.style.backgroundColor = "canvas";
  const behind = getComputedStyle(probe).backgroundColor;
  probe.remove();
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement, text = walker.currentNode.data.trim();
    if (!text || !element.checkVisibility({opacityProperty: true, visibilityProperty: true})) continue;
    if (element.closest("script, style, title, math annotation")) continue;
    const layers = [];
    for (let at = element; at; at = at.parentElement) layers.unshift(getComputedStyle(at).backgroundColor);
    const style = getComputedStyle(element);
    const color = element instanceof SVGElement ? style.fill : style.color;
    const [a, b] = [pixel([behind, ...layers, color]), pixel([behind, ...layers])].map(luminance);
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (contrast < smallest) found.push(`${contrast.toFixed(2)}: ${text.slice(0, 60)}`);
  }
  return found;
}
"""

# Elements that reach beyond the window and are not inside one that scrolls; the page itself must not.
_OVERFLOW = """
() => {
  const width = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth <= width) return [];
  return [...document.body.querySelectorAll("*")]
    .filter(element => element.getBoundingClientRect().right > width + 1)
    .map(element => element.outerHTML.slice(0, 120));
}
"""

# Images that are not there, are not drawn, or say nothing to a reader who cannot see them.
_BAD_IMAGES = """
() => [...document.images].filter(image => !image.alt || !image.complete || !image.naturalWidth)
  .concat([...document.querySelectorAll("svg")].filter(
    svg => !svg.closest("[aria-hidden=true]") && !svg.getAttribute("aria-label")))
  .map(element => element.outerHTML.slice(0, 120))
"""


def faults(page):
    """Return what is wrong with a Playwright page as it is drawn now, by kind; kinds without a fault are left out."""
    found = {
        "low contrast": page.evaluate(_LOW_CONTRAST, SMALLEST_CONTRAST),
        "overflow": page.evaluate(_OVERFLOW),
        "images": page.evaluate(_BAD_IMAGES),
    }
    return {kind: elements for kind, elements in found.items() if elements}


def faults_by_view(page, height=900):
    """Return the faults of a Playwright page at both widths and in both colour schemes; {} if there are none."""
    found = {}
    for scheme in SCHEMES:
        page.emulate_media(color_scheme=scheme)
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": height})
            if wrong := faults(page):
                found[scheme, width] = wrong
    return found
