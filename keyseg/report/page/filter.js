"use strict";
// The filters work on what is in the page; without scripts everything is shown.
for (const panel of document.querySelectorAll(".filters")) {
  panel.hidden = false;
  const buttons = [...panel.querySelectorAll("button")];
  const items = [...document.querySelectorAll(".item")];
  const wanted = {};
  const apply = () => {
    for (const item of items) {
      item.hidden = Object.entries(wanted).some(([key, v]) => v && item.dataset[key] !== v);
    }
    for (const kind of document.querySelectorAll(".kind")) {
      kind.hidden = !kind.querySelector(".item:not([hidden])");
      if (wanted.kind && !kind.hidden) kind.open = true;
    }
    const left = items.filter((item) => !item.hidden).length;
    document.getElementById("shown").textContent = `${left} of ${items.length} shown`;
  };
  for (const choice of panel.querySelectorAll("select")) {
    choice.addEventListener("change", () => {
      wanted[choice.dataset.key] = choice.value;
      apply();
    });
  }
  for (const button of buttons) {
    button.addEventListener("click", () => {
      wanted[button.dataset.key] = button.dataset.value;
      for (const other of buttons.filter((b) => b.dataset.key === button.dataset.key)) {
        other.setAttribute("aria-pressed", String(other === button));
      }
      apply();
    });
  }
  apply();
}
// Columns of the gallery: each variant can be put aside.
for (const panel of document.querySelectorAll(".columns")) {
  panel.hidden = false;
  for (const button of panel.querySelectorAll("button")) {
    button.addEventListener("click", () => {
      const shown = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", String(shown));
      const own = `.picture[data-variant="${button.dataset.variant}"]`;
      for (const picture of document.querySelectorAll(own)) picture.hidden = !shown;
    });
  }
}
// The table of contents says where one is; what it leads to is unfolded.
const links = [...document.querySelectorAll(".contents a")];
const parts = links.map((link) => document.getElementById(link.hash.slice(1)));
const mark = () => {
  let here = 0;
  parts.forEach((part, i) => { if (part.getBoundingClientRect().top < 120) here = i; });
  links.forEach((link, i) => link.toggleAttribute("aria-current", i === here));
};
addEventListener("scroll", mark, { passive: true });
mark();
// Paper has no clicks: everything that is folded is printed, and folded again afterwards.
let folded = [];
addEventListener("beforeprint", () => {
  folded = [...document.querySelectorAll("details:not([open])")];
  for (const part of folded) part.open = true;
});
addEventListener("afterprint", () => {
  for (const part of folded) part.open = false;
});
