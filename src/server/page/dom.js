/* Helpers around the document. What a model or a user wrote goes in as text, never as HTML. */

/* The element with this id, which the page has. */
function byId(id) {
    return document.getElementById(id);
}

/* An element with properties (those with a "-" and role are attributes) and children: nodes and strings. */
function make(tag, properties = {}, children = []) {
    const element = document.createElement(tag);

    for (const [name, value] of Object.entries(properties)) {
        if (name.includes("-") || name === "role")
            element.setAttribute(name, value);
        else
            element[name] = value;
    }
    for (const child of children)
        element.append(child);
    return element;
}

function makeButton(label, onClick, properties = {}) {
    const button = make("button", {type: "button", ...properties}, [label]);

    button.addEventListener("click", onClick);
    return button;
}

/* One of the drawings at the top of chat.html. */
function makeIcon(name) {
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    const use = document.createElementNS("http://www.w3.org/2000/svg", "use");

    svg.setAttribute("class", "icon");
    svg.setAttribute("aria-hidden", "true");
    use.setAttribute("href", `#icon-${name}`);
    svg.append(use);
    return svg;
}

/* Browsers have navigator.clipboard on https and localhost alone; elsewhere a selection is copied. */
async function copyText(text) {
    if (navigator.clipboard) {
        await navigator.clipboard.writeText(text);
        return;
    }
    const area = make("textarea", {value: text, readOnly: true, className: "hidden"});
    const focused = document.activeElement;

    document.body.append(area);
    area.select();
    const copied = document.execCommand("copy");
    area.remove();
    if (focused)
        focused.focus();
    if (!copied)
        throw new Error("not copied");
}

/* A button that copies what getText() returns, and says so. */
function makeCopyButton(getText, what) {
    const button = makeButton("Copy", async () => {
        try {
            await copyText(getText());
            button.textContent = "Copied";
        } catch {
            button.textContent = "Not allowed";
        }
        setTimeout(() => { button.textContent = "Copy"; }, 2000);
    }, {"aria-label": `Copy ${what}`});

    return button;
}

/* Read out by screen readers. */
function speak(text) {
    byId("spoken").textContent = text.slice(0, 2000);
}
