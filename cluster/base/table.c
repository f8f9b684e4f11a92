#include "cluster/base/table.h"

struct table {
    size_t columns;
    bool right[TABLE_COLUMNS];
    size_t width[TABLE_COLUMNS];
    char **cells; /* the titles, then row after row */
    size_t count;
    size_t cap;
};

/* Characters on the screen: bytes that do not continue a UTF-8 character. */
static size_t width_of(const char *s)
{
    size_t n = 0;

    for (; *s != '\0'; s++) {
        n += ((unsigned char)*s & 0xc0) != 0x80;
    }
    return n;
}

/* Takes the text over. */
static void add(struct table *t, char *text)
{
    size_t column = t->count % t->columns;

    for (char *p = text; *p != '\0'; p++) {
        if ((unsigned char)*p < 0x20 || *p == 0x7f) {
            *p = '?';
        }
    }
    if (t->count == t->cap) {
        t->cap = MAX(t->cap * 2, 64);
        t->cells = x_realloc(t->cells, t->cap * sizeof(t->cells[0]));
    }
    t->cells[t->count++] = text;
    t->width[column] = MAX(t->width[column], width_of(text));
}

struct table *table_new(const char *titles)
{
    struct table *t = x_alloc(sizeof(*t));
    char *title[TABLE_COLUMNS];

    while (*titles != '\0') {
        bool right = *titles == '>';
        size_t n;

        ASSERT(t->columns < TABLE_COLUMNS);
        titles += right ? 1 : 0;
        n = strcspn(titles, " ");
        title[t->columns] = x_strndup(titles, n);
        for (char *p = title[t->columns]; *p != '\0'; p++) {
            *p = *p == '_' ? ' ' : *p;
        }
        t->right[t->columns++] = right;
        titles += n + strspn(titles + n, " ");
    }
    for (size_t i = 0; i < t->columns; i++) {
        add(t, title[i]);
    }
    return t;
}

void table_free(struct table *t)
{
    if (t == NULL) {
        return;
    }
    for (size_t i = 0; i < t->count; i++) {
        free(t->cells[i]);
    }
    free(t->cells);
    free(t);
}

void table_cell(struct table *t, const char *fmt, ...)
{
    va_list ap;
    char *text = NULL;

    va_start(ap, fmt);
    ASSERT(vasprintf(&text, fmt, ap) >= 0);
    va_end(ap);
    add(t, text);
}

void table_print(const struct table *t, FILE *to)
{
    ASSERT(t->count % t->columns == 0);
    for (size_t i = 0; i < t->count; i++) {
        size_t column = i % t->columns;
        int pad = (int)(t->width[column] - width_of(t->cells[i]));
        bool last = column + 1 == t->columns;

        fprintf(to, "%*s%s", t->right[column] ? pad : 0, "", t->cells[i]);
        if (last) {
            putc('\n', to);
        } else {
            fprintf(to, "%*s", (t->right[column] ? 0 : pad) + 2, "");
        }
    }
}
