// Hands bytes to the person at the page as a file.
import { element } from "./element.js";

export function download(name, type, bytes) {
  const url = URL.createObjectURL(new Blob([bytes], { type }));
  const link = element("a", "", { href: url, download: name.replace(/[^\p{L}\p{N}._ -]+/gu, "_") });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
