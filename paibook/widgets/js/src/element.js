// A DOM element with a class, attributes and children (text is set as text, never as HTML).
export function element(tag, className = "", attributes = {}, children = []) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...(Array.isArray(children) ? children : [children]));
  return node;
}

// A button that is on or off.
export function toggle(text, title) {
  return element("button", "pai-button", { type: "button", title, "aria-pressed": "false" }, text);
}
