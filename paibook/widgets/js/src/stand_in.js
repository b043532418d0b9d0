// The static output before a view is for when there is no kernel: hidden while the view is there. A view is drawn before
// it is put into the page.
export function standIn(root) {
  let hidden = null;
  requestAnimationFrame(() => {
    const before = root.closest(".jp-OutputArea-child")?.previousElementSibling;
    if (!before?.querySelector(".pai-static")) return;
    hidden = before;
    hidden.style.display = "none";
  });
  return () => {
    if (hidden) hidden.style.display = "";
  };
}
