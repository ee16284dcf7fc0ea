/* Markdown's blocks: paragraphs, headings, lists, tables, quotes, code, rules. HTML in it is text like any other. readBlocks() cuts lines into blocks, which know
 * their lines; drawMarkdown() makes elements of those that changed, for an answer grows at its end. */

const MAX_NESTING = 8;
const FENCE = /^ {0,3}(`{3,}|~{3,})[ \t]{0,1000}([^`]*)$/;
const HEADING = /^ {0,3}(#{1,6})(?:[ \t](.*))?$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^([ \t]*)([-*+]|\d{1,9}[.)])(?:[ \t]{1,1000}([^\n]*))?$/;

function isBlank(line) {
    return line.trim() === "";
}

/* In columns. */
function indentOf(line) {
    let n = 0;

    for (let i = 0; line[i] === " " || line[i] === "\t"; i++)
        n += line[i] === "\t" ? 4 : 1;
    return n;
}

/* Without so many columns of its indentation, or a tab. */
function outdent(line, width) {
    let i = 0;

    while (i < width && line[i] === " ")
        i++;
    return line.slice(i === 0 && width > 0 && line[0] === "\t" ? 1 : i);
}

function isRule(line) {
    return /^(-{3,}|\*{3,}|_{3,})$/.test(line.replace(/[ \t]/g, ""));
}

/* "a | b \| c" as its cells. */
function readRow(line) {
    const cells = [""];

    for (let i = 0; i < line.length; i++) {
        if (line[i] === "\\" && line[i + 1] === "|") {
            cells[cells.length - 1] += line[++i];
        } else if (line[i] === "|") {
            cells.push("");
        } else {
            cells[cells.length - 1] += line[i];
        }
    }
    if (cells[0].trim() === "")
        cells.shift();
    if (cells.length > 0 && cells.at(-1).trim() === "")
        cells.pop();
    return cells.map((cell) => cell.trim());
}

/* The columns' alignments, where a table begins at lines[i]; null: none does. */
function readTableHead(lines, i) {
    const rule = i + 1 < lines.length && lines[i].includes("|") && lines[i + 1].includes("|") ? readRow(lines[i + 1]) : [];

    if (rule.length === 0 || !rule.every((cell) => /^:?-+:?$/.test(cell)) || readRow(lines[i]).length !== rule.length)
        return null;
    return rule.map((cell) => cell.endsWith(":") ? (cell.startsWith(":") ? "center" : "right") : "left");
}

function beginsBlock(lines, i) {
    const line = lines[i], item = ITEM.exec(line);

    /* A paragraph's line may begin with a number: only "1." is a list there. */
    return FENCE.test(line) || HEADING.test(line) || QUOTE.test(line) || isRule(line) || readTableHead(lines, i) !== null ||
        (item !== null && item[3] !== undefined && (item[2].length === 1 || parseInt(item[2], 10) === 1));
}

/* ---- each kind of block: reads it at lines[i], and returns it and the line behind it ---- */

function readFence(lines, i) {
    const [, mark, info] = FENCE.exec(lines[i]), indent = indentOf(lines[i]), code = [];
    let at = i + 1;

    for (; at < lines.length; at++) {
        const line = lines[at].trim();

        if (line.startsWith(mark) && line === mark[0].repeat(line.length))
            return {kind: "code", language: info.trim(), text: code.join("\n"), end: at + 1};
        code.push(outdent(lines[at], indent));
    }
    return {kind: "code", language: info.trim(), text: code.join("\n"), end: at}; /* not closed yet */
}

function readHeading(lines, i) {
    const [, marks, rest = ""] = HEADING.exec(lines[i]);
    const text = rest.trim();
    let end = text.length;

    while (text[end - 1] === "#")
        end--;
    return {kind: "heading", level: marks.length, text: end === 0 || text[end - 1] === " " ? text.slice(0, end).trim() : text, end: i + 1};
}

function readQuote(lines, i, depth) {
    const inner = [];
    let at = i;

    while (at < lines.length && QUOTE.test(lines[at]))
        inner.push(lines[at++].replace(QUOTE, ""));
    return {kind: "quote", blocks: readBlocks(inner, depth + 1), end: at};
}

function readTable(lines, i) {
    const alignments = readTableHead(lines, i), rows = [];
    let at = i + 2;

    while (at < lines.length && !isBlank(lines[at]) && lines[at].includes("|"))
        rows.push(readRow(lines[at++]));
    return {kind: "table", alignments, head: readRow(lines[i]), rows, end: at};
}

/* Whether lines[i] goes on with the item whose mark stands at `indent`: it is indented deeper, or is a paragraph's next line. */
function continuesItem(lines, i, indent) {
    if (isBlank(lines[i]))
        return i + 1 < lines.length && (isBlank(lines[i + 1]) || indentOf(lines[i + 1]) > indent + 1);
    return indentOf(lines[i]) > indent + 1 || (!isBlank(lines[i - 1]) && !ITEM.test(lines[i]) && !beginsBlock(lines, i));
}

function readList(lines, i, depth) {
    const first = ITEM.exec(lines[i]), isOrdered = first[2].length > 1, items = [];
    let at = i;

    while (at < lines.length) {
        const match = ITEM.exec(lines[at]);

        if (!match || isRule(lines[at]) || indentOf(lines[at]) > indentOf(lines[i]) + 1 || (match[2].length > 1) !== isOrdered)
            break;
        const indent = indentOf(lines[at]), inner = [match[3] ?? ""];
        const width = lines[at].length - inner[0].length;

        for (at++; at < lines.length && continuesItem(lines, at, indent); at++)
            inner.push(outdent(lines[at], width));
        items.push(readBlocks(inner, depth + 1));
        while (at + 1 < lines.length && isBlank(lines[at]) && ITEM.test(lines[at + 1])) /* items may stand apart */
            at++;
    }
    return {kind: "list", isOrdered, start: parseInt(first[2], 10), items, end: at};
}

function readParagraph(lines, i) {
    let at = i + 1;

    while (at < lines.length && !isBlank(lines[at]) && !beginsBlock(lines, at))
        at++;
    return {kind: "paragraph", text: lines.slice(i, at).map((line) => line.trimStart()).join("\n").trimEnd(), end: at};
}

function readBlock(lines, i, depth) {
    if (FENCE.test(lines[i]))
        return readFence(lines, i);
    if (HEADING.test(lines[i]))
        return readHeading(lines, i);
    if (isRule(lines[i]))
        return {kind: "rule", end: i + 1};
    if (depth < MAX_NESTING && QUOTE.test(lines[i]))
        return readQuote(lines, i, depth);
    if (depth < MAX_NESTING && ITEM.test(lines[i]))
        return readList(lines, i, depth);
    if (readTableHead(lines, i))
        return readTable(lines, i);
    return readParagraph(lines, i);
}

function readBlocks(lines, depth) {
    const blocks = [];

    for (let i = 0; i < lines.length;) {
        if (isBlank(lines[i])) {
            i++;
            continue;
        }
        const block = readBlock(lines, i, depth);

        block.source = depth === 0 ? lines.slice(i, block.end).join("\n") : "";
        blocks.push(block);
        i = block.end;
    }
    return blocks;
}

/* ---- elements ---- */

function drawCode(block) {
    const head = make("div", {className: "code-head"}, [make("span", {}, [block.language]), makeCopyButton(() => block.text, "the code")]);

    return make("div", {className: "code-block"}, [head, make("pre", {dir: "ltr"}, [make("code", {}, [block.text])])]);
}

function drawTable(block) {
    const drawRow = (tag, cells) => make("tr", {}, block.alignments.map((align, i) => make(tag, {className: align}, inlineNodes(cells[i] ?? ""))));
    const head = make("thead", {}, [drawRow("th", block.head)]), body = make("tbody", {}, block.rows.map((row) => drawRow("td", row)));

    return make("div", {className: "table"}, [make("table", {}, [head, body])]);
}

function drawItem(blocks) {
    const item = make("li");

    blocks.forEach((block, i) => {
        if (i === 0 && block.kind === "paragraph") {
            const task = /^\[([ xX])\] /.exec(block.text);

            item.append(task ? (task[1] === " " ? "☐ " : "☑ ") : "");
            inlineNodes(task ? block.text.slice(4) : block.text).forEach((node) => item.append(node));
        } else {
            item.append(drawBlock(block));
        }
    });
    return item;
}

function drawBlock(block) {
    switch (block.kind) {
    case "code": return drawCode(block);
    case "heading": return make(`h${Math.min(6, block.level + 2)}`, {className: `level-${block.level}`}, inlineNodes(block.text)); /* the page's are h1 and h2 */
    case "rule": return make("hr");
    case "quote": return make("blockquote", {}, block.blocks.map(drawBlock));
    case "table": return drawTable(block);
    case "list": return make(block.isOrdered ? "ol" : "ul", block.isOrdered ? {start: block.start} : {}, block.items.map(drawItem));
    }
    return make("p", {}, inlineNodes(block.text));
}

const drawnBlocks = new WeakMap(); /* the blocks that an element shows */

/* Makes `root` show the text. What it shows already stays as it is, and with it what the reader has selected there. */
function drawMarkdown(root, text) {
    const blocks = readBlocks(text.replaceAll("\r", "").split("\n"), 0), drawn = drawnBlocks.get(root) ?? [];
    let n = 0;

    while (n < blocks.length && n < drawn.length && blocks[n].source === drawn[n].source && blocks[n].kind === drawn[n].kind)
        n++;
    while (root.children.length > n)
        root.lastElementChild.remove();
    for (const block of blocks.slice(n))
        root.append(drawBlock(block));
    drawnBlocks.set(root, blocks);
}
