#include "fs/mount/options.h"

#include "cluster/base/addr.h"
#include "cluster/base/err.h"
#include "cluster/base/limits.h"

#define PORT_DEFAULT "9600"

static const char *const kernel_names[] = {
    "ro",   "rw",     "suid",  "nosuid", "dev",     "nodev",
    "exec", "noexec", "async", "sync",   "dirsync", "noatime",
};

static const char *const mount8_names[] = {
    "_netdev",  "_rnetdev",   "auto",     "noauto",     "user",        "nouser",
    "users",    "owner",      "group",    "nofail",     "defaults",    "atime",
    "diratime", "nodiratime", "relatime", "norelatime", "strictatime", "nostrictatime",
    "lazytime", "nolazytime", "silent",   "loud",
};

static const char *const mount8_prefixes[] = {
    "x-", "X-", "comment=", "user=", "uhelper=", "helper=", "context=", "fsname=", "subtype=",
};

static const struct {
    const char *name; /* of the option */
    const char *key;  /* of the configuration */
    bool seconds;     /* a number without a unit means seconds, as for other file systems */
} short_keys[] = {
    { "attr_timeout", "client.attr_timeout", true },       { "timeout", "client.timeout", true },
    { "commit_interval", "client.commit_interval", true }, { "cache", "client.cache", false },
    { "read_ahead", "client.read_ahead", false },
};

static bool listed(const char *const *names, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(names[i], name) == 0) {
            return true;
        }
    }
    return false;
}

/* ---- source ---- */

/* Adds a port to one master that has none. */
static int add_master(char **list, const char *text, struct why *why)
{
    const char *behind = strrchr(text, ']');
    bool has_port = strchr(behind != NULL ? behind : text, ':') != NULL;
    char *one = has_port ? x_strdup(text) : x_printf("%s:%s", text, PORT_DEFAULT);
    struct addr a;
    int err = addr_parse(one, &a, why);

    if (err == 0 && a.port == 0) {
        err = why_set(why, DFS_EINVAL, "%s: a master's port cannot be 0", text);
    }
    if (err == 0) {
        char *all = *list == NULL ? x_strdup(one) : x_printf("%s,%s", *list, one);

        free(*list);
        *list = all;
    }
    free(one);
    return err;
}

static char *clean_path(const char *text)
{
    size_t len = strlen(text);

    while (len > 1 && text[len - 1] == '/') {
        len--;
    }
    return x_strndup(text, len);
}

int options_source(const char *source, char **ret_masters, char **ret_path, struct why *why)
{
    const char *path = strstr(source, ":/");
    char *masters = NULL, *hosts, *save = NULL;
    int err = 0;

    if (path == NULL || path == source) {
        return why_set(why, DFS_EINVAL, "\"%s\": want MASTER[:PORT][,MASTER[:PORT]]:/path", source);
    }
    if (strlen(path + 1) >= LIMIT_PATH) {
        return why_set(why, DFS_EINVAL, "the path inside dfs is too long");
    }
    hosts = x_strndup(source, (size_t)(path - source));
    for (char *h = strtok_r(hosts, ",", &save); h != NULL && err == 0;
         h = strtok_r(NULL, ",", &save)) {
        err = add_master(&masters, h, why);
    }
    free(hosts);
    if (err == 0 && masters == NULL) {
        err = why_set(why, DFS_EINVAL, "\"%s\" names no master", source);
    }
    if (err != 0) {
        free(masters);
        return err;
    }
    *ret_masters = masters;
    *ret_path = clean_path(path + 1);
    return 0;
}

/* ---- -o ---- */

static void put_text(char **to, const char *value)
{
    free(*to);
    *to = x_strdup(value);
}

static void add_kernel(struct options *o, const char *name)
{
    char *all = o->kernel == NULL ? x_strdup(name) : x_printf("%s,%s", o->kernel, name);

    free(o->kernel);
    o->kernel = all;
}

static int add_set(struct options *o, const char *key, const char *value, const char *unit,
                   struct why *why)
{
    if (o->set_count == ARRAY_LEN(o->sets)) {
        return why_set(why, DFS_EINVAL, "too many options");
    }
    o->sets[o->set_count++] = x_printf("%s=%s%s", key, value, unit);
    return 0;
}

static bool is_number(const char *text)
{
    return text[0] != '\0' && strspn(text, "0123456789") == strlen(text);
}

static int add_id(uint32_t *to, const char *name, const char *value, struct why *why)
{
    unsigned long long id = strtoull(value, NULL, 10);

    if (!is_number(value) || strlen(value) > 10 || id >= UINT32_MAX) {
        return why_set(why, DFS_EINVAL, "%s=%s: want a number below %u", name, value, UINT32_MAX);
    }
    *to = (uint32_t)id;
    return 0;
}

/* "name=value"; false when the name is none of ours. */
static bool take_value(struct options *o, const char *name, const char *value, int *ret_err,
                       struct why *why)
{
    *ret_err = 0;
    if (strcmp(name, "conf") == 0) {
        put_text(&o->conf_file, value);
        return true;
    }
    if (strcmp(name, "log") == 0) {
        put_text(&o->log, value);
        return true;
    }
    if (strcmp(name, "pid_file") == 0) {
        put_text(&o->pid_file, value);
        return true;
    }
    if (strcmp(name, "anonuid") == 0 || strcmp(name, "anongid") == 0) {
        *ret_err = add_id(name[4] == 'u' ? &o->anon_uid : &o->anon_gid, name, value, why);
        return true;
    }
    for (size_t i = 0; i < ARRAY_LEN(short_keys); i++) {
        if (strcmp(name, short_keys[i].name) == 0) {
            bool seconds = short_keys[i].seconds && is_number(value);

            *ret_err = add_set(o, short_keys[i].key, value, seconds ? "s" : "", why);
            return true;
        }
    }
    if (strncmp(name, "client.", 7) == 0 || strcmp(name, "log.level") == 0) {
        *ret_err = add_set(o, name, value, "", why);
        return true;
    }
    return false;
}

static bool take_flag(struct options *o, const char *name)
{
    if (listed(kernel_names, ARRAY_LEN(kernel_names), name)) {
        add_kernel(o, name);
    } else if (strcmp(name, "nonempty") == 0) {
        o->nonempty = true;
    } else if (strcmp(name, "allow_other") == 0) {
        o->allow_other = true;
    } else if (strcmp(name, "noallow_other") == 0) {
        o->no_allow_other = true;
    } else if (strcmp(name, "root_squash") == 0) {
        o->root_squash = true;
    } else if (strcmp(name, "no_root_squash") == 0) {
        o->root_squash = false;
    } else {
        return listed(mount8_names, ARRAY_LEN(mount8_names), name);
    }
    return true;
}

static bool passed_over(const char *text)
{
    for (size_t i = 0; i < ARRAY_LEN(mount8_prefixes); i++) {
        if (strncmp(text, mount8_prefixes[i], strlen(mount8_prefixes[i])) == 0) {
            return true;
        }
    }
    return false;
}

static int add_one(struct options *o, char *text, bool sloppy, struct why *why)
{
    char *eq = strchr(text, '=');
    int err = 0;

    if (passed_over(text) || strcmp(text, "remount") == 0) {
        return 0;
    }
    if (eq != NULL) {
        bool known;

        *eq = '\0';
        known = take_value(o, text, eq + 1, &err, why);
        *eq = '=';
        if (known) {
            return err;
        }
    } else if (take_flag(o, text)) {
        return 0;
    }
    return sloppy || o->remount ? 0 : why_set(why, DFS_EINVAL, "unknown mount option \"%s\"", text);
}

static bool has_word(const char *list, const char *word)
{
    size_t len = strlen(word);

    for (const char *at = list; (at = strstr(at, word)) != NULL; at += len) {
        if ((at == list || at[-1] == ',') && (at[len] == ',' || at[len] == '\0')) {
            return true;
        }
    }
    return false;
}

int options_add(struct options *o, const char *text, bool sloppy, struct why *why)
{
    char *copy = x_strdup(text);
    char *save = NULL;
    int err = 0;

    o->remount = o->remount || has_word(text, "remount"); /* it may stand behind what is unknown */
    for (char *one = strtok_r(copy, ",", &save); one != NULL && err == 0;
         one = strtok_r(NULL, ",", &save)) {
        err = add_one(o, one, sloppy, why);
    }
    free(copy);
    return err;
}

void options_fini(struct options *o)
{
    free(o->conf_file);
    free(o->log);
    free(o->pid_file);
    free(o->kernel);
    for (size_t i = 0; i < o->set_count; i++) {
        free(o->sets[i]);
    }
    *o = (struct options){ 0 };
}
