"use strict";
// One request waits for each change; its answer holds the parts that are other than before.
let version = Number(document.body.dataset.version);
const renew = (id, html) => {
  const part = document.getElementById(id);
  const open = [...part.querySelectorAll("details")].map((fold) => fold.open);
  part.innerHTML = html;
  part.querySelectorAll("details").forEach((fold, i) => { if (i in open) fold.open = open[i]; });
};
const follow = async () => {
  const lost = document.getElementById("lost");
  for (;;) {
    try {
      const answer = await fetch(`changes?since=${version}`, { cache: "no-store" });
      const told = await answer.json();
      for (const [id, html] of Object.entries(told.parts)) renew(id, html);
      version = told.version;
      document.body.dataset.version = version;
      lost.hidden = true;
    } catch {
      lost.hidden = false;
      await new Promise((again) => setTimeout(again, 3000));
    }
  }
};
follow();
