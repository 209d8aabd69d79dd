// Without this the videos stand there as a list.
(() => {
  const box = document.getElementById("explorer-box");
  const asked = document.getElementById("explorer-ef");
  const shown = document.getElementById("explorer-asked");
  const clips = [...box.querySelectorAll("li")];
  const far = (clip) => Math.abs(clip.dataset.ef - asked.value);
  const show = () => {
    const nearest = clips.reduce((a, b) => (far(b) < far(a) ? b : a));
    for (const clip of clips) clip.hidden = clip !== nearest;
    shown.value = `${asked.value} %`;
  };
  box.classList.add("asking");
  document.getElementById("explorer-ask").hidden = false;
  asked.addEventListener("input", show);
  show();
})();
