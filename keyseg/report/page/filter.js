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
    }
    const left = items.filter((item) => !item.hidden).length;
    document.getElementById("shown").textContent = `${left} of ${items.length} shown`;
  };
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
// Paper has no clicks: everything that is folded is printed, and folded again afterwards.
let folded = [];
addEventListener("beforeprint", () => {
  folded = [...document.querySelectorAll("details:not([open])")];
  for (const part of folded) part.open = true;
});
addEventListener("afterprint", () => {
  for (const part of folded) part.open = false;
});
