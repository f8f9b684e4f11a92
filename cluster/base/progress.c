#include "cluster/base/progress.h"

#include <unistd.h>

#include "cluster/base/clock.h"
#include "cluster/base/text.h"

#define DRAW_EVERY_MS 200
#define LINE_BYTES    80

bool progress_wanted(void)
{
    const char *term = getenv("TERM");

    return isatty(STDERR_FILENO) == 1 && term != NULL && strcmp(term, "dumb") != 0;
}

void progress_begin(struct progress *p, const char *what, uint64_t total)
{
    uint64_t now = clock_mono_ms();

    *p = (struct progress){
        .what = what, .total = total, .start_ms = now, .drawn_ms = now, .shown = progress_wanted()
    };
}

void progress_line(const struct progress *p, uint64_t now_ms, char *buf, size_t size)
{
    char done[TEXT_NUMBER], total[TEXT_NUMBER], rate[TEXT_NUMBER], left[TEXT_NUMBER];
    uint64_t ms = MAX(now_ms - p->start_ms, UINT64_C(1));
    double per_ms = (double)p->done / (double)ms;

    text_bytes(p->done, done);
    text_bytes((uint64_t)(per_ms * 1000), rate);
    if (p->total == 0) {
        snprintf(buf, size, "%-20.20s %10s %10s/s", p->what, done, rate);
        return;
    }
    text_bytes(p->total, total);
    if (p->done == 0) {
        snprintf(left, sizeof(left), "?");
    } else {
        uint64_t rest = p->total > p->done ? p->total - p->done : 0;

        text_ago((uint64_t)((double)rest / per_ms), left);
    }
    snprintf(buf, size, "%-20.20s %s of %s  %3u%%  %s/s  %s left", p->what, done, total,
             (unsigned int)((double)MIN(p->done, p->total) * 100 / (double)p->total), rate, left);
}

void progress_add(struct progress *p, uint64_t n)
{
    char line[LINE_BYTES];
    uint64_t now;

    p->done += n;
    if (!p->shown) {
        return;
    }
    now = clock_mono_ms();
    if (now - p->drawn_ms >= DRAW_EVERY_MS) {
        progress_line(p, now, line, sizeof(line));
        fprintf(stderr, "\r%s\033[K", line);
        p->drawn_ms = now;
    }
}

void progress_end(struct progress *p)
{
    if (p->shown) {
        fprintf(stderr, "\r\033[K");
    }
}
