/* What the page does: conversations are opened, sent, answered, stopped. */

const READY_MS = 2000; /* between looks at a server that is not ready */
const SAVE_MS = 500;     /* between savings of an answer that is being written */

const state = {
    chats: [],       /* the latest first; one that is new and empty is not in it */
    chat: null,      /* the open one */
    props: null,     /* /props, once the server is ready */
    runs: new Map(), /* by conversation: the answer that is being written */
    isAtEnd: true,   /* the reader follows the answer */
    isDrawing: false,
    isMeeting: false, /* the server is asked, again and again, whether it is ready */
    isLeaving: false, /* the page is closed or loaded again: answers break off, and that is no failure */
};

/* ---- drawing ---- */

function drawFigures() {
    const run = state.runs.get(state.chat), nContext = state.props?.limits.n_ctx;
    const at = state.chat.messages.findLastIndex(({figures}) => figures?.nTotal);
    const nTotal = at >= 0 ? state.chat.messages[at].figures.nTotal : 0;
    const isWhole = at === state.chat.messages.length - 1;

    byId("rate").textContent = run ? (run.nPieces ? describeRate(measure(run)) : "waiting") : "";
    byId("context").hidden = !nContext || !nTotal;
    if (!nContext || !nTotal)
        return;
    byId("context-text").textContent = `context ${isWhole ? "" : "over "}${formatNumber(nTotal)} of ${formatNumber(nContext)}`;
    byId("context-bar").style.width = `${Math.min(100, 100 * nTotal / nContext)}%`;
    byId("context").classList.toggle("nearly-full", nTotal > 0.9 * nContext);
}

function followEnd() {
    const scroller = byId("scroller");

    if (state.isAtEnd)
        scroller.scrollTop = scroller.scrollHeight;
    byId("to-end").hidden = state.isAtEnd;
}

function drawButtons() {
    const isRunning = state.runs.has(state.chat);

    byId("send").hidden = isRunning;
    byId("stop").hidden = !isRunning;
    byId("send").disabled = byId("draft").value.trim() === "";
}

function drawList() {
    drawSidebar(state.chats, state.chat, (chat) => state.runs.has(chat), {open: openChat, remove: removeChat});
}

function drawAll() {
    drawMessages(state.chat, state.props, state.runs.has(state.chat), {regenerate, edit: editLast});
    drawList();
    drawButtons();
    drawFigures();
    followEnd();
}

/* At most once a frame: pieces of an answer may come faster. */
function drawSoon() {
    if (state.isDrawing)
        return;
    state.isDrawing = true;
    requestAnimationFrame(() => {
        const run = state.runs.get(state.chat);

        state.isDrawing = false;
        if (run)
            updateMessage(run.message);
        drawFigures();
        followEnd();
    });
}

/* ---- conversations ---- */

function saveChat(chat) {
    if (!writeChat(chat))
        showNotice("This browser keeps no more: the conversation is lost with the page. Deleting others may make room.");
}

function openChat(chat) {
    state.chat = chat;
    state.isAtEnd = true;
    hideNotice();
    showMenu(false);
    drawAll();
    if (matchMedia("(hover: hover)").matches) /* elsewhere it would bring a keyboard up */
        byId("draft").focus();
}

function newChat() {
    openChat(makeChat(readStored("localStorage", "settings") ?? state.chat?.settings ?? {}));
}

function removeChat(chat) {
    const at = state.chats.indexOf(chat);

    state.runs.get(chat)?.controller.abort();
    state.chats.splice(at, 1);
    deleteChat(chat);
    if (chat === state.chat) {
        newChat();
    } else {
        drawList();
        (byId("chat-list").children[Math.min(at, state.chats.length - 1)]?.firstChild ?? byId("new-chat")).focus();
    }
    showNotice(`Deleted: ${titleOf(chat)}`, "Undo", () => {
        state.chats.splice(at, 0, chat);
        saveChat(chat);
        openChat(chat);
    });
}

/* Another window of this page has changed something. */
function readChanges() {
    const chats = readChats(), isOpenHere = (id) => [...state.runs.keys(), state.chat].find((chat) => chat.id === id);

    /* What is open here stays the object it is; an answer that is being written here is this window's. */
    state.chats = chats.map((chat) => {
        const own = isOpenHere(chat.id);

        if (own && !state.runs.has(own))
            Object.assign(own, chat);
        return own ?? chat;
    });
    if (state.runs.has(state.chat) || document.querySelector(".editing"))
        drawList();
    else
        drawAll();
}

/* ---- answers ---- */

/* The figures of a run: as the server counted them, or, before it has, as pieces came. */
function measure(run) {
    const nTokens = run.usage?.completion_tokens ?? run.nPieces, ms = run.lastAt - run.firstAt;
    const figures = {nTokens, isCounted: Boolean(run.usage)};

    if (run.nPieces > 1 && ms > 0)
        figures.rate = 1000 * (nTokens - 1) / ms;
    if (run.firstAt)
        figures.firstMs = run.firstAt - run.startAt;
    if (run.thoughtAt)
        figures.reasoningMs = run.thoughtAt - run.firstAt;
    if (run.usage)
        figures.nTotal = run.usage.prompt_tokens + run.usage.completion_tokens;
    return figures;
}

function takePiece(run, piece) {
    const {message} = run, now = performance.now();

    if (piece.content || piece.reasoning) {
        run.nPieces++;
        run.firstAt ||= now;
        run.lastAt = now;
    }
    if (piece.reasoning)
        message.reasoning += piece.reasoning;
    if (piece.content) {
        if (message.reasoning)
            run.thoughtAt ||= now;
        message.content += piece.content;
    }
    if (piece.finish)
        run.finish = piece.finish;
    if (piece.usage)
        run.usage = piece.usage;
    message.figures = measure(run);
    if (now - run.savedAt > SAVE_MS) {
        run.savedAt = now;
        saveChat(run.chat);
    }
    drawSoon();
}

function endRun(run, finish, error) {
    const {chat, message} = run;

    message.finish = finish;
    if (error)
        message.error = error;
    state.runs.delete(chat);
    chat.changed = Date.now();
    if (state.chats.includes(chat)) /* it was not deleted meanwhile */
        saveChat(chat);
    if (chat === state.chat) {
        const focused = document.activeElement;

        drawAll();
        if (focused === byId("stop") || focused === document.body)
            byId("draft").focus({preventScroll: true});
        speak(error ? `Failed: ${error}` : `${finish === "stopped" ? "Stopped. " : ""}${messageViews.get(message).content.textContent}`);
    } else {
        drawList();
    }
}

/* Appends the next answer to a conversation. */
async function answer(chat) {
    const message = {role: "assistant", content: "", reasoning: "", finish: ""};
    const run = {chat, message, controller: new AbortController(), startAt: performance.now(), firstAt: 0, lastAt: 0, thoughtAt: 0, savedAt: performance.now(),
                 nPieces: 0, usage: null, finish: "stop"};

    chat.messages.push(message);
    state.runs.set(chat, run);
    saveChat(chat);
    drawAll();
    speak("Waiting for the answer");
    try {
        for await (const piece of readAnswer(chat, Boolean(state.props.chat_template), run.controller.signal))
            takePiece(run, piece);
        endRun(run, run.finish);
    } catch (error) {
        if (error.name === "AbortError" || state.isLeaving)
            endRun(run, "stopped");
        else
            endRun(run, "failed", error instanceof ApiError ? error.message : `The page failed: ${error.message}`);
        if (error.status === 0 && !state.isLeaving)
            meetServer(); /* it may come back with another model */
    }
}

function stop() {
    state.runs.get(state.chat)?.controller.abort();
}

/* Puts a question at the conversation's end and has it answered. */
function ask(text) {
    const {chat} = state;

    if (!state.props) {
        showNotice("The server is not ready yet.");
        return false;
    }
    chat.messages.push({role: "user", content: text});
    chat.title ||= text.trim().replace(/\s+/g, " ").slice(0, 60);
    chat.changed = Date.now();
    state.chats = [chat, ...state.chats.filter((other) => other !== chat)];
    state.isAtEnd = true;
    answer(chat);
    return true;
}

function regenerate() {
    if (state.runs.has(state.chat) || !state.props)
        return;
    if (state.chat.messages.at(-1)?.role === "assistant")
        state.chat.messages.pop();
    state.isAtEnd = true;
    answer(state.chat);
    byId("draft").focus({preventScroll: true});
}

/* Asks the last question again in other words. */
function editLast(text) {
    const {messages} = state.chat, at = messages.findLastIndex(({role}) => role === "user");

    if (state.runs.has(state.chat) || !state.props)
        return;
    messages.splice(at);
    if (at === 0)
        state.chat.title = "";
    ask(text);
    byId("draft").focus({preventScroll: true});
}

/* ---- the composer ---- */

/* Enter, but not within an input method's word; a phone's Enter makes lines, for it has no Shift+Enter. Ctrl+Enter does it anywhere. */
function sendsMessage(event) {
    return event.key === "Enter" && !event.shiftKey && !event.isComposing && (event.ctrlKey || event.metaKey || matchMedia("(hover: hover)").matches);
}

function fitToText(area) {
    area.style.height = "auto";
    area.style.height = `${area.scrollHeight + area.offsetHeight - area.clientHeight}px`;
}

function send() {
    const draft = byId("draft"), text = draft.value;

    if (text.trim() === "" || state.runs.has(state.chat) || !ask(text))
        return;
    draft.value = "";
    fitToText(draft);
    drawButtons();
}

function setUpComposer() {
    const draft = byId("draft");

    draft.addEventListener("input", () => {
        fitToText(draft);
        drawButtons();
    });
    draft.addEventListener("keydown", (event) => {
        if (sendsMessage(event)) {
            event.preventDefault();
            send();
        }
    });
    byId("composer").addEventListener("submit", (event) => {
        event.preventDefault();
        send();
    });
    byId("stop").addEventListener("click", stop);
    document.addEventListener("keydown", (event) => {
        if (event.key === "Escape" && !event.isComposing && !document.querySelector("dialog[open]"))
            stop();
    });
}

function setUpScrolling() {
    const scroller = byId("scroller");

    scroller.addEventListener("scroll", () => {
        state.isAtEnd = scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < 40;
        byId("to-end").hidden = state.isAtEnd;
    }, {passive: true});
    byId("to-end").addEventListener("click", () => {
        state.isAtEnd = true;
        followEnd();
        byId("draft").focus({preventScroll: true});
    });
    new ResizeObserver(followEnd).observe(scroller);
}

/* ---- the server ---- */

/* "ready", "starting", "draining", or "" where nobody answers. */
async function readHealth() {
    try {
        return (await (await fetch("/health")).json()).status;
    } catch {
        return "";
    }
}

function showServer(text) {
    byId("device").textContent = text;
}

async function waitUntilReady() {
    const words = {starting: "the model is being loaded …", draining: "the server is shutting down …"};

    for (let health = await readHealth(); health !== "ready"; health = await readHealth()) {
        showServer(words[health] ?? "the server does not answer");
        await new Promise((resolve) => { setTimeout(resolve, READY_MS); });
    }
}

function showProps() {
    const {model, device, device_name: deviceName, chat_template: template} = state.props;

    byId("failure").hidden = true;
    byId("model").textContent = model;
    document.title = `${model} – m40-llm`;
    byId("draft").placeholder = template ? `Message ${model}` : "A text to continue";
    showServer(`${device} · ${deviceName}`);
    if (!document.querySelector(".editing"))
        drawAll();
}

/* Waits until the server is ready, and learns what it serves. */
async function meetServer() {
    if (state.isMeeting)
        return;
    state.isMeeting = true;
    await waitUntilReady();
    try {
        state.props = await (await request("/props")).json();
        showProps();
    } catch (error) {
        showServer("");
        showFailure(error.message);
    }
    state.isMeeting = false;
}

/* Without the server's properties nothing works: what is wrong, and a way to try again. */
function showFailure(message) {
    byId("failure").replaceChildren(message, makeButton("Try again", meetServer));
    byId("failure").hidden = false;
}

/* ---- start ---- */

function start() {
    setUpTheme();
    setUpKey();
    setUpMenu();
    setUpComposer();
    setUpScrolling();
    setUpSettings(() => state.chat.settings, (settings) => {
        state.chat.settings = settings;
        writeStored("localStorage", "settings", settings);
        if (state.chats.includes(state.chat))
            saveChat(state.chat);
    });
    byId("new-chat").addEventListener("click", newChat);
    window.addEventListener("beforeunload", () => {
        state.isLeaving = true;
        state.runs.forEach((run) => writeChat(run.chat));
    });
    window.addEventListener("pageshow", () => { state.isLeaving = false; });
    window.addEventListener("storage", (event) => {
        if (event.key === null || event.key.startsWith(CHAT_PREFIX))
            readChanges();
    });
    state.chats = readChats();
    openChat(state.chats[0] ?? makeChat(readStored("localStorage", "settings") ?? {}));
    meetServer();
}

start();
