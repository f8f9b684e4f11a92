#include "cluster/base/text.h"

#define WORD_MAX 64 /* longer words are compared by their beginning */

const char *text_bytes(uint64_t bytes, char buf[TEXT_NUMBER])
{
    static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
    double v = (double)bytes;
    size_t unit = 0;

    while (v >= 1023.5 && unit + 1 < ARRAY_LEN(units)) {
        v /= 1024;
        unit++;
    }
    snprintf(buf, TEXT_NUMBER, unit > 0 && v < 99.95 ? "%.1f %s" : "%.0f %s", v, units[unit]);
    return buf;
}

struct unit {
    const char *name;
    uint64_t factor;
};

/* In the largest unit that needs no fraction; units go from large to small, the last is 1. */
static const char *exact(uint64_t v, const struct unit *unit, char buf[TEXT_NUMBER])
{
    while (unit->factor > 1 && (v % unit->factor != 0 || v == 0)) {
        unit++;
    }
    snprintf(buf, TEXT_NUMBER, "%" PRIu64 "%s", v / unit->factor, unit->name);
    return buf;
}

const char *text_size(uint64_t bytes, char buf[TEXT_NUMBER])
{
    static const struct unit units[] = {
        { "TiB", GIB << 10 }, { "GiB", GIB }, { "MiB", MIB }, { "KiB", KIB }, { "", 1 },
    };

    return exact(bytes, units, buf);
}

const char *text_time(uint64_t ms, char buf[TEXT_NUMBER])
{
    static const struct unit units[] = {
        { "d", 86400000 }, { "h", 3600000 }, { "m", 60000 }, { "s", 1000 }, { "ms", 1 },
    };

    return exact(ms, units, buf);
}

const char *text_ago(uint64_t ms, char buf[TEXT_NUMBER])
{
    uint64_t s = ms / 1000;

    if (ms < 9950) {
        snprintf(buf, TEXT_NUMBER, "%.1f s", (double)ms / 1000);
    } else if (s < 60) {
        snprintf(buf, TEXT_NUMBER, "%" PRIu64 " s", s);
    } else if (s < 3600) {
        snprintf(buf, TEXT_NUMBER, "%" PRIu64 " min %" PRIu64 " s", s / 60, s % 60);
    } else if (s < 86400) {
        snprintf(buf, TEXT_NUMBER, "%" PRIu64 " h %" PRIu64 " min", s / 3600, s / 60 % 60);
    } else {
        snprintf(buf, TEXT_NUMBER, "%" PRIu64 " d %" PRIu64 " h", s / 86400, s / 3600 % 24);
    }
    return buf;
}

size_t text_distance(const char *a, const char *b)
{
    size_t d[3][WORD_MAX + 1]; /* rows i-2, i-1 and i, in turn */
    size_t na = MIN(strlen(a), (size_t)WORD_MAX);
    size_t nb = MIN(strlen(b), (size_t)WORD_MAX);

    for (size_t j = 0; j <= nb; j++) {
        d[0][j] = j;
    }
    for (size_t i = 1; i <= na; i++) {
        size_t *row = d[i % 3], *up = d[(i + 2) % 3], *up2 = d[(i + 1) % 3];

        row[0] = i;
        for (size_t j = 1; j <= nb; j++) {
            size_t best = up[j - 1] + (a[i - 1] != b[j - 1]);

            best = MIN(best, MIN(up[j], row[j - 1]) + 1);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
                best = MIN(best, up2[j - 2] + 1);
            }
            row[j] = best;
        }
    }
    return d[na % 3][nb];
}

const char *text_nearest(const char *word, const char *const *words, size_t count)
{
    const char *best = NULL;
    size_t best_distance = MAX(strlen(word) / 2, (size_t)1) + 1; /* this much is another word */

    for (size_t i = 0; i < count; i++) {
        size_t distance = text_distance(word, words[i]);

        if (distance < best_distance) {
            best = words[i];
            best_distance = distance;
        }
    }
    return best;
}
