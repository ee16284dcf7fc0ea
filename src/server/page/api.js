/* The server (docs/api.md). */

const TEXT_TOKENS = 256; /* of an answer that continues a text, where the settings do not say */

/* status 0: the server was not reached, or the answer broke off. */
class ApiError extends Error {
    constructor(status, message) {
        super(message);
        this.status = status;
    }
}

async function readError(reply) {
    try {
        return new ApiError(reply.status, (await reply.json()).error.message);
    } catch {
        return new ApiError(reply.status, `The server answered ${reply.status} ${reply.statusText}.`);
    }
}

/* The answer, when it is a good one; anything else is thrown. Where the server wants a key, or another one, askKey (settings.js) gets it from the user. */
async function request(path, options = {}) {
    for (;;) {
        const key = readKey(), headers = {...options.headers};
        let reply;

        if (key)
            headers.Authorization = `Bearer ${key}`;
        try {
            reply = await fetch(path, {...options, headers});
        } catch (error) {
            if (error.name === "AbortError")
                throw error;
            throw new ApiError(0, "The server does not answer. Is it still running?");
        }
        if (reply.ok)
            return reply;
        if (reply.status !== 401 || !await askKey(key))
            throw await readError(reply);
    }
}

/* The fields of the settings that the API has, as it wants them. */
function samplingFields(settings) {
    const fields = {};

    for (const {name, kind} of SETTINGS) {
        if (kind === "number" && settings[name] !== undefined)
            fields[name] = settings[name];
    }
    if (settings.stop)
        fields.stop = settings.stop;
    return fields;
}

function chatMessages(chat) {
    const messages = chat.settings.system ? [{role: "system", content: chat.settings.system}] : [];

    for (const {role, content, reasoning} of chat.messages) {
        if (role === "user" || content)
            messages.push({role, content, ...(reasoning ? {reasoning_content: reasoning} : {})});
    }
    return messages;
}

/* A model without a chat template continues what is there. */
function chatText(chat) {
    const texts = chat.messages.map(({role, content}, i) => role === "user" && i > 0 ? `\n${content}` : content);

    return (chat.settings.system ? `${chat.settings.system}\n` : "") + texts.join("");
}

/* What the server is asked for the next answer: path and body. */
function answerRequest(chat, hasTemplate) {
    const body = {stream: true, stream_options: {include_usage: true}, ...samplingFields(chat.settings)};

    if (!hasTemplate)
        return {path: "/v1/completions", body: {max_tokens: TEXT_TOKENS, ...body, prompt: chatText(chat)}};
    body.messages = chatMessages(chat);
    if (chat.settings.thinking)
        body.chat_template_kwargs = {enable_thinking: chat.settings.thinking === "on"};
    return {path: "/v1/chat/completions", body};
}

async function readPiece(reader) {
    try {
        return await reader.read();
    } catch (error) {
        if (error.name === "AbortError")
            throw error;
        return {done: true};
    }
}

/* The data of a stream's events, up to [DONE]. */
async function* readEvents(reply) {
    const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";

    try {
        for (;;) {
            const {value, done} = await readPiece(reader);

            if (done)
                throw new ApiError(0, "The answer broke off: the connection was closed.");
            const lines = (rest + value).split("\n");
            rest = lines.pop();
            for (const line of lines) {
                const data = line.startsWith("data:") ? line.slice(5).trim() : "";

                if (data === "[DONE]")
                    return;
                if (data)
                    yield JSON.parse(data);
            }
        }
    } finally {
        reader.cancel().catch(() => {}); /* the connection, where more would come */
    }
}

/* Pieces of the next answer: {content, reasoning, finish, usage}, each of which may be missing. Aborting the signal ends it with an AbortError. */
async function* readAnswer(chat, hasTemplate, signal) {
    const {path, body} = answerRequest(chat, hasTemplate);
    const reply = await request(path, {method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify(body), signal});

    for await (const event of readEvents(reply)) {
        if (event.error)
            throw new ApiError(reply.status, event.error.message);
        const choice = event.choices?.[0];

        yield {content: choice?.delta?.content ?? choice?.text, reasoning: choice?.delta?.reasoning_content, finish: choice?.finish_reason, usage: event.usage};
    }
}
