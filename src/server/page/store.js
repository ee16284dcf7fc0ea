/* What this browser keeps: conversations, one item each, settings, the theme, the key. Where it keeps nothing (a private window, a full store), the page works on
 * with what it has in memory.
 *
 * A conversation: {id, title, changed (ms), settings, messages}. A message: {role, content}, and of an answer also reasoning, finish (why it ended, "" while it is
 * being written), error, and figures (see answers in chat.js). */

const PREFIX = "m40llm.";
const CHAT_PREFIX = PREFIX + "chat.";

/* place: "localStorage" or "sessionStorage". A browser may refuse even to name them. */
function readStored(place, name) {
    try {
        return JSON.parse(window[place].getItem(PREFIX + name));
    } catch {
        return null;
    }
}

/* false: it is not kept. null deletes. */
function writeStored(place, name, value) {
    try {
        if (value === null)
            window[place].removeItem(PREFIX + name);
        else
            window[place].setItem(PREFIX + name, JSON.stringify(value));
        return true;
    } catch {
        return false;
    }
}

/* The key is forgotten with the window, unless the user wants it kept. */
function readKey() {
    return readStored("sessionStorage", "key") ?? readStored("localStorage", "key") ?? "";
}

function writeKey(key, isKept) {
    writeStored("sessionStorage", "key", key);
    writeStored("localStorage", "key", isKept ? key : null);
}

/* What is stored may be of another version of the page, or of another program of this origin. */
function isChat(chat) {
    return typeof chat?.id === "string" && Array.isArray(chat.messages) &&
        chat.messages.every((message) => (message?.role === "user" || message?.role === "assistant") && typeof message.content === "string");
}

function readChat(id) {
    const chat = readStored("localStorage", `chat.${id}`);

    if (!isChat(chat) || chat.id !== id)
        return null;
    for (const message of chat.messages) {
        if (message.finish === "") /* the page was left meanwhile */
            message.finish = "stopped";
    }
    return {title: "", changed: 0, settings: {}, ...chat};
}

/* All, the latest first. */
function readChats() {
    const chats = [];

    try {
        for (let i = 0; i < localStorage.length; i++) {
            const name = localStorage.key(i), chat = name.startsWith(CHAT_PREFIX) ? readChat(name.slice(CHAT_PREFIX.length)) : null;

            if (chat)
                chats.push(chat);
        }
    } catch {
        /* there is no store */
    }
    return chats.sort((a, b) => b.changed - a.changed);
}

function writeChat(chat) {
    return writeStored("localStorage", `chat.${chat.id}`, chat);
}

function deleteChat(chat) {
    writeStored("localStorage", `chat.${chat.id}`, null);
}

function makeChat(settings) {
    const id = Array.from(crypto.getRandomValues(new Uint32Array(2)), (n) => n.toString(36)).join("");

    return {id, title: "", changed: Date.now(), settings: {...settings}, messages: []};
}
