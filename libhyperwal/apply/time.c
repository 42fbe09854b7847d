/* Times as people write them: hw_time_parse() and hw_time_format() of apply/apply.h. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "apply/apply.h"

/* Days from 1970-01-01 to a date of the Gregorian calendar, years 1 and later. */
static int64_t days_from_date(int64_t year, int64_t month, int64_t day)
{
    int64_t era, year_of_era, day_of_year;

    year -= month <= 2; /* years begin in March, so that the leap day is their last */
    era = year / 400;
    year_of_era = year - era * 400;
    day_of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    return era * 146097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year -
           719468;
}

static void date_from_days(int64_t days, int *year, int *month, int *day)
{
    int64_t era, day_of_era, year_of_era, day_of_year, march_month;

    days += 719468;
    era = days / 146097;
    day_of_era = days - era * 146097;
    year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
    day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    march_month = (5 * day_of_year + 2) / 153;
    *day = (int)(day_of_year - (153 * march_month + 2) / 5 + 1);
    *month = (int)(march_month < 10 ? march_month + 3 : march_month - 9);
    *year = (int)(year_of_era + era * 400 + (*month <= 2));
}

/* Exactly `digits` digits; moves *text behind them. */
static bool take_number(const char **text, int digits, int64_t *out)
{
    *out = 0;
    for (int i = 0; i < digits; i++, ++*text) {
        if (**text < '0' || **text > '9')
            return false;
        *out = *out * 10 + (**text - '0');
    }
    return true;
}

static bool take(const char **text, char expected)
{
    if (**text != expected)
        return false;
    ++*text;
    return true;
}

static bool is_leap(int64_t year)
{
    return (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
}

static bool parse_date(const char **text, int64_t *days)
{
    static const int month_days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    int64_t year, month, day;

    if (!take_number(text, 4, &year) || !take(text, '-') || !take_number(text, 2, &month) ||
        !take(text, '-') || !take_number(text, 2, &day))
        return false;
    if (year < 1970 || month < 1 || month > 12 || day < 1 ||
        day > month_days[month - 1] + (month == 2 && is_leap(year)))
        return false;
    *days = days_from_date(year, month, day);
    return true;
}

/* "10:00", "10:00:00" or "10:00:00.25": any number of digits, those beyond milliseconds are cut. */
static bool parse_clock(const char **text, int64_t *ms)
{
    int64_t hour, minute, second = 0, fraction = 0;

    if (!take_number(text, 2, &hour) || !take(text, ':') || !take_number(text, 2, &minute))
        return false;
    if (take(text, ':')) {
        if (!take_number(text, 2, &second))
            return false;
        if (take(text, '.')) {
            int64_t weight = 100, digit;

            if (**text < '0' || **text > '9')
                return false;
            for (; take_number(text, 1, &digit); weight /= 10)
                fraction += digit * weight;
        }
    }
    if (hour > 23 || minute > 59 || second > 59)
        return false;
    *ms = ((hour * 60 + minute) * 60 + second) * 1000 + fraction;
    return true;
}

static bool parse_iso(const char *text, int64_t *out)
{
    int64_t days, ms = 0;

    if (!parse_date(&text, &days))
        return false;
    if (take(&text, 'T') || take(&text, ' ')) {
        if (!parse_clock(&text, &ms))
            return false;
        (void)take(&text, 'Z'); /* UTC with or without saying so */
    }
    *out = days * 86400000 + ms;
    return *text == '\0';
}

static bool parse_digits(const char *text, int64_t *out)
{
    size_t digits = strspn(text, "0123456789");

    if (digits == 0 || digits > 15 || text[digits] != '\0')
        return false;
    return take_number(&text, (int)digits, out);
}

enum hw_status hw_time_parse(const char *text, int64_t *out, struct hw_error *err)
{
    int64_t time_ms;

    if (!parse_digits(text, &time_ms) && !parse_iso(text, &time_ms))
        return hw_fail(err, HW_EMISUSE,
                       "'%.40s' is not a time: write 2026-11-22T10:00:00Z (UTC), or milliseconds "
                       "since 1970",
                       text);
    *out = time_ms;
    return HW_OK;
}

/* `value` in exactly `digits` digits, and the character behind it; where the next one goes. */
static char *put_number(char *out, int64_t value, int digits, char behind)
{
    for (int i = digits - 1; i >= 0; i--, value /= 10)
        out[i] = (char)('0' + value % 10);
    out[digits] = behind;
    return out + digits + 1;
}

void hw_time_format(int64_t time_ms, char out[32])
{
    int64_t days, ms;
    int year, month, day;

    /* The year 9999 ends here, and the four digits of the format with it. */
    if (time_ms < 0 || time_ms > 253402300799999) {
        (void)snprintf(out, 32, "%" PRId64, time_ms);
        return;
    }
    days = time_ms / 86400000;
    ms = time_ms % 86400000;
    date_from_days(days, &year, &month, &day);
    out = put_number(out, year, 4, '-');
    out = put_number(out, month, 2, '-');
    out = put_number(out, day, 2, 'T');
    out = put_number(out, ms / 3600000, 2, ':');
    out = put_number(out, ms / 60000 % 60, 2, ':');
    out = put_number(out, ms / 1000 % 60, 2, '.');
    out = put_number(out, ms % 1000, 3, 'Z');
    *out = '\0';
}
