/* strftime as the C locale has it, of a time without a zone; and reading a time. */
#include "tokenizer/template/builtins.h"

#include <stdio.h>

static bool is_leap(int year)
{
    return (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
}

static int days_before(const struct m40_template_time *t)
{
    static const int before[] = {0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334};

    return before[t->month - 1] + t->day - 1 + (t->month > 2 && is_leap(t->year));
}

/* 0: Sunday. */
static int week_day(const struct m40_template_time *t)
{
    int y = t->year - 1;

    return (1 + y + y / 4 - y / 100 + y / 400 + days_before(t)) % 7;
}

/* The week that ISO 8601 counts it in, and that week's year. */
static int iso_week(const struct m40_template_time *t, int *year)
{
    int monday_based = (week_day(t) + 6) % 7, day = days_before(t), week = (day - monday_based + 10) / 7;
    struct m40_template_time last = {.year = t->year - 1, .month = 12, .day = 31};

    *year = t->year;
    if (week < 1) {
        if (last.year < 1) { /* the year 0 has no calendar here */
            *year = 0;
            return 52;
        }
        return iso_week(&last, year);
    }
    if (week == 53 && day - monday_based + 3 >= 365 + is_leap(t->year)) {
        ++*year;
        return 1;
    }
    return week;
}

/* Two digits at p. */
static int two_digits(const char *p)
{
    return (p[0] - '0') * 10 + p[1] - '0';
}

bool m40_template_parse_time(const char *text, struct m40_template_time *out)
{
    static const char pattern[] = "0000-00-00T00:00:00"; /* 0: a digit */
    static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    struct m40_template_time t = {0};
    size_t n = strlen(text);

    if (n != 10 && n != 19)
        return false;
    for (size_t i = 0; i < n; i++)
        if (pattern[i] == '0' ? text[i] < '0' || text[i] > '9' : text[i] != pattern[i] && !(pattern[i] == 'T' && text[i] == ' '))
            return false;
    t.year = two_digits(text) * 100 + two_digits(text + 2);
    t.month = (uint8_t)two_digits(text + 5);
    t.day = (uint8_t)two_digits(text + 8);
    if (n == 19) {
        t.hour = (uint8_t)two_digits(text + 11);
        t.minute = (uint8_t)two_digits(text + 14);
        t.second = (uint8_t)two_digits(text + 17);
    }
    *out = t;
    return t.year >= 1 && t.month >= 1 && t.month <= 12 && t.day >= 1 && t.day <= days[t.month - 1] + (t.month == 2 && is_leap(t.year)) &&
           t.hour < 24 && t.minute < 60 && t.second < 60;
}

static const char *const day_names[] = {"Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"};
static const char *const month_names[] = {"January", "February", "March",     "April",   "May",      "June",
                                          "July",    "August",   "September", "October", "November", "December"};

/* A number of `width` digits; flag: '-' none are filled up, '_' with spaces, '0' with zeros, 0: as `fill` says. */
static void put_number(struct m40_trun *r, struct m40_buf *buf, int value, int width, char fill, char flag)
{
    char text[24];

    fill = flag == '_' ? ' ' : flag == '0' ? '0' : fill;
    snprintf(text, sizeof text, flag == '-' ? "%d" : fill == '0' ? "%0*d" : "%*d", flag == '-' ? value : width, value);
    m40_tr_put_text(r, buf, text);
}

/* The conversions that are numbers; false: c is none of them. */
static bool put_numeric(struct m40_trun *r, struct m40_buf *buf, char c, char flag, const struct m40_template_time *t)
{
    const int hour12 = t->hour % 12 ? t->hour % 12 : 12, weekday = week_day(t), day = days_before(t);
    int iso_year, week = iso_week(t, &iso_year);
    const struct {
        char letter, fill;
        int width, value;
    } numbers[] = {
        {'Y', '0', 1, t->year},
        {'C', '0', 2, t->year / 100},
        {'y', '0', 2, t->year % 100},
        {'G', '0', 1, iso_year},
        {'g', '0', 2, iso_year % 100},
        {'V', '0', 2, week},
        {'m', '0', 2, t->month},
        {'d', '0', 2, t->day},
        {'e', ' ', 2, t->day},
        {'H', '0', 2, t->hour},
        {'k', ' ', 2, t->hour},
        {'I', '0', 2, hour12},
        {'l', ' ', 2, hour12},
        {'M', '0', 2, t->minute},
        {'S', '0', 2, t->second},
        {'j', '0', 3, day + 1},
        {'f', '0', 6, 0},
        {'u', '0', 1, weekday ? weekday : 7},
        {'w', '0', 1, weekday},
        {'U', '0', 2, (day + 7 - weekday) / 7},
        {'W', '0', 2, (day + 7 - (weekday + 6) % 7) / 7},
    };

    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (numbers[i].letter == c) {
            put_number(r, buf, numbers[i].value, numbers[i].width, numbers[i].fill, flag);
            return true;
        }
    return false;
}

/* The conversions that are words or characters; false: c is none of them. */
static bool put_word(struct m40_trun *r, struct m40_buf *buf, char c, const struct m40_template_time *t)
{
    const char *day = day_names[week_day(t)], *month = month_names[t->month - 1];
    const struct {
        char letter;
        struct m40_str text;
    } words[] = {
        {'A', m40_str_from(day)},
        {'a', {day, 3}},
        {'B', m40_str_from(month)},
        {'b', {month, 3}},
        {'h', {month, 3}},
        {'p', {t->hour < 12 ? "AM" : "PM", 2}},
        {'P', {t->hour < 12 ? "am" : "pm", 2}},
        {'n', {"\n", 1}},
        {'t', {"\t", 1}},
        {'%', {"%", 1}},
        {'z', {"", 0}},
        {'Z', {"", 0}}, /* a time without a zone has none */
    };

    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (words[i].letter == c) {
            m40_tr_put(r, buf, words[i].text.data, words[i].text.n_bytes);
            return true;
        }
    return false;
}

/* The conversions that consist of others; NULL: c is none of them. */
static const char *composed(char c)
{
    static const struct {
        char letter;
        const char *format;
    } formats[] = {{'F', "%Y-%m-%d"},
                   {'T', "%H:%M:%S"},
                   {'X', "%H:%M:%S"},
                   {'R', "%H:%M"},
                   {'D', "%m/%d/%y"},
                   {'x', "%m/%d/%y"},
                   {'c', "%a %b %e %H:%M:%S %Y"},
                   {'r', "%I:%M:%S %p"}};

    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
        if (formats[i].letter == c)
            return formats[i].format;
    return NULL;
}

static void put_conversion(struct m40_trun *r, struct m40_buf *buf, char c, char flag, const struct m40_template_time *t)
{
    const char *format = composed(c);

    for (; format && *format; format++)
        if (*format != '%')
            m40_tr_put(r, buf, format, 1);
        else if (format++, !put_numeric(r, buf, *format, 0, t))
            put_word(r, buf, *format, t);
    if (!composed(c) && !put_numeric(r, buf, c, flag, t) && !put_word(r, buf, c, t))
        m40_tr_fail(r, "strftime_now() does not know %%%c", c >= 0x20 && c < 0x7f ? c : '?');
}

struct m40_tv m40_tr_strftime(struct m40_trun *r, struct m40_str format, const struct m40_template_time *t)
{
    struct m40_buf buf = {0};

    for (size_t i = 0; i < format.n_bytes && !r->failed; i++) {
        char flag = 0;

        if (format.data[i] != '%' || i + 1 == format.n_bytes) {
            m40_tr_put(r, &buf, format.data + i, 1);
            continue;
        }
        if (strchr("-_0", format.data[++i]) && i + 1 < format.n_bytes)
            flag = format.data[i++];
        put_conversion(r, &buf, format.data[i], flag, t);
    }
    return m40_tr_take(r, &buf);
}
