"use strict";
// The filter works on what is in the page; without scripts everything is shown.
for (const bar of document.querySelectorAll(".filter")) {
  bar.hidden = false;
  const buttons = [...bar.querySelectorAll("button")];
  for (const button of buttons) {
    button.addEventListener("click", () => {
      for (const other of buttons) {
        other.setAttribute("aria-pressed", String(other === button));
      }
      for (const item of document.querySelectorAll(".item")) {
        item.hidden = button.dataset.style !== "" && item.dataset.style !== button.dataset.style;
      }
    });
  }
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
