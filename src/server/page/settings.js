/* The dialogs: settings and key; and the theme. */

/* name: in the conversation's settings, where a missing one is the server's to choose; of numbers also in the API. */
const SETTINGS = [
    {name: "system", kind: "text", label: "System prompt", hint: "What the model is told before the conversation"},
    {name: "temperature", kind: "number", label: "Temperature", min: 0, max: 2, usual: "1", hint: "0 takes the likeliest token"},
    {name: "top_p", kind: "number", label: "Top p", min: 0, max: 1, usual: "1", hint: "Likeliest tokens of this sum"},
    {name: "top_k", kind: "number", label: "Top k", min: 0, max: 1e9, step: 1, usual: "off", hint: "So many likeliest tokens"},
    {name: "min_p", kind: "number", label: "Min p", min: 0, max: 1, usual: "off", hint: "Share of the likeliest one"},
    {name: "max_tokens", kind: "number", label: "Max tokens", min: 1, max: 1e9, step: 1, usual: "what fits", hint: "Of an answer"},
    {name: "seed", kind: "number", label: "Seed", min: 0, max: Number.MAX_SAFE_INTEGER, step: 1, usual: "random", hint: "Same seed, same answer"},
    {name: "repetition_penalty", kind: "number", label: "Repetition penalty", min: 0.01, max: 100, usual: "1", hint: "1 is none"},
    {name: "presence_penalty", kind: "number", label: "Presence penalty", min: -2, max: 2, usual: "0", hint: "For a token that was there"},
    {name: "frequency_penalty", kind: "number", label: "Frequency penalty", min: -2, max: 2, usual: "0", hint: "For each time it was there"},
    {name: "thinking", kind: "choice", label: "Thinking", choices: [["", "default"], ["on", "on"], ["off", "off"]], hint: "If the model can choose"},
    {name: "stop", kind: "lines", label: "Stop strings", hint: "One a line: an answer ends before one of them"},
];

/* ---- the dialog: its fields in the table's order ---- */

function drawControl(setting) {
    const id = `setting-${setting.name}`, hinted = {id, "aria-describedby": `${id}-hint`};

    switch (setting.kind) {
    case "number":
        return make("input", {...hinted, type: "number", min: setting.min, max: setting.max, step: setting.step ?? "any", placeholder: setting.usual,
                              inputMode: setting.min < 0 ? "text" : setting.step ? "numeric" : "decimal", autocomplete: "off"});
    case "choice":
        return make("select", hinted, setting.choices.map(([value, label]) => make("option", {value}, [label])));
    }
    return make("textarea", {...hinted, rows: setting.kind === "text" ? 4 : 2, dir: "auto", spellcheck: false});
}

function drawSettings() {
    for (const setting of SETTINGS) {
        const control = drawControl(setting);
        const label = make("label", {htmlFor: control.id}, [setting.label]);
        const hint = make("small", {id: `${control.id}-hint`}, [setting.hint]);

        byId("settings-fields").append(make("div", {className: `field ${setting.kind}`}, [label, control, hint]));
    }
}

function showSettings(settings) {
    for (const {name, kind} of SETTINGS) {
        const value = settings[name] ?? "";

        byId(`setting-${name}`).value = kind === "lines" ? [value].flat().join("\n") : value;
    }
    byId("settings-failure").hidden = true;
}

/* What is wrong with a control's value; null: nothing. */
function controlFailure(setting, control) {
    const {valid} = control.validity;
    const isWrong = setting.kind === "number" && !valid;
    const range = setting.max >= 1e9 ? `${setting.min} or more` : `from ${setting.min} to ${setting.max}`;

    control.setAttribute("aria-invalid", String(isWrong));
    return isWrong ? `${setting.label} must be a ${setting.step ? "whole " : ""}number ${range}, or nothing.` : null;
}

/* What the dialog says, or null, and then it tells what is wrong. */
function readSettings() {
    const settings = {};
    let wrong = null;

    for (const setting of SETTINGS) {
        const control = byId(`setting-${setting.name}`), failure = controlFailure(setting, control);
        const value = setting.kind === "number" ? control.valueAsNumber : control.value;

        if (failure && !wrong)
            wrong = {failure, control};
        if (setting.kind === "lines" && value)
            settings[setting.name] = value.split("\n").filter((line) => line !== "");
        else if (setting.kind === "number" ? !Number.isNaN(value) : value.trim() !== "")
            settings[setting.name] = value;
    }
    if (!wrong)
        return settings;
    byId("settings-failure").textContent = wrong.failure;
    byId("settings-failure").hidden = false;
    wrong.control.focus();
    return null;
}

/* onSave gets the new settings. */
function setUpSettings(getSettings, onSave) {
    const dialog = byId("settings");

    drawSettings();
    byId("open-settings").addEventListener("click", () => {
        showSettings(getSettings());
        dialog.showModal();
    });
    byId("settings-reset").addEventListener("click", () => showSettings({}));
    byId("settings-cancel").addEventListener("click", () => dialog.close());
    byId("settings-form").addEventListener("submit", (event) => {
        event.preventDefault();
        const settings = readSettings();

        if (settings) {
            onSave(settings);
            dialog.close();
        }
    });
}

/* ---- the key ---- */

let keyQuestion = null; /* the promise, while the dialog is open */

function openKeyDialog(refused) {
    const dialog = byId("key");

    byId("key-reason").textContent = refused ? "The server does not accept this key." : "This server wants a key.";
    byId("key-value").value = refused;
    dialog.returnValue = "";
    dialog.showModal();
    byId("key-value").select();
    return new Promise((resolve) => {
        dialog.addEventListener("close", () => {
            keyQuestion = null;
            resolve(dialog.returnValue === "use");
        }, {once: true});
    });
}

/* Asks the user for a key in place of the one that was refused (empty: none was sent). Resolves to whether there is one to try. */
function askKey(refused) {
    if (!keyQuestion && readKey() !== refused) /* another request has asked already */
        return Promise.resolve(true);
    keyQuestion ??= openKeyDialog(refused);
    return keyQuestion;
}

function setUpKey() {
    const dialog = byId("key");

    byId("key-cancel").addEventListener("click", () => dialog.close());
    byId("key-form").addEventListener("submit", (event) => {
        event.preventDefault();
        const key = byId("key-value").value.trim();

        if (!/^[\x21-\x7e]+$/.test(key)) { /* what a header can hold */
            byId("key-reason").textContent = "A key is letters, digits and signs, without spaces.";
            return;
        }
        writeKey(key, byId("key-keep").checked);
        dialog.close("use");
    });
}

/* ---- the theme ---- */

const THEMES = ["automatic", "light", "dark"];

function showTheme(theme) {
    const button = byId("theme");

    document.documentElement.dataset.theme = theme;
    button.title = `Theme: ${theme}`;
    button.setAttribute("aria-label", button.title);
}

function setUpTheme() {
    const stored = readStored("localStorage", "theme");
    let theme = THEMES.includes(stored) ? stored : "automatic";

    showTheme(theme);
    byId("theme").addEventListener("click", () => {
        theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
        writeStored("localStorage", "theme", theme);
        showTheme(theme);
        speak(`Theme: ${theme}`);
    });
}
