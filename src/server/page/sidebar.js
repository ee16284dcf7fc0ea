/* The list of conversations, and the notice at the page's edge. */

function titleOf(chat) {
    return chat.title || "New chat";
}

/* actions: {open(chat), remove(chat)} */
function drawSidebar(chats, openChat, isRunning, actions) {
    const items = chats.map((chat) => {
        const open = makeButton(titleOf(chat), () => actions.open(chat), {className: "open-chat", dir: "auto", title: titleOf(chat)});
        const remove = make("button", {type: "button", className: "icon-button remove-chat", "aria-label": `Delete: ${titleOf(chat)}`, title: "Delete"}, [makeIcon("delete")]);

        if (chat === openChat)
            open.setAttribute("aria-current", "true");
        open.classList.toggle("running", isRunning(chat));
        remove.addEventListener("click", () => actions.remove(chat));
        return make("li", {}, [open, remove]);
    });
    byId("chat-list").replaceChildren(...items);
}

/* On a narrow screen the list lies over the page. */
function showMenu(isOpen) {
    document.body.classList.toggle("menu-open", isOpen);
    byId("open-menu").setAttribute("aria-expanded", String(isOpen));
    document.querySelectorAll("header, main, footer").forEach((part) => { part.inert = isOpen; });
    if (isOpen)
        byId("new-chat").focus();
}

function isMenuOpen() {
    return document.body.classList.contains("menu-open");
}

function setUpMenu() {
    byId("open-menu").addEventListener("click", () => showMenu(true));
    byId("backdrop").addEventListener("click", () => showMenu(false));
    matchMedia("(max-width: 50rem)").addEventListener("change", () => showMenu(false));
    document.addEventListener("keydown", (event) => {
        if (event.key === "Escape" && isMenuOpen()) {
            event.stopImmediatePropagation();
            showMenu(false);
            byId("open-menu").focus();
        }
    });
}

let noticeTimer = 0;

function hideNotice() {
    byId("notice").hidden = true;
}

/* A line that goes away by itself, with a button for what can be done about it (label empty: none). */
function showNotice(text, label = "", onClick = () => {}) {
    const button = byId("notice-button");

    byId("notice-text").textContent = text;
    button.textContent = label;
    button.hidden = !label;
    button.onclick = () => {
        hideNotice();
        onClick();
    };
    byId("notice").hidden = false;
    clearTimeout(noticeTimer);
    noticeTimer = setTimeout(hideNotice, 10000);
}
