/* The open conversation as elements. drawMessages() makes them all; updateMessage() follows one that changes. */

const messageViews = new WeakMap(); /* of a message: {reasoning, reasoningText, summary, content, failure, foot, figures} */

const FINISH_WORDS = {length: "cut off at the token limit", stopped: "stopped"};

function formatNumber(n) {
    return n.toLocaleString("en");
}

function formatSeconds(ms) {
    return ms < 9950 ? `${(ms / 1000).toFixed(ms < 995 ? 2 : 1)} s` : `${Math.round(ms / 1000)} s`;
}

/* How many tokens came, how fast. */
function describeRate({nTokens, isCounted, rate}) {
    return `${isCounted ? "" : "about "}${formatNumber(nTokens)} token${nTokens === 1 ? "" : "s"}` + (rate ? ` · ${rate.toFixed(1)} tok/s` : "");
}

function describeAnswer(message) {
    const {figures, finish} = message, parts = [];

    if (figures?.nTokens)
        parts.push(describeRate(figures));
    if (figures?.firstMs !== undefined)
        parts.push(`first after ${formatSeconds(figures.firstMs)}`);
    if (FINISH_WORDS[finish])
        parts.push(FINISH_WORDS[finish]);
    return parts.join(" · ");
}

function describeReasoning(message) {
    const ms = message.figures?.reasoningMs;

    if (message.finish === "" && !message.content)
        return "Thinking…";
    return ms === undefined ? "Thoughts" : `Thought for ${formatSeconds(ms)}`;
}

/* Shows what has changed in an answer. */
function updateMessage(message) {
    const view = messageViews.get(message);

    if (!view || message.role === "user")
        return;
    view.reasoning.hidden = !message.reasoning;
    view.summary.textContent = describeReasoning(message);
    if (message.reasoning)
        drawMarkdown(view.reasoningText, message.reasoning);
    drawMarkdown(view.content, message.content);
    view.content.classList.toggle("waiting", message.finish === "" && !message.content && !message.reasoning);
    view.failure.hidden = !message.error;
    view.failure.textContent = message.error ?? "";
    view.foot.hidden = message.finish === "";
    view.figures.textContent = describeAnswer(message);
}

function drawAnswer(message, isLast, actions) {
    const view = {
        summary: make("summary"), reasoningText: make("div", {className: "markdown", dir: "auto"}), content: make("div", {className: "content markdown", dir: "auto"}),
        failure: make("p", {className: "failure"}), foot: make("div", {className: "foot"}), figures: make("span", {className: "figures"}),
    };

    view.reasoning = make("details", {className: "reasoning"}, [view.summary, view.reasoningText]);
    if (message.content)
        view.foot.append(makeCopyButton(() => message.content, "the answer"));
    if (isLast)
        view.foot.append(makeButton(message.error ? "Try again" : "Regenerate", actions.regenerate));
    view.foot.append(view.figures);
    messageViews.set(message, view);
    updateMessage(message);
    return make("article", {className: "message assistant", "aria-label": "Answer"}, [view.reasoning, view.content, view.failure, view.foot]);
}

/* The user's text in a field of its own, in the place of `article`. */
function editMessage(article, message, onSave) {
    const area = make("textarea", {value: message.content, rows: 1, dir: "auto", "aria-label": "Your message"});
    const cancel = () => {
        form.replaceWith(article);
        article.querySelector("button").focus();
    };
    const form = make("form", {className: "message user editing"}, [area, make("div", {className: "buttons"}, [
        makeButton("Cancel", cancel), make("button", {type: "submit", className: "primary"}, ["Send"])])]);

    form.addEventListener("submit", (event) => {
        event.preventDefault();
        if (area.value.trim())
            onSave(area.value);
    });
    form.addEventListener("keydown", (event) => {
        if (event.key === "Escape") {
            event.stopPropagation(); /* it is not to stop an answer */
            cancel();
        } else if (sendsMessage(event) && event.target === area) {
            event.preventDefault();
            form.requestSubmit();
        }
    });
    article.replaceWith(form);
    fitToText(area);
    area.addEventListener("input", () => fitToText(area));
    area.focus();
}

function drawQuestion(message, isLast, actions) {
    const foot = make("div", {className: "foot"});
    const article = make("article", {className: "message user", "aria-label": "You"}, [
        make("div", {className: "content", dir: "auto"}, [message.content]), foot]);

    if (isLast)
        foot.append(makeButton("Edit", () => editMessage(article, message, actions.edit), {"aria-label": "Edit your message"}));
    else
        foot.remove();
    return article;
}

/* What stands where there are no messages yet. */
function drawWelcome(props) {
    const lines = [make("h2", {}, [props ? props.model : "m40-llm"])];

    if (props && !props.chat_template)
        lines.push(make("p", {}, ["This model has no chat template, so there is no conversation: it continues what you write."]));
    else
        lines.push(make("p", {}, ["What you write goes to this server and nowhere else."]));
    return make("div", {className: "welcome"}, lines);
}

/* actions: {regenerate(), edit(text)}, of the last answer and the last question. */
function drawMessages(chat, props, isRunning, actions) {
    const lastAnswer = isRunning ? undefined : chat.messages.at(-1), lastQuestion = isRunning ? undefined : chat.messages.findLast(({role}) => role === "user");
    const articles = chat.messages.map((message) => message.role === "user" ? drawQuestion(message, message === lastQuestion, actions)
                                                                           : drawAnswer(message, message === lastAnswer, actions));

    byId("messages").replaceChildren(...(articles.length > 0 ? articles : [drawWelcome(props)]));
}
