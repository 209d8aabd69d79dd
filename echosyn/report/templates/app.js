(() => {
  const at = (id) => document.getElementById(id);
  const form = at("wish");
  let busy = false;
  for (const range of form.querySelectorAll("input[type=range]")) {
    const output = at(`${range.id}-value`);
    const show = () => (output.value = range.value + output.dataset.unit);
    range.addEventListener("input", show);
    show();
  }
  at("draw").addEventListener("click", ({ target }) => (at("heart").value = target.dataset.next++));

  const failed = (words) => {
    at("problem").textContent = words;
    at("problem").hidden = !words;
  };
  const said = ({ step, number, html, error }) => {
    if (error) failed(error);
    if (html) at("made").insertAdjacentHTML("afterbegin", html);
    if (!step) return true;
    at("step").textContent = `${step} …`;
    at("bar").value = number;
    return false;
  };
  const make = async () => {
    const asked = [...new FormData(form)].map(([k, v]) => [k, k === "kind" ? v : Number(v)]);
    const answer = await fetch("/videos", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(Object.fromEntries(asked)),
    });
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    let over = false;
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      const lines = (text + part.value).split("\n");
      text = lines.pop();
      for (const line of lines) over = said(JSON.parse(line));
    }
    if (!over) throw new Error("the answer broke off");
  };
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (busy) return;
    busy = true;
    failed("");
    at("bar").hidden = false;
    await make().catch((e) => failed(`No video: ${e.message}. What the terminal says may tell why.`));
    at("bar").hidden = true;
    at("step").textContent = "";
    busy = false;
  });
})();
