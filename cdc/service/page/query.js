// A box that asks the published copy, shown where the process answers queries.

import { count, some } from "./words.js";

const MOST_ROWS = 500; // that are shown

export class QueryBox {
  constructor(section) {
    this.section = section;
    this.text = section.querySelector("textarea");
    this.answer = section.querySelector("#answer");
    this.button = section.querySelector("button");
    section.querySelector("form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.run();
    });
    this.text.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
      event.preventDefault();
      this.run();
    });
  }

  // name: of the pipeline whose copy can be asked, if that is so
  offer(name) {
    this.section.hidden = name === null;
    if (name === this.name) return;
    this.name = name;
    this.answer.replaceChildren();
  }

  async run() {
    if (this.button.disabled || !this.text.value.trim()) return;
    this.button.disabled = true;
    try {
      this.answer.replaceChildren(await this.ask(this.text.value));
    } catch {
      this.answer.replaceChildren(failure("The process does not answer."));
    } finally {
      this.button.disabled = false;
    }
  }

  async ask(sql) {
    const headers = { "Content-Type": "application/json", Accept: "application/json" };
    const response = await fetch(`/query?pipeline=${encodeURIComponent(this.name)}`, { method: "POST", headers, body: JSON.stringify({ sql, limit: MOST_ROWS }) });
    const found = await response.json();
    return response.ok ? grid(found) : failure([found.error, found.hint].filter(Boolean).join("\n"));
  }
}

function failure(text) {
  const node = document.createElement("p");
  node.className = "failure";
  node.setAttribute("role", "alert");
  node.textContent = text;
  return node;
}

function grid({ columns, rows, truncated, seconds }) {
  const table = document.createElement("table");
  const number = truncated ? `The first ${count(rows.length)} rows` : some(rows.length, "row");
  table.createCaption().textContent = `${number}, ${Math.round(seconds * 1000)} ms`;
  const head = table.createTHead().insertRow();
  for (const { name, type } of columns) {
    const cell = document.createElement("th");
    cell.scope = "col";
    cell.textContent = name;
    cell.title = type;
    head.append(cell);
  }
  const body = table.createTBody();
  for (const row of rows) {
    const line = body.insertRow();
    for (const value of row) line.insertCell().textContent = value === null ? "NULL" : typeof value === "object" ? JSON.stringify(value) : value;
  }
  return table;
}
