/* Markdown within a block: emphasis, code, links, line ends. One pass from left to right that makes nodes; its time is linear, whatever the text, and so is the
 * depth of what it makes bounded: a model's answer may be anything. */

const MAX_OPEN = 16;           /* emphasis within emphasis */
const MAX_CODE_SPAN = 10000;   /* characters that are searched for the end of `code` */
const ORDINARY = /(?:[^\\`*_~[!<\nh]|h(?!ttps?:\/\/)){1,1000}/y;
const PUNCTUATION = /[!-/:-@[-`{-~]/;
const WORD = /[\p{L}\p{N}]/u;
const TARGET = /\(\s{0,100}(<[^<>\n]*>|[^\s()<>]*(?:\([^\s()<>]*\)[^\s()<>]*)*)(?:\s{1,100}"[^"\n]*"|\s{1,100}'[^'\n]*')?\s{0,100}\)/y;
const BARE_URL = /https?:\/\/[^\s<>"`]{1,2000}/y;
const AUTOLINK = /<((?:https?:\/\/|mailto:)[^\s<>]+)>/y;

/* The match of a sticky expression at this place, or null. */
function matchAt(expression, text, at) {
    expression.lastIndex = at;
    return expression.exec(text);
}

/* What a link may lead to, as the browser would read it; null: nothing that is followed. Relative addresses would lead to this server. */
function safeUrl(text) {
    try {
        const url = new URL(text);

        return ["http:", "https:", "mailto:"].includes(url.protocol) ? url.href : null;
    } catch {
        return null;
    }
}

function makeLink(url, children) {
    return make("a", {href: url, title: url, target: "_blank", rel: "noopener noreferrer nofollow"}, children);
}

function runLength(text, at) {
    let n = 1;

    while (text[at + n] === text[at])
        n++;
    return n;
}

/* The `code` that begins at the backticks at this place: its text, null if they do not end; and where to go on. */
function readCodeSpan(text, at) {
    const n = runLength(text, at), begin = at + n, limit = Math.min(text.length, begin + MAX_CODE_SPAN);

    for (let i = text.indexOf("`", begin); i >= 0 && i < limit; i = text.indexOf("`", i)) {
        const found = runLength(text, i);

        if (found === n) {
            const code = text.slice(begin, i).replaceAll("\n", " ");
            const isPadded = code.length > 2 && code.startsWith(" ") && code.endsWith(" ") && code.trim() !== "";

            return {code: isPadded ? code.slice(1, -1) : code, end: i + n};
        }
        i += found;
    }
    return {code: null, end: begin};
}

/* For each "[" its "]". */
function matchBrackets(text) {
    const pairs = new Map(), open = [];

    for (let i = 0; i < text.length; i++) {
        if (text[i] === "\\")
            i++;
        else if (text[i] === "`")
            i = readCodeSpan(text, i).end - 1;
        else if (text[i] === "[")
            open.push(i);
        else if (text[i] === "]" && open.length > 0)
            pairs.set(open.pop(), i);
    }
    return pairs;
}

/* Frames are the emphasis that is open: its mark, how many of it, and the nodes since. The first one is the text itself. */
class InlineReader {
    constructor(text, isInLink) {
        this.text = text;
        this.at = 0;
        this.isInLink = isInLink;
        this.brackets = matchBrackets(text);
        this.frames = [{mark: "", count: 0, nodes: []}];
        this.nOpen = {"*": 0, "_": 0, "~": 0};
        this.plain = "";
    }

    read() {
        while (this.at < this.text.length) {
            const ordinary = matchAt(ORDINARY, this.text, this.at);

            if (ordinary) {
                this.plain += ordinary[0];
                this.at += ordinary[0].length;
            } else if (!this.readSpecial(this.text[this.at])) {
                this.plain += this.text[this.at++];
            }
        }
        this.dropFrames(1);
        return this.frames[0].nodes;
    }

    /* Each returns false where the character is just that. */
    readSpecial(c) {
        switch (c) {
        case "\\": return this.readEscape();
        case "`": return this.readCode();
        case "*": case "_": case "~": return this.readEmphasis(c);
        case "[": return this.readLink(this.at);
        case "!": return this.text[this.at + 1] === "[" && this.readLink(this.at + 1);
        case "<": return this.readAutolink();
        case "h": return this.readBareUrl();
        case "\n": return this.readLineEnd();
        }
        return false;
    }

    endPlain() {
        if (this.plain)
            this.frames.at(-1).nodes.push(document.createTextNode(this.plain));
        this.plain = "";
    }

    add(node) {
        this.endPlain();
        this.frames.at(-1).nodes.push(node);
    }

    readEscape() {
        const next = this.text[this.at + 1];

        if (next === "\n") { /* a line end, which comes next anyway */
            this.at++;
            return true;
        }
        if (next === undefined || !PUNCTUATION.test(next))
            return false;
        this.plain += next;
        this.at += 2;
        return true;
    }

    readCode() {
        const {code, end} = readCodeSpan(this.text, this.at);

        if (code === null)
            this.plain += this.text.slice(this.at, end);
        else
            this.add(make("code", {}, [code]));
        this.at = end;
        return true;
    }

    /* A line ends where its writer ended it: models write verses and addresses so. */
    readLineEnd() {
        this.plain = this.plain.trimEnd();
        this.add(make("br"));
        this.at++;
        while (this.text[this.at] === " ")
            this.at++;
        return true;
    }

    /* `at`: of the "[". An image is shown as a link to it, for the page loads nothing from elsewhere. */
    readLink(at) {
        const isImage = at !== this.at, close = this.brackets.get(at);
        const target = close === undefined || (this.isInLink && !isImage) ? null : matchAt(TARGET, this.text, close + 1);
        const url = target && safeUrl(target[1].replace(/^<|>$/g, ""));

        if (!url)
            return false;
        const label = this.text.slice(at + 1, close);
        const nodes = isImage ? [label || "image"] : new InlineReader(label, true).read();

        if (this.isInLink)
            this.plain += label;
        else
            this.add(makeLink(url, nodes));
        this.at = close + 1 + target[0].length;
        return true;
    }

    readAutolink() {
        const match = matchAt(AUTOLINK, this.text, this.at), url = match && safeUrl(match[1]);

        if (!url || this.isInLink)
            return false;
        this.add(makeLink(url, [match[1]]));
        this.at += match[0].length;
        return true;
    }

    readBareUrl() {
        const match = this.isInLink || WORD.test(this.text[this.at - 1] ?? "") ? null : matchAt(BARE_URL, this.text, this.at);
        const found = match ? match[0] : "";
        const trailing = found.includes("(") ? ".,:;!?'*_~]" : ".,:;!?'*_~])"; /* ends a sentence, or closes a bracket around the address */
        let end = found.length;

        while (end > 0 && trailing.includes(found[end - 1]))
            end--;
        const address = found.slice(0, end), url = safeUrl(address);

        if (url)
            this.add(makeLink(url, [address]));
        else
            this.plain += address;
        this.at += end;
        return end > 0;
    }

    readEmphasis(mark) {
        const {text, at} = this, n = runLength(text, at), before = text[at - 1] ?? " ", after = text[at + n] ?? " ";
        const isWithinWord = mark === "_" && WORD.test(before) && WORD.test(after); /* as in file_name_here */
        let left = n;

        this.at += n;
        if (n > 3 || (mark === "~" && n !== 2) || isWithinWord) {
            this.plain += mark.repeat(n);
            return true;
        }
        if (before.trim() !== "")
            left = this.close(mark, left);
        if (left > 0 && after.trim() !== "" && this.frames.length <= MAX_OPEN) {
            this.endPlain();
            this.frames.push({mark, count: left, nodes: []});
            this.nOpen[mark]++;
        } else {
            this.plain += mark.repeat(left);
        }
        return true;
    }

    /* Closes what these marks close; returns how many of them are left. */
    close(mark, left) {
        while (left > 0 && this.nOpen[mark] > 0) {
            let i = this.frames.length - 1;

            while (this.frames[i].mark !== mark)
                i--;
            this.dropFrames(i + 1);
            const frame = this.frames[i], n = Math.min(2, left, frame.count);
            const node = make(mark === "~" ? "del" : n === 2 ? "strong" : "em", {}, frame.nodes);

            left -= n;
            frame.count -= n;
            frame.nodes = [node];
            if (frame.count === 0) {
                this.frames.pop();
                this.nOpen[mark]--;
                this.frames.at(-1).nodes.push(node);
            }
        }
        return left;
    }

    /* Emphasis that nothing closed, from the frame n on, was none: its marks are text. */
    dropFrames(n) {
        this.endPlain();
        for (const frame of this.frames.splice(n)) {
            const nodes = this.frames[n - 1].nodes;

            this.nOpen[frame.mark]--;
            nodes.push(document.createTextNode(frame.mark.repeat(frame.count)));
            for (const node of frame.nodes)
                nodes.push(node);
        }
    }
}

/* The nodes of a text in one block. */
function inlineNodes(text) {
    return new InlineReader(text, false).read();
}
