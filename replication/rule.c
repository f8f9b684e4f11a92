#include "replication/rule.h"

#include "cluster/base/err.h"

static bool is_word(struct slice s, const char *word)
{
    return slice_eq(s, slice_str(word));
}

bool rule_label_ok(struct slice label)
{
    if (label.len == 0 || label.len > LIMIT_LABEL || is_word(label, "any") ||
        is_word(label, "none") || is_word(label, "strict") || is_word(label, "preferred")) {
        return false;
    }
    for (size_t i = 0; i < label.len; i++) {
        char c = (char)label.p[i];

        if (!(c >= 'a' && c <= 'z') && !(c >= 'A' && c <= 'Z') && !(c >= '0' && c <= '9') &&
            strchr("-_.", c) == NULL) {
            return false;
        }
    }
    return true;
}

static int get_label(struct slice s, char ret[LIMIT_LABEL + 1], struct why *why)
{
    bool any = is_word(s, "any");

    if (!any && !rule_label_ok(s)) {
        return why_set(why, DFS_EINVAL, "\"%.*s\": not a label", (int)s.len, (const char *)s.p);
    }
    if (!any) {
        memcpy(ret, s.p, s.len);
    }
    ret[any ? 0 : s.len] = '\0';
    return 0;
}

/* "ssd:2" */
static int get_slots(struct rule *r, struct slice s, const uint8_t *colon, struct why *why)
{
    size_t at = (size_t)(colon - s.p);
    unsigned int n = 0;
    int err = 0;

    for (size_t i = at + 1; i < s.len && n <= LIMIT_REPLICATION; i++) {
        n = s.p[i] >= '0' && s.p[i] <= '9' ? n * 10 + s.p[i] - '0' : LIMIT_REPLICATION + 1;
    }
    if (n == 0 || n + r->count > LIMIT_REPLICATION) {
        return why_set(why, DFS_EINVAL, "\"%.*s\": want 1 to %d copies altogether", (int)s.len,
                       (const char *)s.p, LIMIT_REPLICATION);
    }
    for (unsigned int i = 0; err == 0 && i < n; i++) {
        err = get_label(slice_of(s.p, at), r->slot[r->count++], why);
    }
    return err;
}

/* One part between commas; *has_rest, *ended: what came before. */
static int get_part(struct rule *r, struct slice s, bool *has_rest, bool *ended, struct why *why)
{
    const uint8_t *colon = s.len != 0 ? memchr(s.p, ':', s.len) : NULL;
    bool strict = is_word(s, "strict");

    if (*ended) {
        return why_set(why, DFS_EINVAL, "\"strict\" and \"preferred\" come last");
    }
    if (strict || is_word(s, "preferred")) {
        *ended = true;
        r->strict = strict;
        return 0;
    }
    if (*has_rest) {
        return why_set(why, DFS_EINVAL, "a label without a number comes after all others");
    }
    if (colon != NULL) {
        return get_slots(r, s, colon, why);
    }
    *has_rest = true;
    return get_label(s, r->rest, why);
}

/* Slots with a label come first, in their order: a chain is made in the order of the slots, and what
 * is particular is looked for first. */
static void any_last(struct rule *r)
{
    size_t to = 0;

    for (size_t i = 0; i < r->count; i++) {
        if (*r->slot[i] != '\0') {
            memmove(r->slot[to++], r->slot[i], sizeof(r->slot[0]));
        }
    }
    for (; to < r->count; to++) {
        *r->slot[to] = '\0';
    }
}

int rule_parse(struct slice text, struct rule *ret, struct why *why)
{
    struct rule r = { .strict = false };
    bool has_rest = false, ended = false;

    if (text.len == 0 || text.len >= RULE_TEXT) {
        return why_set(why, DFS_EINVAL, "a rule has 1 to %d characters", RULE_TEXT - 1);
    }
    for (size_t at = 0; at <= text.len;) {
        const uint8_t *comma = at < text.len ? memchr(text.p + at, ',', text.len - at) : NULL;
        size_t end = comma != NULL ? (size_t)(comma - text.p) : text.len;
        int err = get_part(&r, slice_of(text.p + at, end - at), &has_rest, &ended, why);

        if (err != 0) {
            return err;
        }
        at = end + 1;
    }
    if (r.count == 0 && !has_rest) {
        return why_set(why, DFS_EINVAL, "the rule names no label");
    }
    if (strlen(rule_format(&r, (char[RULE_TEXT]){ 0 })) == RULE_TEXT - 1) {
        return why_set(why, DFS_EINVAL, "the rule is too long");
    }
    any_last(&r);
    *ret = r;
    return 0;
}

static const char *shown(const char *label)
{
    return *label != '\0' ? label : "any";
}

const char *rule_format(const struct rule *r, char buf[RULE_TEXT])
{
    size_t at = 0;

    buf[0] = '\0';
    for (size_t i = 0; i < r->count && at < RULE_TEXT;) {
        size_t n = 1;

        while (i + n < r->count && strcmp(r->slot[i], r->slot[i + n]) == 0) {
            n++;
        }
        at += (size_t)snprintf(buf + at, RULE_TEXT - at, "%s%s:%zu", at != 0 ? "," : "",
                               shown(r->slot[i]), n);
        i += n;
    }
    if (at < RULE_TEXT && (*r->rest != '\0' || r->count == 0)) {
        at +=
            (size_t)snprintf(buf + at, RULE_TEXT - at, "%s%s", at != 0 ? "," : "", shown(r->rest));
    }
    if (at < RULE_TEXT && r->strict) {
        snprintf(buf + at, RULE_TEXT - at, ",strict");
    }
    return buf;
}

uint8_t rule_copies(const struct rule *r)
{
    return *r->rest == '\0' ? r->count : 0;
}

const char *rule_label(const struct rule *r, size_t i)
{
    return r == NULL ? "" : i < r->count ? r->slot[i] : r->rest;
}
